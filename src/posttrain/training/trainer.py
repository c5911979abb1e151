"""RankingTrainer: a ``transformers.Trainer`` whose loss is the ranking loss.

From ``posttrain train`` to the loss it is three hops: :func:`.commands.train.main` →
:meth:`RankingTrainer.compute_loss` → :func:`.losses.ranking_loss`. What happens on the way:

1. Data: :func:`.dataset.tokenized` turns ranked groups into token ids and the pairs to train on
   (:mod:`.pairing`), a row of an Arrow file each.
2. Steps: :class:`.sampler.StepSampler` plans which groups an optimiser step takes, and in which
   micro-batches each process computes them.
3. Rows: :class:`.collator.GroupCollator` lays a micro-batch out in rows (:mod:`.rows.layout`).
4. Scores: :func:`.reward_model.forward_scores` reads one from each response's last state, with a
   mask that keeps responses in a row apart (:mod:`.rows.attention`).
5. Loss: :meth:`RankingTrainer.compute_loss` takes the scores of winners and losers to
   :func:`.losses.ranking_loss`; :meth:`RankingTrainer.training_step` adds up the gradients of a
   step.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer

from posttrain.errors import UserError
from posttrain.models.exactness import check_exact
from posttrain.models.float64 import compute_in_double, computing_in_double
from posttrain.models.memory import enough_tokens
from posttrain.models.reward_model import accept_rows, forward_scores, stock_model
from posttrain.rows.layout import RowBatch
from posttrain.training import early_stopping
from posttrain.training.collator import GroupCollator, refuse_margins
from posttrain.training.config import RankingConfig
from posttrain.training.divergence import diverged
from posttrain.training.fsdp import shard_head_in_fp32
from posttrain.training.losses import label_loss, plackett_luce_loss, ranking_loss
from posttrain.training.metrics import RecentSteps
from posttrain.training.predictions import by_place, metrics_of
from posttrain.training.room import find_room
from posttrain.training.sampler import EpochCounter
from posttrain.training.step_batches import (
    EvaluationBatches,
    TrainingBatches,
    check_lengths,
    collator_for,
    shares_rows,
    step_loader,
    step_sampler,
)
from posttrain.training.whole_checkpoints import WholeCheckpoints


class RankingTrainer(WholeCheckpoints, Trainer):
    """Trains a reward model on groups; all but loss and metrics is ``transformers.Trainer``.

    The loss of a step is the mean over all its pairs (with ``plackett-luce``, its groups), in
    however many micro-batches and processes they are computed; with ``auxiliary_weight``, that many
    times the mean of :func:`.losses.label_loss` over its labelled responses is added. Groups come
    in an order that depends on ``data_seed`` (or ``seed``) and the epoch alone, and so do each
    group's shuffled responses. So a resumed run continues as if it had not been interrupted, and
    micro-batches and processes change no row.

    Beside Trainer's own numbers it logs those of :mod:`.training.metrics`. Evaluation reports them
    and the ``loss``, the mean over all pairs whatever the loss_type, labels aside.

    Args:
        model: The reward model (see :func:`.reward_model.load`), or a peft model of one.
        args: Settings.
        data_collator: Lays groups out in rows. Without a ``pack_length`` the groups of a
            micro-batch share one where attention is in two pieces.
        train_dataset: See :func:`.collator.training_set`. Plackett–Luce needs all pairs of each
            group, without margins and weights.
        **kwargs: Passed on to ``Trainer``, such as the tokenizer as ``processing_class``, which
            checkpoints then hold, too. A function given as ``compute_metrics`` takes the place
            of :meth:`pair_metrics`.
    """

    def __init__(
        self,
        model: Any,
        args: RankingConfig,
        *,
        data_collator: GroupCollator,
        train_dataset: Any = None,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            raise UserError(
                f"this process sees {args.n_gpu} GPUs; start one process for each (accelerate "
                "launch), or show it only one (CUDA_VISIBLE_DEVICES=0)"
            )
        if args.max_tokens_per_device is None:
            args.max_tokens_per_device = enough_tokens(find_room(model, args), args.device)
        super().__init__(
            accept_rows(model),
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            callbacks=[*(kwargs.pop("callbacks", None) or ()), *early_stopping.callbacks(args)],
            **kwargs,
        )
        self.config: RankingConfig = args
        self.collator = data_collator
        # The loss is computed here; Trainer is to leave it alone.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self.compute_metrics = self.compute_metrics or self.pair_metrics
        self._recent = RecentSteps()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after a check that each response is scored by itself and its prompt alone.

        Raises:
            UserError: See :func:`.check_exact` and :func:`.check_lengths`. Also if losses,
                gradients or weights stop being finite.
        """
        check_exact(
            self.model,
            self.collator.layout,
            pad_token_id=self.collator.pad_token_id,
            shared_rows=shares_rows(self.model, self.collator),
        )
        self._recent = RecentSteps()
        stock = stock_model(self.model)
        if self.is_fsdp_enabled:
            # It gathers weights for the modules that it has wrapped, which therefore have to stay.
            compute_in_double(stock)
        with nullcontext() if self.is_fsdp_enabled else computing_in_double(stock):
            return super().train(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As ``Trainer`` does, once FSDP has been told what to keep in full precision."""
        shard_head_in_fp32(self.model, getattr(self.accelerator.state, "fsdp_plugin", None))
        return super().create_optimizer(model)

    def get_train_dataloader(self) -> DataLoader:
        """One item a step: the micro-batches that this process computes (see :mod:`.sampler`)."""
        check_lengths(self.model, self.train_dataset, self.collator.layout)
        collator = collator_for(self.model, self.train_dataset, self.collator, self.config)
        shuffle = self.config.train_sampling_strategy == "random"
        sampler = step_sampler(
            self.train_dataset, collator, self.config, self.accelerator, shuffle=shuffle
        )
        labels = sampler.sizes.labels
        if self.config.auxiliary_weight and (labels is None or not labels.any()):
            raise UserError(
                f"auxiliary_weight={self.config.auxiliary_weight:g} needs labelled responses, and "
                f"none of the {len(sampler.sizes.pairs)} groups has any; give TrainingGroup its "
                "labels, or set auxiliary_weight to 0"
            )
        self.add_callback(EpochCounter(sampler))
        whole_rankings = self.config.loss_type == "plackett-luce"
        if whole_rankings:
            refuse_margins(self.train_dataset)
        batches = TrainingBatches(collator, whole_rankings)
        persistent = self.config.dataloader_persistent_workers
        return step_loader(self.train_dataset, sampler, batches, self.config, persistent=persistent)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Steps as in training, in the data's order, so that evaluation takes no more memory."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]  # type: ignore[index]
        if dataset is None:
            raise UserError("there is no data set to evaluate on; give an eval_dataset")
        check_lengths(self.model, dataset, self.collator.layout)
        collator = collator_for(self.model, dataset, self.collator, self.config)
        sampler = step_sampler(
            dataset, collator, self.config, self.accelerator, shuffle=False, evaluation=True
        )
        batches = EvaluationBatches(collator, self.config.step_size)
        return step_loader(dataset, sampler, batches, self.config)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As for evaluation."""
        return self.get_eval_dataloader(test_dataset)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Add up the gradients of one step's micro-batches.

        Returns this process's share of the loss, times the number of processes, whose mean is
        logged.
        """
        micro_batches = inputs["micro_batches"]
        total = torch.zeros((), device=self.args.device)
        for number, micro_batch in enumerate(micro_batches, start=1):
            # Gradients are exchanged once a step. Sharded ones (FSDP) are exchanged with each
            # micro-batch, because keeping them whole would take the memory that sharding saves.
            last = number == len(micro_batches) or self.is_fsdp_enabled
            with nullcontext() if last else self.accelerator.no_sync(model):
                total += super().training_step(model, micro_batch)
        if not torch.isfinite(total):
            what = f"the loss of step {self.state.global_step + 1} is {total.item()}"
            raise diverged(what, self.args.learning_rate)
        return total

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """As ``Trainer`` does, before the update; a norm that is not finite ends training."""
        norm = super()._get_grad_norm(model, grad_norm)
        value = norm.item() if isinstance(norm, Tensor) else norm
        # With float16 its scaler skips what is infinite.
        if self.accelerator.scaler is None and not math.isfinite(value):
            what = f"the gradient of step {self.state.global_step + 1} has the norm {value}"
            raise diverged(what, self.args.learning_rate)
        return norm

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean loss of one micro-batch (see :func:`.ranking_loss`, :func:`.plackett_luce_loss`).

        Over its groups with ``plackett-luce``, otherwise over its pairs; with ``auxiliary_weight``
        that of its labelled responses is added (see :func:`.label_loss`). If it belongs to a
        planned step, this is multiplied by its share of that. Outputs are the scores of ``winners``
        and ``losers``.
        """
        scores, winners, losers = _pair_scores(model, inputs)
        if self.config.loss_type == "plackett-luce":
            loss = plackett_luce_loss(scores, inputs["response_counts"].tolist())
        else:
            loss = ranking_loss(
                winners,
                losers,
                margins=inputs["margins"],
                weights=inputs["weights"],
                center_rewards_coefficient=self.config.center_rewards_coefficient,
            )
        if self.config.auxiliary_weight and len(inputs["labelled"]):
            auxiliary = label_loss(scores[inputs["labelled"]], inputs["acceptable"])
            factor = self.config.auxiliary_weight * inputs.get("label_factor", 1.0)
            loss = loss + factor * auxiliary
        if "share" in inputs:
            # Gradients are averaged over processes, so this makes their sum.
            loss = loss * (inputs["share"] * self.accelerator.num_processes)
            if inputs["share"]:
                self._recent.add(winners, losers, inputs)
        return (loss, {"winners": winners, "losers": losers}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Scores of a step's groups, with what the loss needs to know of each pair.

        Trainer would weigh each batch's loss by its number of groups, not of pairs. So there is no
        loss here, and all processes return as many groups, so that they can be gathered.

        Returns:
            None; scores of winner and loser, ``[groups of the step, most pairs, 2]``; margin,
                weight and strength, ``[groups of the step, most pairs, 3]``. All are
                :data:`.predictions.NO_PAIR` where a group has fewer pairs, or another process has
                it.
        """
        scores: dict[int, Tensor] = {}
        terms: dict[int, Tensor] = {}
        for micro_batch in inputs["micro_batches"]:
            batch = self._prepare_inputs(micro_batch)
            with torch.no_grad():
                _, winners, losers = _pair_scores(model, batch)
            counts = batch["pair_counts"].tolist()
            known = torch.stack([batch[name] for name in ("margins", "weights", "strengths")], 1)
            # A dummy, computed for the other processes' sake, has no places.
            scored = torch.stack([winners, losers], 1).split(counts)
            scores |= zip(batch["places"], scored, strict=False)
            terms |= zip(batch["places"], known.split(counts), strict=False)
        size = len(inputs["sizes"])
        return None, by_place(scores, size, like=scored[0]), by_place(terms, size, like=known)

    def pair_metrics(self, predicted: EvalPrediction) -> dict[str, float]:
        """Loss and metrics of what :meth:`prediction_step` returns (see :func:`.metrics_of`)."""
        coefficient = self.config.center_rewards_coefficient
        found = metrics_of(predicted, center_rewards_coefficient=coefficient)
        if not math.isfinite(found["loss"]):
            what = f"the loss on evaluation data is {found['loss']}"
            raise diverged(what, self.args.learning_rate)
        return found

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As ``Trainer`` does; its time does not count as training's."""
        with self._recent.paused():
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As :class:`.WholeCheckpoints` does; its time does not count as training's."""
        with self._recent.paused():
            super()._save_checkpoint(model, trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: it would copy unfinished weights to where the finished ones will be."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and with a loss the metrics of the steps since the last one."""
        if "loss" in logs:
            # On every process, also on one that had nothing to do: all take part in the sum.
            logs |= self._recent.take(self.accelerator)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Six a parameter and token, padding included; the embedding, which is looked up, aside."""
        tokens = sum(
            micro_batch["input_ids"].numel() for micro_batch in inputs.get("micro_batches", ())
        )
        model: Any = self.model
        return 6 * tokens * model.num_parameters(exclude_embeddings=True)


def _pair_scores(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all responses of a batch, and those of the winners and losers of its pairs."""
    scores = forward_scores(model, RowBatch.among(inputs))
    return scores, scores[inputs["winners"]], scores[inputs["losers"]]

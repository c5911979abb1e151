"""RankingTrainer: a ``transformers.Trainer`` whose loss is the ranking loss."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction, Trainer

from posttrain.losses import plackett_luce_loss, ranking_loss
from posttrain.reward_model import check_exact, forward_scores
from posttrain.rows import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.tokenization import TokenizedGroup

#: What is maximised: the likelihood of each of a group's pairs, or that of its whole ranking.
Objective = Literal["pairs", "plackett-luce"]
#: Stands where a group has fewer pairs than others; what Trainer itself pads with.
NO_PAIR = -100.0


@dataclass(frozen=True)
class TrainingPair:
    """One comparison of two responses of a group.

    Attributes:
        winner: Index of the preferred response in :attr:`TrainingGroup.tokens`.
        loser: Index of the other response.
        margin: Margin in the loss.
        weight: Weight in the loss, relative to the other pairs.
    """

    winner: int
    loser: int
    margin: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True)
class TrainingGroup:
    """A group with the comparisons to train on; each response is scored once for all of them.

    Attributes:
        tokens: Prompt and responses.
        pairs: The comparisons.

    Raises:
        ValueError: If a pair does not name two responses of the group.
    """

    tokens: TokenizedGroup
    pairs: tuple[TrainingPair, ...]

    def __post_init__(self) -> None:
        count = len(self.tokens.responses)
        for pair in self.pairs:
            # An index beyond the group would silently compare with another group's response.
            if pair.winner == pair.loser or not {pair.winner, pair.loser} <= set(range(count)):
                raise ValueError(
                    f"a pair ({pair.winner}, {pair.loser}) needs two different indices below the "
                    f"group's {count} responses"
                )

    @classmethod
    def with_all_pairs(cls, tokens: TokenizedGroup) -> "TrainingGroup":
        """Every response against every lower-ranked one, without margins."""
        places = range(len(tokens.responses))
        return cls(tokens, tuple(TrainingPair(*pair) for pair in combinations(places, 2)))


def training_set(groups: Sequence[TrainingGroup]) -> Dataset:
    """Groups as a data set for :class:`RankingTrainer`.

    Columns: ``prompt`` and ``responses`` (token ids); one entry a pair of ``winners``, ``losers``,
    ``margins`` and ``weights`` (scaled to mean 1 over the set, so that weights change the emphasis
    but not the size of the loss); and ``length``, the group's longest separate row, by which
    ``train_sampling_strategy="group_by_length"`` saves padding. Pairs of weight 0 are left out, and
    groups without pairs.

    Raises:
        ValueError: If no pair has a positive weight.
    """
    kept = [(group.tokens, [pair for pair in group.pairs if pair.weight != 0]) for group in groups]
    kept = [(tokens, pairs) for tokens, pairs in kept if pairs]
    if not kept:
        raise ValueError("there is no pair to train on; the filter may have left none")
    weights = [pair.weight for _, pairs in kept for pair in pairs]
    mean_weight = sum(weights) / len(weights)
    return Dataset.from_dict(
        {
            "prompt": [tokens.prompt for tokens, _ in kept],
            "responses": [tokens.responses for tokens, _ in kept],
            "winners": [[pair.winner for pair in pairs] for _, pairs in kept],
            "losers": [[pair.loser for pair in pairs] for _, pairs in kept],
            "margins": [[pair.margin for pair in pairs] for _, pairs in kept],
            "weights": [[pair.weight / mean_weight for pair in pairs] for _, pairs in kept],
            "length": [tokens.longest for tokens, _ in kept],
        }
    )


class GroupCollator:
    """Turn items of a :func:`training_set` into a batch of rows.

    The result maps the names of :class:`.rows.RowBatch` to its tensors; ``pair_counts`` to the
    number of pairs of each group and ``response_counts`` to that of its responses, ``[groups]``;
    ``winners`` and ``losers`` to indices into the batch's scores; ``margins`` and ``weights`` to
    numbers. The last four are ``[pairs]``.

    Args:
        pad_token_id: Fills up rows.
        layout: How groups become rows.
        row_tokens: Most tokens of a row that several groups share; None gives each its own.
    """

    def __init__(
        self,
        pad_token_id: int,
        layout: Layout = LAYOUTS["exact"],
        row_tokens: int | None = None,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.layout = layout
        self.row_tokens = row_tokens

    @property
    def needs_mask(self) -> bool:
        """Whether scores are those of separate rows only if the model follows a mask."""
        shares = self.layout.rows == "single" or self.row_tokens is not None
        return self.layout.is_exact and shares

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Lay the groups out and collect their pairs."""
        groups = [TokenizedGroup(item["prompt"], item["responses"]) for item in items]
        batch = lay_out(
            groups, self.layout, pad_token_id=self.pad_token_id, row_tokens=self.row_tokens
        )
        pairs: dict[str, list[Any]] = {"winners": [], "losers": [], "margins": [], "weights": []}
        first = 0
        for item, group in zip(items, groups, strict=True):
            pairs["winners"] += [first + place for place in item["winners"]]
            pairs["losers"] += [first + place for place in item["losers"]]
            pairs["margins"] += item["margins"]
            pairs["weights"] += item["weights"]
            first += len(group.responses)
        # Trainer takes the length of a batch's first tensor for the number of its items.
        return {
            "pair_counts": torch.tensor([len(item["winners"]) for item in items]),
            "response_counts": torch.tensor([len(group.responses) for group in groups]),
            "winners": torch.tensor(pairs["winners"]),
            "losers": torch.tensor(pairs["losers"]),
            "margins": torch.tensor(pairs["margins"], dtype=torch.float64),
            "weights": torch.tensor(pairs["weights"], dtype=torch.float64),
        } | batch.tensors()


class RankingTrainer(Trainer):
    """Trains a reward model on groups; all but loss and metrics is ``transformers.Trainer``.

    The loss of a step is the mean over its pairs, or over its groups with ``plackett-luce``: over
    all of them, in however many accumulated batches and processes. Evaluation reports the ``loss``
    as the mean over all pairs, however batched and whatever the objective, and the ``accuracy``.

    Args:
        objective: See :data:`Objective`. ``plackett-luce`` ranks whole groups, so it knows no
            margins, weights or centring, and needs :meth:`TrainingGroup.with_all_pairs`.
        centring: Factor of the centring term of :func:`posttrain.losses.ranking_loss`.
        *args: Passed on.
        **kwargs: Passed on; the data collator must be a :class:`GroupCollator`. A function given as
            ``compute_metrics`` takes the place of :meth:`pair_metrics`.

    Raises:
        ValueError: If the objective is unknown, or cannot be centred.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective = "pairs",
        centring: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise ValueError(f"unknown objective {objective!r}; known: {known}")
        if objective == "plackett-luce" and centring:
            raise ValueError("centring is defined on pairs; use objective 'pairs' or centring 0")
        super().__init__(*args, **kwargs)
        # Its loss is computed here; Trainer is to divide what it gets by the accumulated batches.
        self.model_accepts_loss_kwargs = False
        self.objective: Objective = objective
        # The model's forward takes none of the columns of a training set; the collator does.
        self.args.remove_unused_columns = False
        self.centring = centring
        self.compute_metrics = self.compute_metrics or self.pair_metrics

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, after a check that the model keeps apart what its rows are to keep apart.

        Raises:
            ValueError: See :func:`posttrain.reward_model.check_exact`.
        """
        collator = self.data_collator
        if isinstance(collator, GroupCollator) and collator.needs_mask:
            check_exact(self.model, pad_token_id=collator.pad_token_id)  # type: ignore[arg-type]
        return super().train(*args, **kwargs)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of one step, and how many pairs (or groups) each holds on average.

        Trainer divides each batch's loss by their number, and processes are averaged. Divided by
        the mean count first, the losses of all batches add up to the mean over all pairs.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [
            len(batch["pair_counts"] if self.objective == "plackett-luce" else batch["winners"])
            for batch in batches
        ]
        if not batches:
            return batches, None
        mean = torch.tensor(counts, dtype=torch.float64).mean()
        if self.accelerator.num_processes > 1:
            mean = self.accelerator.reduce(mean.to(device), "mean")
        return batches, mean

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch (see :func:`.losses.ranking_loss`, :func:`.losses.plackett_luce_loss`).

        Its sum over pairs or groups, divided by ``num_items_in_batch``; the mean if not given.

        Raises:
            ValueError: If pairs of a ranking are missing, or have margins or weights.
        """
        scores, winners, losers = _pair_scores(model, inputs)
        if self.objective == "plackett-luce":
            counts = _ranked_counts(inputs)
            loss, terms = plackett_luce_loss(scores, counts), len(counts)
        else:
            loss = ranking_loss(
                winners,
                losers,
                margins=inputs["margins"],
                weights=inputs["weights"],
                centring=self.centring,
            )
            terms = len(winners)
        if num_items_in_batch is not None:
            loss = loss * (terms / float(num_items_in_batch))
        return (loss, {"winners": winners, "losers": losers}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Scores of one evaluation batch, with what the loss needs to know of each pair.

        Trainer counts items, not pairs: it would weigh each batch's loss by its groups and cut what
        comes by pair. So everything comes by group here, and there is no loss.

        Returns:
            None; scores of winner and loser, ``[groups, most pairs, 2]``; margin and weight, the
            same shape. Where a group has fewer pairs, all four are :data:`NO_PAIR`.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            _, winners, losers = _pair_scores(model, inputs)
        scores = torch.stack([winners, losers], dim=1)
        terms = torch.stack([inputs["margins"], inputs["weights"]], dim=1)
        counts = inputs["pair_counts"].tolist()
        return None, _by_group(scores, counts), _by_group(terms, counts)

    def pair_metrics(self, predicted: EvalPrediction) -> dict[str, float]:
        """Mean loss and accuracy over all pairs; ties count half.

        Args:
            predicted: What :meth:`prediction_step` returns, of all batches.
        """
        scores, terms = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
        there = terms[..., 1] != NO_PAIR
        winners, losers = torch.from_numpy(scores[there]).unbind(1)
        margins, weights = torch.from_numpy(terms[there]).unbind(1)
        loss = ranking_loss(
            winners, losers, margins=margins, weights=weights, centring=self.centring
        )
        right = (winners > losers).double() + (winners == losers).double() / 2
        return {"loss": loss.item(), "accuracy": right.mean().item()}


def _pair_scores(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all responses of a batch, and those of the winners and losers of its pairs."""
    scores = forward_scores(model, RowBatch.among(inputs))  # type: ignore[arg-type]
    return scores, scores[inputs["winners"]], scores[inputs["losers"]]


def _ranked_counts(inputs: Mapping[str, Tensor]) -> list[int]:
    """Number of responses of each group, if nothing but their ranking is asked for."""
    counts = inputs["response_counts"]
    ends = counts.cumsum(0).tolist()
    all_pairs = [
        pair for end, count in zip(ends, counts.tolist(), strict=True)
        for pair in combinations(range(end - count, end), 2)
    ]  # fmt: skip
    pairs = sorted(zip(inputs["winners"].tolist(), inputs["losers"].tolist(), strict=True))
    plain = (inputs["margins"] == 0).all() and (inputs["weights"] == 1).all()
    if not (plain and pairs == all_pairs):
        raise ValueError(
            "the objective plackett-luce ranks all responses of a group, without margins and "
            "weights; make groups with TrainingGroup.with_all_pairs, or use the objective pairs"
        )
    return counts.tolist()


def _by_group(values: Tensor, counts: Sequence[int]) -> Tensor:
    return pad_sequence(values.split(counts), batch_first=True, padding_value=NO_PAIR)

"""The batches of a planned step: what each process computes of it, laid out in rows."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from posttrain.errors import UserError
from posttrain.models.reward_model import stock_model
from posttrain.models.rotary import rope_boundary
from posttrain.rows.attention import in_pieces
from posttrain.rows.layout import Layout
from posttrain.training.collator import GroupCollator, check_ranking, column
from posttrain.training.config import RankingConfig
from posttrain.training.sampler import Sizes, Step, StepSampler, label_factor, share

#: A step with the rows of its data set by index.
StepRows = tuple[Step, dict[int, Mapping[str, Any]]]


class StepItems:
    """A data set whose items are planned steps, each with the rows of its groups by index."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """Groups, which is what Trainer counts."""
        return len(self.dataset)

    def __getitems__(self, step: Step) -> StepRows:
        """What ``torch.utils.data.DataLoader`` asks for."""
        groups = sorted(
            {group for micro_batch in step.micro_batches for group in micro_batch.groups}
        )
        return step, dict(zip(groups, self.dataset.__getitems__(groups), strict=True))


@dataclass(frozen=True)
class TrainingBatches:
    """Rows of a step's micro-batches, with what each counts in the loss of the step."""

    collator: GroupCollator
    whole_rankings: bool

    def __call__(self, planned: StepRows) -> dict[str, Any]:
        """``micro_batches``: the collator's, with ``share``, ``label_factor`` and ``tokens``."""
        step, rows = planned
        micro_batches = []
        for micro_batch in step.micro_batches:
            batch: dict[str, Any] = self.collator(
                [rows[k] for k in micro_batch.groups],
                [(*step.seed, k) for k in micro_batch.groups],
            )
            pairs, labels = len(batch["winners"]), len(batch["labelled"])
            batch["share"] = share(micro_batch, pairs, step, whole_rankings=self.whole_rankings)
            batch["label_factor"] = label_factor(batch["share"], labels, step)
            batch["tokens"] = sum(self.collator.tokens(rows[k]) for k in micro_batch.groups)
            if self.whole_rankings:
                check_ranking(batch)
            micro_batches.append(batch)
        return {"micro_batches": micro_batches}


@dataclass(frozen=True)
class EvaluationBatches:
    """Rows of a step's micro-batches, with the place of each group among those of the step.

    All steps but the last hold ``step_size`` groups, in the data's order.
    """

    collator: GroupCollator
    step_size: int

    def __call__(self, planned: StepRows) -> dict[str, Any]:
        """``micro_batches``: what the collator makes, with ``places``, none in a dummy.

        ``sizes`` is a tensor with an entry a group of the step, on whichever process it is.
        """
        step, rows = planned
        micro_batches = []
        for micro_batch in step.micro_batches:
            batch: dict[str, Any] = self.collator(
                [rows[k] for k in micro_batch.groups],
                [(*step.seed, k) for k in micro_batch.groups],
            )
            places = () if micro_batch.is_dummy else micro_batch.groups
            batch["places"] = [k % self.step_size for k in places]
            micro_batches.append(batch)
        # Trainer takes the length of a batch's first tensor for the number of its items.
        return {"sizes": torch.ones(step.groups), "micro_batches": micro_batches}


def shares_rows(model: Any, collator: GroupCollator) -> bool:
    """Whether groups share rows: if asked for, or where that is free.

    It is where attention is in two pieces, which compute only what is seen; a mask for every two
    tokens of a row would cost its square.
    """
    layout = collator.layout
    is_free = layout.rows == "single" and layout.is_exact and in_pieces(stock_model(model))
    return collator.pack_length is not None or is_free


def collator_for(
    model: Any, dataset: Any, collator: GroupCollator, config: RankingConfig
) -> GroupCollator:
    """The collator, by which all groups of a micro-batch share a row where that is free."""
    if collator.pack_length is not None or not shares_rows(model, collator):
        return collator
    most = int(column(dataset, "total").max())
    filled = copy.copy(collator)
    filled.pack_length = max(most, config.max_tokens_per_device or 0)
    return filled


def step_sampler(
    dataset: Any,
    collator: GroupCollator,
    config: RankingConfig,
    accelerator: Any,
    *,
    shuffle: bool,
    evaluation: bool = False,
) -> StepSampler:
    """The steps of a data set, for one process, as the settings have them.

    Those of an ``evaluation`` take as many groups each, merged or not.
    """
    sizes = Sizes.from_dataset(
        dataset, collator.layout, shared_rows=collator.pack_length is not None
    )
    per_step: dict[str, int | None] = {
        "pairs_per_step": config.pairs_per_step,
        "groups_per_step": config.groups_per_step,
    }
    if evaluation:
        sizes = replace(sizes, records=None, part=None)
        per_step = {"groups_per_step": config.step_size}
    return StepSampler(
        sizes,
        **per_step,
        max_tokens_per_device=config.max_tokens_per_device,
        shuffle=shuffle,
        seed=config.seed if config.data_seed is None else config.data_seed,
        processes=accelerator.num_processes,
        process=accelerator.process_index,
    )


def check_lengths(model: Any, dataset: Any, layout: Layout) -> None:
    """Refuse rows that would change the rotary frequencies of the rows computed beside them.

    Raises:
        UserError: If a row of the data set is longer than :func:`.rope_boundary` allows.
    """
    boundary = rope_boundary(model.config)
    if boundary is None:
        return
    running = layout.rows == "single" and layout.positions == "running"
    lengths = column(dataset, "total" if running else "length")
    beyond = int((lengths > boundary).sum())
    if beyond:
        raise UserError(
            f"the longest row takes {lengths.max():,} tokens, and beyond {boundary:,}, which "
            f"{beyond:,} of {len(lengths):,} groups exceed, this model has other rotary "
            f"frequencies, also for the rows beside it; set --max_tokens {boundary}"
            + (" and --layout exact" if running else "")
            + ", and --skip_too_long if responses are longer by themselves; posttrain data check "
            "FILE --model NAME shows how many are"
        )


def step_loader(
    dataset: Any,
    sampler: StepSampler,
    batches: Callable[[Any], Any],
    config: RankingConfig,
    *,
    persistent: bool = False,
) -> DataLoader:
    """Loads one planned step after another; if ``persistent``, workers wait for the next epoch."""
    return DataLoader(
        StepItems(dataset),  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=batches,
        num_workers=config.dataloader_num_workers,
        prefetch_factor=config.dataloader_prefetch_factor,
        multiprocessing_context=config.dataloader_multiprocessing_context,
        in_order=config.dataloader_in_order,
        persistent_workers=persistent,
        pin_memory=config.dataloader_pin_memory and torch.cuda.is_available(),
        # Otherwise each epoch would draw from torch's global numbers.
        generator=torch.Generator(),
    )

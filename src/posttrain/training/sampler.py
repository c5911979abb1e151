"""Steps: which groups an optimiser step takes, and in which micro-batches they are computed.

The recipe says how many pairs or groups a step takes; memory says how many tokens a forward pass
may hold. Here the second never changes the first. A step's groups are cut into *micro-batches* of a
limited number of tokens, which are dealt to the processes, and the loss of the step is the mean
over all its pairs (see :class:`.trainer.RankingTrainer`). So a run optimises the same thing in the
same order on a laptop and on many GPUs. Every process plans every step by itself, from lengths that
all of them know, so that nothing needs to be agreed upon.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback

from posttrain.rows.layout import Layout
from posttrain.training.collator import column


@dataclass(frozen=True)
class MicroBatch:
    """Groups that one process computes together, by their indices in the data set.

    A dummy is computed only because other processes still compute: all must make the same number of
    passes where a pass gathers weights (FSDP).
    """

    groups: tuple[int, ...]
    is_dummy: bool = False


@dataclass(frozen=True)
class Step:
    """What one process computes for one optimiser step; numbers are those of the whole step.

    Attributes:
        micro_batches: Its share of the step's groups; every process has as many.
        seed: With the index of a group seeds the order of its shuffled responses: the numbers of
            the run and the epoch.
        labels: Number of labelled responses.
    """

    micro_batches: tuple[MicroBatch, ...]
    pairs: int
    groups: int
    seed: tuple[int, int]
    labels: int = 0


@dataclass(frozen=True)
class Sizes:
    """What planning needs to know of each group: arrays of shape ``[groups]``.

    Attributes:
        rows: Rows that it takes.
        longest: Tokens of the longest of them.
        pairs: Its number of pairs.
        padded: Whether rows are padded to the longest of a micro-batch. Rows that several groups
            share are filled instead, and tokens simply add up.
        labels: Its number of labelled responses; None if no group has any.
        records: How many records were merged into it (see :mod:`.merging`); None: one each.
        part: Its number in its unit, whose parts are in one step; None: each is a unit.
    """

    rows: np.ndarray
    longest: np.ndarray
    pairs: np.ndarray
    padded: bool = True
    labels: np.ndarray | None = None
    records: np.ndarray | None = None
    part: np.ndarray | None = None

    @classmethod
    def from_dataset(cls, dataset: Any, layout: Layout, *, shared_rows: bool) -> "Sizes":
        """Sizes of the groups of a data set (see :func:`.collator.training_record`) in a layout."""
        length, total, responses, pairs = (
            column(dataset, name) for name in ("length", "total", "response_count", "pair_count")
        )
        others = (column(dataset, name) for name in ("label_count", "records", "part"))
        if layout.rows == "single":
            return cls(np.ones_like(total), total, pairs, not shared_rows, *others)
        if shared_rows:
            # At most; how long the shorter responses are is not among the numbers.
            return cls(np.ones_like(total), responses * length, pairs, False, *others)
        return cls(responses, length, pairs, True, *others)

    def units(self) -> np.ndarray:
        """Where each unit begins, and behind them the number of groups."""
        count = len(self.pairs)
        starts = np.arange(count) if self.part is None else np.flatnonzero(self.part == 0)
        return np.append(starts, count)

    def tokens(self, groups: Sequence[int] | np.ndarray) -> int:
        """Tokens that a micro-batch with these groups takes, padding included."""
        chosen = np.asarray(groups)
        if self.padded:
            return int(self.rows[chosen].sum() * self.longest[chosen].max())
        return int((self.rows[chosen] * self.longest[chosen]).sum())


class StepSampler(Sampler[Step]):
    """The steps of one epoch, for one process; ``epoch`` is the next one's number, from 0.

    A step takes the units, in their order, whose middles lie in its share of the pairs: so it has
    ``pairs_per_step`` on average, however many a unit has, and the last one takes what is left.

    Args:
        sizes: Sizes of the groups.
        pairs_per_step: Pairs of a step.
        groups_per_step: In place of that, groups of a step, before merging; where groups were
            merged, as many pairs as these have on average.
        max_tokens_per_device: Most tokens of a micro-batch, padding included, unless a single group
            has more; None gives each process one micro-batch.
        shuffle: Whether units come in a new random order each epoch, which ``seed`` seeds.
        processes: Number of processes, of which this is number ``process``.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        pairs_per_step: int | None = None,
        groups_per_step: int | None = None,
        max_tokens_per_device: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        if (pairs_per_step is None) == (groups_per_step is None):
            raise ValueError("give one of pairs_per_step and groups_per_step")
        self.sizes = sizes
        self.max_tokens_per_device = max_tokens_per_device
        self.shuffle = shuffle
        self.seed = seed
        self.processes = processes
        self.process = process
        self.epoch = 0
        self._bounds = sizes.units()
        merged = sizes.records is not None and (sizes.records != 1).any()
        if groups_per_step is not None and not merged:
            self._counts = np.ones(len(self._bounds) - 1)
            self._per_step = float(groups_per_step)
            return
        self._counts = np.add.reduceat(sizes.pairs, self._bounds[:-1]).astype(float)
        self._per_step = float(pairs_per_step or 0)
        if groups_per_step is not None and sizes.records is not None:
            self._per_step = groups_per_step * self._counts.sum() / sizes.records.sum()

    def __len__(self) -> int:
        """Steps of an epoch."""
        steps = math.ceil(round(self._counts.sum() / self._per_step, 9))
        return max(1, min(steps, len(self._counts)))

    def __iter__(self) -> Iterator[Step]:
        """Plan one step after another."""
        order = np.arange(len(self._counts))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(order))
        for units in self._steps(order):
            groups = np.concatenate(
                [np.arange(*self._bounds[unit : unit + 2]) for unit in units.tolist()]
            )
            micro_batches = cut(groups, self.sizes, self.max_tokens_per_device, self.processes)
            yield Step(
                # In order of size, so that processes compute those of like size at the same time.
                micro_batches=tuple(micro_batches[self.process :: self.processes]),
                pairs=int(self.sizes.pairs[groups].sum()),
                groups=len(groups),
                seed=(self.seed, self.epoch),
                labels=0 if self.sizes.labels is None else int(self.sizes.labels[groups].sum()),
            )

    def _steps(self, order: np.ndarray) -> list[np.ndarray]:
        """The units of each step, at least one in each."""
        counts = self._counts[order]
        middles = counts.cumsum() - counts / 2
        steps = np.arange(1, len(self))
        ends = np.searchsorted(middles, steps * self._per_step)
        # A unit of more pairs than a step would leave the next one empty.
        ends = np.maximum.accumulate(np.maximum(ends, steps) - steps) + steps
        ends = np.minimum(ends, len(order) - len(self) + steps)
        return np.split(order, ends)


class EpochCounter(TrainerCallback):
    """Tells the sampler which epoch begins, also in a run that goes on in the middle of it."""

    def __init__(self, sampler: StepSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer."""
        self.sampler.epoch = state.global_step // len(self.sampler)


def cut(
    groups: np.ndarray, sizes: Sizes, max_tokens_per_device: int | None, processes: int = 1
) -> list[MicroBatch]:
    """Cut a step's groups into micro-batches, largest first, a multiple of ``processes``.

    Every group is in exactly one that is no dummy.
    """
    # Neighbours in length waste the least padding.
    rest = groups[np.argsort(sizes.longest[groups], kind="stable")]
    pieces: list[np.ndarray] = []
    if max_tokens_per_device is None:
        pieces = [rest]
    else:
        begin = 0
        for end in range(1, len(rest) + 1):
            if end - begin > 1 and sizes.tokens(rest[begin:end]) > max_tokens_per_device:
                pieces.append(rest[begin : end - 1])
                begin = end - 1
        pieces.append(rest[begin:])
    while len(pieces) % processes and max(map(len, pieces)) > 1:
        largest = max((piece for piece in pieces if len(piece) > 1), key=sizes.tokens)
        pieces = [piece for piece in pieces if piece is not largest]
        # Every other one, so that both halves hold short and long groups.
        pieces += [largest[::2], largest[1::2]]
    pieces.sort(key=sizes.tokens, reverse=True)
    micro_batches = [MicroBatch(tuple(piece.tolist())) for piece in pieces]
    idle = MicroBatch((int(rest[0]),), is_dummy=True)
    return micro_batches + [idle] * (-len(micro_batches) % processes)


def share(micro_batch: MicroBatch, pairs: int, step: Step, *, whole_rankings: bool) -> float:
    """A micro-batch's share of the terms, groups or pairs, that its step's loss is the mean of."""
    if micro_batch.is_dummy:
        return 0.0
    return len(micro_batch.groups) / step.groups if whole_rankings else pairs / step.pairs


def label_factor(share: float, labels: int, step: Step) -> float:
    """How much more a micro-batch's labels count than its share of pairs says.

    The mean over its labels, times this and its share, is what the micro-batch adds to the mean
    over all labels of the step.
    """
    return labels / step.labels / share if step.labels and share else 1.0

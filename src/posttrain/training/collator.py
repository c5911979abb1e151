"""What a trainer reads: groups with their comparisons, as a data set and as batches of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from posttrain.errors import UserError
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.merging import Merging, by_prompt, sizes

#: What is maximised: the likelihood of each of a group's pairs, or that of its whole ranking.
LossType = Literal["pairs", "plackett-luce"]


@dataclass(frozen=True)
class TrainingPair:
    """One comparison of two responses of a group.

    Attributes:
        winner: Index of the preferred response in :attr:`TrainingGroup.tokens`.
        loser: Index of the other response.
        margin: By how much the winner's score is to exceed the loser's.
        weight: Weight in the loss, relative to the other pairs.
        strength: How much better the winner is, 1 to 4; 0 if nobody said. Only metrics go by it.
    """

    winner: int
    loser: int
    margin: float = 0.0
    weight: float = 1.0
    strength: int = 0


@dataclass(frozen=True)
class TrainingGroup:
    """A group with the comparisons to train on; each response is scored once for all of them.

    >>> tokens = TokenizedGroup(prompt=(1, 2), responses=((3,), (4,), (5,)))
    >>> [(pair.winner, pair.loser) for pair in TrainingGroup.with_all_pairs(tokens).pairs]
    [(0, 1), (0, 2), (1, 2)]

    Attributes:
        labels: Whether each response is acceptable (safe), None where nobody said; empty if none of
            them is labelled. For the auxiliary loss (:func:`.losses.label_loss`).
    """

    tokens: TokenizedGroup
    pairs: tuple[TrainingPair, ...]
    labels: tuple[bool | None, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.tokens.responses)
        if self.labels and len(self.labels) != count:
            raise UserError(
                f"{len(self.labels)} labels for {count} responses; give one for each, None where "
                "nobody said"
            )
        for pair in self.pairs:
            # An index beyond the group would silently compare with another group's response.
            if pair.winner == pair.loser or not {pair.winner, pair.loser} <= set(range(count)):
                raise UserError(
                    f"a pair ({pair.winner}, {pair.loser}) needs two different indices below the "
                    f"group's {count} responses"
                )

    @classmethod
    def with_all_pairs(cls, tokens: TokenizedGroup) -> "TrainingGroup":
        """Every response against every lower-ranked one, without margins."""
        places = range(len(tokens.responses))
        return cls(tokens, tuple(TrainingPair(*pair) for pair in combinations(places, 2)))


class TrainingRows(Sequence[Mapping[str, Any]]):
    """Rows of :func:`training_record` in memory; rows on disk are a ``datasets.Dataset``.

    >>> rows = training_set([TrainingGroup.with_all_pairs(TokenizedGroup((1,), ((2,), (3, 4))))])
    >>> len(rows), rows[0]["responses"], column(rows, "length")
    (1, [[2], [3, 4]], array([3]))
    """

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.records = [
            {**row, "prompt": [*row["prompt"]], "responses": [[*ids] for ids in row["responses"]]}
            for row in records
        ]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        """A row by its number or a column by its name, as of a ``datasets.Dataset``."""
        if isinstance(index, str):
            return [row[index] for row in self.records]
        return self.records[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        """Some rows, as ``torch.utils.data`` asks for them."""
        return [self.records[index] for index in indices]


def column(rows: Any, name: str) -> np.ndarray:
    """A column of numbers of rows in memory or on disk, ``[rows]``."""
    if isinstance(rows, TrainingRows):
        return np.array(rows[name])
    return np.asarray(rows.select_columns(name).with_format("numpy")[name][:])


def training_set(groups: Sequence[TrainingGroup], merging: Merging | None = None) -> TrainingRows:
    """Groups as a data set for :class:`.trainer.RankingTrainer`, in memory.

    Columns: those of :func:`training_record`, with weights scaled to mean 1 over the set, so that
    they change the emphasis but not the size of the loss. Groups without pairs are left out, with
    their labels. With ``merging``, those of one prompt become one, so that each response is
    computed once.
    """
    records = [record for group in groups if (record := training_record(group))["pair_count"]]
    if not records:
        raise UserError("there is no pair to train on; the filter may have left none")
    weights = [weight for record in records for weight in record["weights"]]
    mean_weight = sum(weights) / len(weights)
    for record in records:
        record["weights"] = [weight / mean_weight for weight in record["weights"]]
    if merging is not None:
        records = [part for alike in by_prompt(records) for part in merging.apply(alike)]
    return TrainingRows(records)


def training_record(group: TrainingGroup) -> dict[str, Any]:
    """One row of a data set to train on (its columns are :data:`.dataset.FEATURES`).

    ``prompt`` and ``responses`` (token ids); one entry a pair of ``winners``, ``losers``,
    ``margins``, ``weights`` and ``strengths``, without pairs of weight 0; one entry a labelled
    response of ``labelled`` (its index) and ``acceptable``; and what :mod:`.sampler` needs to know
    without reading tokens: ``length`` (tokens of the longest separate row), ``total`` (those of the
    single row), ``response_count``, ``pair_count``, ``label_count``; ``records`` and ``part`` (see
    :meth:`.Merging.apply`).
    """
    tokens = group.tokens
    pairs = [pair for pair in group.pairs if pair.weight != 0]
    labels = {place: label for place, label in enumerate(group.labels) if label is not None}
    record = {
        "prompt": tokens.prompt,
        "responses": tokens.responses,
        "winners": [pair.winner for pair in pairs],
        "losers": [pair.loser for pair in pairs],
        "margins": [pair.margin for pair in pairs],
        "weights": [pair.weight for pair in pairs],
        "strengths": [pair.strength for pair in pairs],
        "labelled": list(labels),
        "acceptable": list(labels.values()),
    }
    return record | sizes(record) | {"records": 1, "part": 0}


class GroupCollator:
    """Turn items of a :func:`training_set` into a batch of rows.

    The result maps the names of :class:`.layout.RowBatch` to its tensors; ``pair_counts`` to the
    number of pairs of each group and ``response_counts`` to that of its responses, ``[groups]``;
    ``winners`` and ``losers`` to indices into the batch's scores; ``margins``, ``weights`` and
    ``strengths`` to numbers. The last five are ``[pairs]``. ``labelled`` are indices into the
    scores, too, and ``acceptable`` truth values, ``[labelled responses]``.

    Args:
        pad_token_id: Fills up rows.
        layout: How groups become rows.
        pack_length: Most tokens of a row that several groups share; None gives each its own.
        mean_weight: Mean weight of the data set's pairs, by which weights are divided; 1 where that
            is done already, as by :func:`training_set`.
    """

    def __init__(
        self,
        pad_token_id: int,
        layout: Layout = LAYOUTS["exact"],
        pack_length: int | None = None,
        mean_weight: float = 1.0,
    ) -> None:
        self.mean_weight = mean_weight
        self.pad_token_id = pad_token_id
        self.layout = layout
        self.pack_length = pack_length

    def tokens(self, item: Mapping[str, Any]) -> int:
        """Tokens that a row of the data set takes, padding aside."""
        return self.layout.tokens(TokenizedGroup(item["prompt"], item["responses"]))

    def __call__(
        self, items: Sequence[Mapping[str, Any]], seeds: Sequence[Sequence[int]] | None = None
    ) -> dict[str, Tensor]:
        """Lay the groups out and collect their pairs and labels; seeds as in :func:`.lay_out`."""
        groups = [TokenizedGroup(item["prompt"], item["responses"]) for item in items]
        batch = lay_out(
            groups,
            self.layout,
            pad_token_id=self.pad_token_id,
            pack_length=self.pack_length,
            seeds=seeds,
        )
        pairs: dict[str, list[Any]] = {
            name: [value for item in items for value in item[name]]
            for name in ("margins", "weights", "strengths", "acceptable")
        }
        ends = list(accumulate(len(group.responses) for group in groups))
        for name in ("winners", "losers", "labelled"):
            # Indices into the group become indices into the batch.
            pairs[name] = [
                first + value
                for item, first in zip(items, [0, *ends], strict=False)
                for value in item[name]
            ]
        # Trainer takes the length of a batch's first tensor for the number of its items.
        return {
            "pair_counts": torch.tensor([len(item["winners"]) for item in items]),
            "response_counts": torch.tensor([len(group.responses) for group in groups]),
            "winners": torch.tensor(pairs["winners"]),
            "losers": torch.tensor(pairs["losers"]),
            "margins": torch.tensor(pairs["margins"], dtype=torch.float64),
            "weights": torch.tensor(pairs["weights"], dtype=torch.float64) / self.mean_weight,
            "strengths": torch.tensor(pairs["strengths"]),
            # There may be none, of which torch could not tell the kind.
            "labelled": torch.tensor(pairs["labelled"], dtype=torch.long),
            "acceptable": torch.tensor(pairs["acceptable"], dtype=torch.bool),
        } | batch.tensors()


def refuse_margins(rows: Any) -> None:
    """Refuse a data set with a margin for Plackett–Luce, before a step would meet it."""
    # Of rows on disk, tokens need not be read.
    read = rows if isinstance(rows, TrainingRows) else rows.select_columns("margins")
    count = sum(margin != 0 for row in read for margin in row["margins"])
    if count:
        raise UserError(
            f"loss_type plackett-luce has no place for margins, and {count} pairs have one; leave "
            "them aside (--margins none), or use loss_type pairs"
        )


def check_ranking(batch: Mapping[str, Tensor]) -> None:
    """Refuse a batch whose pairs are not all pairs of each group, with weight 1."""
    counts = batch["response_counts"]
    ends = counts.cumsum(0).tolist()
    all_pairs = [
        pair for end, count in zip(ends, counts.tolist(), strict=True)
        for pair in combinations(range(end - count, end), 2)
    ]  # fmt: skip
    pairs = sorted(zip(batch["winners"].tolist(), batch["losers"].tolist(), strict=True))
    if not ((batch["weights"] == 1).all() and pairs == all_pairs):
        raise UserError(
            "loss_type plackett-luce ranks all responses of a group, without weights; "
            "make groups with TrainingGroup.with_all_pairs, or use loss_type pairs"
        )

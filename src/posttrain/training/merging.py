"""Merged groups: all comparisons of one prompt together, so that each response is computed once.

Preference data compare the same few responses again and again: in rows of single records, five
responses with all ten pairs are computed twenty times. Here records with the same prompt, as the
model reads it (:func:`merge_records`), become one group of its distinct responses with all their
comparisons, as InstructGPT trains (Ouyang et al., 2022, section 3.5). What is summed stays the same
sum of pair losses; only which pairs meet in a step changes, and what a pass costs.

A group may then hold hundreds of pairs, more than a step takes, or more tokens than a device
computes at once. Such a group is cut into *parts* (:meth:`Merging.apply`): first into *units*, of
at most so many pairs, that are shuffled like groups; then units into parts of at most so many
tokens, that stay in one step.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import TokenizedGroup

#: One row of a data set to train on (see :func:`.collator.training_record`).
Record = Mapping[str, Any]
PAIR_COLUMNS = ("winners", "losers", "margins", "weights", "strengths")


@dataclass(frozen=True)
class Merging:
    """How records of one prompt are merged, and how large the parts may become.

    >>> pairs = {"prompt": (1, 2), "margins": [0.0], "weights": [1.0], "strengths": [0]}
    >>> pairs |= {"winners": [0], "losers": [1], "labelled": [], "acceptable": []}
    >>> records = [pairs | {"responses": ((3,), (4,))}, pairs | {"responses": ((4,), (5, 6))}]
    >>> (merged,) = Merging().apply(records)
    >>> merged["responses"], merged["winners"], merged["losers"], merged["records"]
    (((3,), (4,), (5, 6)), [0, 1], [1, 2], 2)
    >>> [(part["responses"], part["part"]) for part in Merging(max_tokens=5).apply(records)]
    [(((4,), (3,)), 0), (((4,), (5, 6)), 1)]

    Attributes:
        layout: Decides what a group costs.
        max_tokens: Most tokens of a part, padding included; a single pair may have more. None: any.
        max_pairs: Most pairs of a unit. None: any.
    """

    layout: Layout = LAYOUTS["exact"]
    max_tokens: int | None = None
    max_pairs: int | None = None

    def apply(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """The parts of records that share their prompt's tokens, those of a unit together.

        Each has beside the columns of a record ``records``, how many were merged, on the first part
        and 0 on others, and ``part``, its number in its unit.
        """
        whole = merge_records(records)
        parts = []
        for unit in _cut(whole, self.layout, None, self.max_pairs):
            for number, part in enumerate(_cut(unit, self.layout, self.max_tokens, None)):
                parts.append(part | {"records": 0, "part": number})
        parts[0]["records"] = len(records)
        return [part | sizes(part) for part in parts]

    def tokens(self, record: Record) -> int:
        """Tokens of a record in the layout, padding aside."""
        return self.layout.tokens(TokenizedGroup(record["prompt"], record["responses"]))


def by_prompt(records: Iterable[Record]) -> list[list[Record]]:
    """Records that share their prompt's tokens, in order of their first."""
    found: dict[tuple[int, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record["prompt"]), []).append(record)
    return list(found.values())


def merge_records(records: Sequence[Record]) -> dict[str, Any]:
    """One record of the distinct responses of several, which share their prompt's tokens.

    Comparisons and labels stay as many as they were: contradicting and repeated ones, too.
    Responses without either are left out.
    """
    place: dict[tuple[int, ...], int] = {}
    merged: dict[str, Any] = {name: [] for name in (*PAIR_COLUMNS, "labelled", "acceptable")}
    for record in records:
        used = {*record["winners"], *record["losers"], *record["labelled"]}
        places = {
            index: place.setdefault(tuple(ids), len(place))
            for index, ids in enumerate(record["responses"])
            if index in used
        }
        for name in ("winners", "losers", "labelled"):
            merged[name] += [places[index] for index in record[name]]
        for name in ("margins", "weights", "strengths", "acceptable"):
            merged[name] += record[name]
    return {"prompt": tuple(records[0]["prompt"]), "responses": tuple(place)} | merged


def sizes(record: Record) -> dict[str, int]:
    """What planning needs to know of a record without reading its tokens."""
    tokens = TokenizedGroup(record["prompt"], record["responses"])
    return {
        "length": tokens.longest,
        "total": tokens.total,
        "response_count": len(tokens.responses),
        "pair_count": len(record["winners"]),
        "label_count": len(record["labelled"]),
    }


def _cut(
    record: dict[str, Any], layout: Layout, max_tokens: int | None, max_pairs: int | None
) -> list[dict[str, Any]]:
    """Cut a record into parts that hold every pair once and share as many responses as they can.

    A part grows by the response with the most comparisons left with those in it, so that it tends
    to hold all pairs of few responses (a clique), until nothing more fits.
    """
    lengths = np.array([len(ids) for ids in record["responses"]])
    winners, losers = np.array(record["winners"]), np.array(record["losers"])
    tokens, pairs = max_tokens or sys.maxsize, max_pairs or sys.maxsize
    room = _Room(layout, len(record["prompt"]), lengths, tokens)
    if len(winners) <= pairs and room.cost(lengths.sum(), lengths.max(), len(lengths)) <= tokens:
        return [record]
    parts: list[tuple[list[int], np.ndarray]] = []
    left = np.ones(len(winners), dtype=bool)
    while left.any():
        table = np.zeros((len(lengths), len(lengths)), dtype=int)
        np.add.at(table, (winners[left], losers[left]), 1)
        members = _grow(table + table.T, room, pairs)
        within = np.isin(winners, members) & np.isin(losers, members) & left
        taken = np.flatnonzero(within)[:max_pairs]
        left[taken] = False
        used = {*winners[taken].tolist(), *losers[taken].tolist()}
        parts.append(([member for member in members if member in used], taken))
    return _parts(record, parts)


@dataclass(frozen=True)
class _Room:
    """What fits into a part: tokens of a prompt and of responses of these lengths."""

    layout: Layout
    prompt: int
    lengths: np.ndarray
    tokens: int

    def cost(self, total: Any, longest: Any, count: int) -> Any:
        """Tokens computed, padding included, for so many responses."""
        if self.layout.rows == "single":
            return self.prompt + total
        return count * (self.prompt + longest)

    def beside(self, members: list[int]) -> np.ndarray:
        """Whether each response fits beside others, ``[responses]``."""
        taken = self.lengths[members]
        total, longest = taken.sum() + self.lengths, np.maximum(taken.max(), self.lengths)
        return self.cost(total, longest, len(members) + 1) <= self.tokens


def _grow(table: np.ndarray, room: _Room, max_pairs: int) -> list[int]:
    """Responses of the next part, given how often each two are still to be compared."""
    degrees = table.sum(axis=1)
    members = [int(degrees.argmax())]
    gains = table[members[0]].copy()
    pairs = 0
    while pairs < max_pairs:
        fits = room.beside(members) & (degrees > 0)
        fits[members] = False
        # A first pair that does not fit is computed all the same, with the shortest other.
        if not pairs and not (fits & (gains > 0)).any():
            others = np.flatnonzero(gains)
            best = int(others[room.lengths[others].argmin()])
        elif fits.any():
            # The most comparisons within, then the most left; then the shortest.
            order = np.lexsort((room.lengths, -degrees, -gains, ~fits))
            best = int(order[0])
        else:
            break
        pairs += int(gains[best])
        members.append(best)
        gains += table[best]
        gains[members] = 0
    return members


def _parts(
    record: dict[str, Any], parts: list[tuple[list[int], np.ndarray]]
) -> list[dict[str, Any]]:
    """Records of some responses with some of the pairs; each label is in one of them."""
    labels = dict[int, list[int]]()
    for place, response in enumerate(record["labelled"]):
        labels.setdefault(response, []).append(place)
    cut = []
    for number, (responses, taken) in enumerate(parts):
        if number == len(parts) - 1:
            seen = {response for members, _ in parts for response in members}
            responses = responses + [response for response in labels if response not in seen]
        index = {response: place for place, response in enumerate(responses)}
        own = [place for response in responses for place in labels.pop(response, ())]
        part: dict[str, Any] = {name: [record[name][k] for k in taken] for name in PAIR_COLUMNS}
        part["winners"] = [index[winner] for winner in part["winners"]]
        part["losers"] = [index[loser] for loser in part["losers"]]
        part["labelled"] = [index[record["labelled"][place]] for place in own]
        part["acceptable"] = [record["acceptable"][place] for place in own]
        part["responses"] = tuple(record["responses"][response] for response in responses)
        cut.append({"prompt": record["prompt"], **part})
    return cut

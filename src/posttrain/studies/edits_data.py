"""Data of the study of edited responses: groups, and which of them a run trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.pairing import Pairing
from posttrain.preferences import RankedGroup
from posttrain.studies.edits_outcome import Arm, TestPairs
from posttrain.studies.groups import DataSettings, load_groups
from posttrain.tokenization import TokenizedGroup
from posttrain.trainer import TrainingGroup

#: Every annotator's choice, and nothing else.
ORDINARY = Pairing("rated")


@dataclass(frozen=True)
class EditGroups:
    """Groups, some with an edit, each with all its responses tokenised.

    Attributes:
        ranked: The groups.
        tokens: The same, tokenised.
        gold: True quality of each group's responses; None where nobody knows.
        account: Where they came from, and what was cut or dropped.
    """

    ranked: list[RankedGroup]
    tokens: list[TokenizedGroup]
    gold: list[tuple[float, ...]] | None
    account: dict[str, Any]

    @cached_property
    def has_edit(self) -> np.ndarray:
        """Whether each group has an edit."""
        return np.array([group.has_edit for group in self.ranked])

    def pairs(self, judged: np.ndarray) -> TestPairs:
        """All pairs of some groups."""
        gold = self.gold and [self.gold[i] for i in judged]
        return TestPairs.of([self.ranked[i] for i in judged], gold)

    def lengths(self, judged: np.ndarray) -> np.ndarray:
        """Characters of each response of some groups, shape ``[responses]``."""
        return np.array([len(text) for i in judged for text in self.ranked[i].responses])


def load_edits(source: str, checkpoint: Path, settings: DataSettings) -> EditGroups:
    """Load or simulate groups and tokenise them.

    An edit that equals another response in tokens is counted and taken off its group.
    """
    found = load_groups(source, checkpoint, settings)
    lost = [
        len(tokens.responses) < len(group.responses)
        for group, tokens in zip(found.ranked, found.tokens, strict=True)
    ]
    ranked = [
        without_edit(group) if gone else group
        for group, gone in zip(found.ranked, lost, strict=True)
    ]
    gold = found.gold and [
        truth[-len(group.responses) :] for truth, group in zip(found.gold, ranked, strict=True)
    ]
    account = found.account | {
        "groups with an edit": sum(group.has_edit for group in ranked),
        "edits equal to another response in tokens": sum(lost),
    }
    return EditGroups(ranked, [replace(t, places=()) for t in found.tokens], gold, account)


def without_edit(group: RankedGroup) -> RankedGroup:
    """The same group as if nobody had edited the chosen response."""
    return replace(group, responses=group.responses[-2:])


@dataclass(frozen=True)
class Chosen:
    """The groups that one run trains on.

    Attributes:
        edited: Indices of groups whose edits are used.
        plain: Indices of the others of the cell's size.
        added: Indices of ordinary groups beside them.
    """

    edited: np.ndarray
    plain: np.ndarray
    added: np.ndarray


def choose(order: np.ndarray, has_edit: np.ndarray, arm: Arm, size: int, share: float) -> Chosen:
    """Which groups an arm trains on.

    All arms share the first ``size`` groups of an order and the same of their edits. Whether edits
    are used at all is the arm's business.

    Args:
        order: Indices of training groups in the order in which they are taken.
        has_edit: Whether a group has an edit, by index.
        arm: The arm.
        size: Groups, those that the arm adds aside.
        share: Share of their edits that exist for this run.

    Raises:
        ValueError: If there are too few groups.
    """
    base = order[:size]
    with_edit = base[has_edit[base]]
    edited = with_edit[: round(share * len(with_edit))]
    needed = size + arm.added * len(edited)
    if needed > len(order):
        raise ValueError(
            f"{size} groups with {len(edited)} edits need {needed} training groups, of which there "
            f"are {len(order)}; lower sizes or shares, or use more groups"
        )
    return Chosen(edited, base[~np.isin(base, edited)], order[size:needed])


def training_groups(groups: EditGroups, arm: Arm, chosen: Chosen) -> list[TrainingGroup]:
    """The comparisons that an arm trains on."""
    return [arm.pairing.of(groups.ranked[i], groups.tokens[i]) for i in chosen.edited] + [
        ORDINARY.of(groups.ranked[i], groups.tokens[i]) for i in (*chosen.plain, *chosen.added)
    ]


def cost(arm: Arm, chosen: Chosen, groups: Sequence[TrainingGroup]) -> dict[str, int]:
    """What a run takes.

    Args:
        arm: The arm.
        chosen: What it trains on.
        groups: The same as comparisons.

    Returns:
        ``groups``, ``edits`` and ``pairs``; ``decisions`` of annotators, one for each group's
        rating and one for each edit; ``tokens`` of exact rows.
    """
    edits = len(chosen.edited) if arm.uses_edits else 0
    return {
        "groups": len(groups),
        "edits": edits,
        "pairs": sum(len(group.pairs) for group in groups),
        "decisions": len(groups) + edits,
        "tokens": sum(group.tokens.total for group in groups),
    }

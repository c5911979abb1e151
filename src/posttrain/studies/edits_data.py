"""Data of the study of edited responses: groups, and which of them a run trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.preferences import RankedGroup
from posttrain.studies.edits_outcome import ORDINARY, Arm, TestPairs
from posttrain.studies.groups import DataSettings, load_groups
from posttrain.tokenization import TokenizedGroup
from posttrain.trainer import TrainingGroup


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

    One edit is one act of an editor, and so is in one group only: the first that carries its text.
    Groups of ordinary comparisons hold no edit: where chosen or rejected is the edit of a group
    of the same prompt, the group is left out, or ignoring edits would not ignore them. An edit
    that equals another response in tokens is taken off its group. All are counted.
    """
    found = load_groups(source, checkpoint, settings)
    edits = {(group.group, group.edited) for group in found.ranked if group.has_edit}
    kept = [
        k
        for k, group in enumerate(found.ranked)
        if not {(group.group, group.chosen), (group.group, group.rejected)} & edits
    ]
    ranked, tokens = [], []
    account = found.account | {
        "groups of which an edit is chosen or rejected": len(found.ranked) - len(kept),
        "edits equal to another response in tokens": 0,
        "edits of another group too": 0,
    }
    used: set[tuple[str, str | None]] = set()
    for k in kept:
        group, ids = found.ranked[k], found.tokens[k]
        if group.has_edit:
            edit = (group.group, group.edited)
            lost = len(ids.responses) < 3
            account["edits equal to another response in tokens"] += lost
            account["edits of another group too"] += edit in used and not lost
            if lost or edit in used:
                group = without_edit(group)
            else:
                used.add(edit)
        ranked.append(group)
        responses = ids.responses[-len(group.responses) :]
        tokens.append(replace(ids, responses=responses, places=()))
    account["groups with an edit"] = len(used)
    gold = found.gold and [
        found.gold[k][-len(group.responses) :] for k, group in zip(kept, ranked, strict=True)
    ]
    return EditGroups(ranked, tokens, gold, account)


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
        ValueError: If there are too few groups, or no edit among them.
    """
    base = order[:size]
    with_edit = base[has_edit[base]]
    edited = with_edit[: round(share * len(with_edit))]
    if not len(edited):
        raise ValueError(
            f"a share of {share:g} of the {len(with_edit)} edits of {size} groups is none, so arms "
            "would not differ; raise sizes or shares, or use data with edited responses"
        )
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

"""Data of the study of edited responses: groups, and which of them a run trains on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

import numpy as np

from posttrain.errors import UserError
from posttrain.studies.common.groups import DataSettings, StudyGroups, load_groups, without_edit
from posttrain.studies.edits.metrics import TestPairs
from posttrain.studies.edits.outcome import ORDINARY, Arm
from posttrain.training.collator import TrainingGroup


@dataclass(frozen=True)
class EditGroups(StudyGroups):
    """Groups, some with an edit, each with all its responses tokenised."""

    @cached_property
    def edits(self) -> np.ndarray:
        """Index of each group's edit among all distinct ones, −1 without, ``[groups]``.

        Several groups of one prompt may carry the same edit, which was still written once.
        """
        number: dict[tuple[str, str], int] = {}
        return np.array(
            [
                -1 if group.edited is None
                else number.setdefault((group.cluster_id, group.edited), len(number))
                for group in self.ranked
            ]
        )  # fmt: skip

    @cached_property
    def distances(self) -> np.ndarray:
        """Share of words in which edited and chosen differ, NaN without an edit; ``[groups]``."""
        return np.array(
            [
                np.nan if group.edited is None else word_distance(group.chosen, group.edited)
                for group in self.ranked
            ]
        )

    def pairs(self, judged: np.ndarray) -> TestPairs:
        """All pairs of some groups."""
        gold = self.gold and [self.gold[i] for i in judged]
        return TestPairs.from_groups([self.ranked[i] for i in judged], gold)

    def lengths(self, judged: np.ndarray) -> np.ndarray:
        """Characters of each response of some groups, shape ``[responses]``."""
        return np.array([len(text) for i in judged for text in self.ranked[i].responses])


def word_distance(one: str, other: str) -> float:
    """Share of words that two texts do not have in common in this order, 0 for equal texts."""
    return 1 - SequenceMatcher(None, one.split(), other.split(), autojunk=False).ratio()


def load_edits(source: str, checkpoint: Path, settings: DataSettings) -> EditGroups:
    """Load or simulate groups and tokenise them.

    Groups of ordinary comparisons hold no edit: where chosen or rejected is the edit of a group
    of the same prompt, the group is left out, or ignoring edits would not ignore them. An edit
    that equals another response in tokens is taken off its group. Both are counted.
    """
    loaded = load_groups(source, checkpoint, settings)
    edits = {(group.cluster_id, group.edited) for group in loaded.ranked if group.has_edit}
    usable = [
        k
        for k, group in enumerate(loaded.ranked)
        if not {(group.cluster_id, group.chosen), (group.cluster_id, group.rejected)} & edits
    ]
    ranked, tokens = [], []
    lost = 0
    for k in usable:
        group, ids = loaded.ranked[k], loaded.tokens[k]
        if group.has_edit and len(ids.responses) < 3:
            lost += 1
            group = without_edit(group)
        ranked.append(group)
        responses = ids.responses[-len(group.responses) :]
        tokens.append(replace(ids, responses=responses, places=()))
    gold = loaded.gold and [
        loaded.gold[k][-len(group.responses) :] for k, group in zip(usable, ranked, strict=True)
    ]
    groups = EditGroups(ranked, tokens, {}, gold)
    with_edit = groups.edits[groups.edits >= 0]
    return replace(
        groups,
        account=loaded.account
        | {
            "groups of which an edit is chosen or rejected": len(loaded.ranked) - len(usable),
            "edits equal to another response in tokens": lost,
            "groups with an edit": len(with_edit),
            "edits": len(np.unique(with_edit)),
        },
    )


@dataclass(frozen=True)
class Chosen:
    """Indices of the groups that one run trains on."""

    edited: np.ndarray  #: Their edits are used.
    plain: np.ndarray  #: The others of the cell's size.
    added: np.ndarray  #: Ordinary groups beside them.


def choose(order: np.ndarray, edits: np.ndarray, arm: Arm, size: int, share: float) -> Chosen:
    """Which groups an arm trains on, of those of ``order`` in turn.

    All arms share the first ``size`` groups of an order and the same ``share`` of their edits (see
    :attr:`EditGroups.edits`). Whether edits are used at all is the arm's business. An edit is used
    in one group, the first that carries it, because an editor wrote it once; it would otherwise
    count as several.

    Raises:
        UserError: If there are too few groups, or no edit among them.
    """
    base = order[:size]
    firsts = np.unique(edits[base], return_index=True)[1]
    with_edit = base[np.sort(firsts[edits[base[firsts]] >= 0])]
    edited = with_edit[: round(share * len(with_edit))]
    if not len(edited):
        raise UserError(
            f"a share of {share:g} of the {len(with_edit)} edits of {size} groups is none, so arms "
            "would not differ; raise sizes or shares, or use data with edited responses"
        )
    needed = size + arm.added * len(edited)
    if needed > len(order):
        raise UserError(
            f"{size} groups with {len(edited)} edits need {needed} training groups, of which there "
            f"are {len(order)}; lower sizes or shares, or use more groups"
        )
    return Chosen(edited, base[~np.isin(base, edited)], order[size:needed])


def used_edits(groups: EditGroups, arm: Arm, chosen: Chosen) -> np.ndarray:
    """Indices of the groups whose edits an arm trains on."""
    if not arm.uses_edits:
        return chosen.edited[:0]
    if arm.half is None:
        return chosen.edited
    nearest = chosen.edited[np.argsort(groups.distances[chosen.edited], kind="stable")]
    middle = (len(nearest) + 1) // 2
    return nearest[:middle] if arm.half == "closest" else nearest[-middle:]


def training_groups(groups: EditGroups, arm: Arm, chosen: Chosen) -> list[TrainingGroup]:
    """The comparisons that an arm trains on, in the order of the indices in ``chosen``."""
    used = set(used_edits(groups, arm, chosen))
    return [
        (arm.pairing if i in used else ORDINARY).apply(groups.ranked[i], groups.tokens[i])
        for i in (*chosen.edited, *chosen.plain, *chosen.added)
    ]


def cost(
    groups: EditGroups, arm: Arm, chosen: Chosen, trained: Sequence[TrainingGroup]
) -> dict[str, int]:
    """What a run takes: ``groups``, ``edits``, ``pairs``, and ``tokens`` of exact rows.

    ``decisions`` are those of annotators, one for each group's rating and one for each edit.
    """
    edits = len(used_edits(groups, arm, chosen))
    return {
        "groups": len(trained),
        "edits": edits,
        "pairs": sum(len(group.pairs) for group in trained),
        "decisions": len(trained) + edits,
        "tokens": sum(group.tokens.total for group in trained),
    }

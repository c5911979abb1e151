"""The study of edited responses on human data: linear heads on frozen features.

Every group is tested once: folds are drawn by group, and each fold's heads never see its groups.
Inside a fold's training groups, sizes, shares and arms are those of :mod:`.edits.study`, and the
penalty is tuned for each arm by an inner cross-validation on chosen > rejected. A fit is convex and
reaches its optimum, so arms differ in what they train on and not in how long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from posttrain.config.fields import setting
from posttrain.data.splits import folds
from posttrain.models.features import FeatureSettings, features
from posttrain.studies.common.heads import inner_folds, tuned_heads, typical_value
from posttrain.studies.common.settings import FrozenSettings
from posttrain.studies.edits.data import Chosen, EditGroups, choose, cost, training_groups
from posttrain.studies.edits.metrics import length_baselines
from posttrain.studies.edits.outcome import ARMS, Cell, CellSettings, Outcome
from posttrain.training.collator import LossType, TrainingGroup


@dataclass(frozen=True)
class HeadSettings(FrozenSettings, CellSettings):
    """Settings of the study with frozen features."""

    sizes: list[int] = setting([300, 1000], "Training groups, without those that an arm adds.")
    seeds: int = setting(3, "Repetitions, each with other training groups.")

    def __post_init__(self) -> None:
        super().__post_init__()
        CellSettings.__post_init__(self)


@dataclass(frozen=True)
class Comparisons:
    """All comparisons that the arms of one size and share train on."""

    groups: np.ndarray  #: Index of each comparison's group, ``[pairs]``.
    winners: np.ndarray  #: Index of its winner among all responses of the data, ``[pairs]``.
    losers: np.ndarray  #: Index of its loser.
    weights: np.ndarray  #: In each arm, 0 where an arm leaves it out, ``[arms, pairs]``.
    margins: np.ndarray  #: In each arm, ``[arms, pairs]``.

    @classmethod
    def from_groups(
        cls,
        chosen: Mapping[str, Chosen],
        trained: Mapping[str, Sequence[TrainingGroup]],
        firsts: np.ndarray,
    ) -> "Comparisons":
        """Collect the pairs of all arms, from what each trains on.

        ``firsts`` is the index of each group's first response among all responses, ``[groups]``.
        """
        place: dict[tuple[int, int, int], int] = {}
        entries = []
        for a, (name, part) in enumerate(chosen.items()):
            members = (*part.edited, *part.plain, *part.added)
            for i, group in zip(members, trained[name], strict=True):
                places = firsts[i] + np.array(group.tokens.places)
                for pair in group.pairs:
                    key = (int(i), int(places[pair.winner]), int(places[pair.loser]))
                    column = place.setdefault(key, len(place))
                    entries.append((a, column, pair.weight, pair.margin))
        weights, margins = np.zeros((2, len(chosen), len(place)))
        for a, column, weight, margin in entries:
            weights[a, column], margins[a, column] = weight, margin
        of_group, winners, losers = np.array(list(place)).T
        return cls(of_group, winners, losers, weights, margins)


def run(
    checkpoint: Path, groups: EditGroups, settings: HeadSettings
) -> tuple[Outcome, pd.DataFrame]:
    """Fit and test all heads.

    Returns:
        The outcome, and for each cell the geometric mean of the tuned ``penalty`` over folds and
        seeds, and how often it lies ``at edge`` of the grid.

    Raises:
        UserError: If there are too few training groups, or a fit did not converge.
    """
    splits = folds(groups.ranked, folds=settings.folds)
    # Before features are computed, which takes long.
    for (training, _), seed, cell in product(splits, range(settings.seeds), settings.cells):
        choose(_order(training, seed), groups.edits, ARMS[cell.arm], cell.size, cell.share)
    response_features = features(
        checkpoint, groups.tokens, FeatureSettings(settings.layer, settings.pooling)
    )
    counts = [len(group.responses) for group in groups.ranked]
    firsts = np.cumsum([0, *counts])[:-1]
    everything = np.arange(len(counts))
    pairs = groups.pairs(everything)
    # With the tuned and with the shared penalty.
    scores = {cell: np.zeros((2, settings.seeds, sum(counts))) for cell in settings.cells}
    tuned: dict[Cell, list[int]] = {cell: [] for cell in settings.cells}
    costs: dict[Cell, list[dict[str, int]]] = {cell: [] for cell in settings.cells}
    for training, test in splits:
        tested = np.concatenate([np.arange(firsts[i], firsts[i] + counts[i]) for i in test])
        for seed in range(settings.seeds):
            order = _order(training, seed)
            for size, share in product(settings.sizes, settings.shares):
                chosen = {
                    name: choose(order, groups.edits, ARMS[name], size, share)
                    for name in settings.arms
                }
                trained = {
                    name: training_groups(groups, ARMS[name], part) for name, part in chosen.items()
                }
                compared = Comparisons.from_groups(chosen, trained, firsts)
                scored, best = _fit(
                    groups, compared, order[:size], response_features, firsts, tested, settings
                )
                for name, part in chosen.items():
                    cell = Cell(name, size, share)
                    scores[cell][:, seed, tested] = scored[name]
                    tuned[cell].append(best[name])
                    costs[cell].append(cost(groups, ARMS[name], part, trained[name]))
    sums, shared = (
        {
            cell: np.stack([pairs.sums(values) for values in by_tuning[k]])
            for cell, by_tuning in scores.items()
        }
        for k in range(2)
    )
    outcome = Outcome(
        sums,
        shared,
        {cell: pd.DataFrame(rows).mean().to_dict() for cell, rows in costs.items()},
        length_baselines(pairs, groups.lengths(everything)),
        {
            "test groups": len(counts),
            "test groups with an edit": int((groups.edits >= 0).sum()),
            "clusters": pairs.group_count,
        },
    )
    tuning = [
        (*astuple(cell), *typical_value(settings.penalties, places))
        for cell, places in tuned.items()
    ]
    return outcome, pd.DataFrame(tuning, columns=["arm", "size", "share", "penalty", "at edge"])


def _order(training: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(training)


def _fit(
    groups: EditGroups,
    compared: Comparisons,
    base: np.ndarray,
    response_features: Tensor,
    firsts: np.ndarray,
    tested: np.ndarray,
    settings: HeadSettings,
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Fit all arms on one subset.

    Returns:
        By arm the scores of the tested responses with the tuned and with the shared penalty,
        ``[2, responses]``, and the index of the tuned one.
    """
    # Annotators' choices among the groups that all arms share: they set the scale of features and
    # judge penalties.
    last = firsts[base] + np.array([len(groups.ranked[i].responses) for i in base])
    scale = response_features[np.concatenate([last - 2, last - 1])].std(dim=0).clamp_min(1e-6)
    differences = (response_features[compared.winners] - response_features[compared.losers]) / scale
    judged = np.isin(compared.winners, last - 2) & np.isin(compared.losers, last - 1)
    fold = _inner_folds(groups, compared.groups, base, settings.inner_folds)
    weights = torch.from_numpy(compared.weights)
    # Pairs with one winner are one choice among several.
    choices = torch.from_numpy(compared.winners)
    shared = settings.penalties.index(settings.shared_penalty)
    scored: dict[str, np.ndarray] = {}
    best: dict[str, int] = {}
    for loss_type in get_args(LossType):
        arms = [k for k, name in enumerate(settings.arms) if ARMS[name].loss_type == loss_type]
        if not arms:
            continue
        heads, places = tuned_heads(
            differences,
            margins=torch.from_numpy(compared.margins)[arms],
            weights=weights[arms],
            penalties=settings.penalties,
            fold=fold,
            judged=judged,
            choices=choices if loss_type == "plackett-luce" else None,
        )
        for head, k, place in zip(heads, arms, places, strict=True):
            name = settings.arms[k]
            scored[name] = (head[[place, shared]] @ (response_features[tested] / scale).T).numpy()
            best[name] = int(place)
    return scored, best


def _inner_folds(
    groups: EditGroups, members: np.ndarray, base: np.ndarray, count: int
) -> np.ndarray:
    """Fold of each comparison: groups that split together stay together, added ones included."""
    names = [groups.ranked[i].cluster_id for i in base]
    fold = dict(zip(names, inner_folds(names, count).tolist(), strict=True))
    # What no fold holds out is trained on every time.
    return np.array([fold.get(groups.ranked[i].cluster_id, -1) for i in members])

"""Arms of the margin study, what a run of it leaves behind, and the tables made of that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, slope
from posttrain.evaluation.metrics import Metric, reliability, sufficient_statistics
from posttrain.studies.common.heads import typical_value
from posttrain.studies.common.keys import Tuning
from posttrain.studies.common.tables import Replicates, TidyTable, difference
from posttrain.studies.margin.keys import Control, Loss, Step
from posttrain.training.losses import MARGINS, margins_by_strength

LOSSES = (Loss.NONE, Loss.SMALL, Loss.LARGE, Loss.SCALED)
#: What each control is for: the loss whose strengths it does without.
CONTROLS = {
    Control.LARGE_CONSTANT: (Loss.LARGE, Loss.CONSTANT),
    Control.LARGE_PERMUTED: (Loss.LARGE, Loss.LARGE_PERMUTED),
    Control.SCALED_PERMUTED: (Loss.SCALED, Loss.SCALED_PERMUTED),
}
#: Accuracy on all pairs, and by strength.
ACCURACIES = tuple(metric for metric in Metric if metric.startswith(Metric.ACCURACY))
TUNINGS = (Tuning.SHARED, Tuning.TUNED)
#: Llama 3 trains only on pairs rated better (3) or significantly better (4) (section 4.2.1).
FILTER_STRENGTH = 3


@dataclass(frozen=True)
class Arm:
    """One way of training; ``filtered`` arms train on pairs that pass Llama 3's filter."""

    loss: str
    filtered: bool = False

    def margins(self, strengths: Sequence[int]) -> Tensor:
        """Margin of each pair, shape ``[pairs]``."""
        if self.loss == Loss.CONSTANT:
            margins = margins_by_strength(strengths, Loss.LARGE)
            return torch.full_like(margins, float(margins.mean()))
        if self.loss == Loss.LARGE_PERMUTED:
            return margins_by_strength(_dealt(strengths), Loss.LARGE)
        return margins_by_strength(strengths, self.loss if self.loss in MARGINS else Loss.NONE)

    def weights(self, strengths: Sequence[int]) -> Tensor:
        """Weight of each pair, shape ``[pairs]``; 0 where the filter leaves it out."""
        strength = torch.tensor(strengths, dtype=torch.float64)
        weight = torch.ones_like(strength)
        if self.loss == Loss.SCALED:
            weight = strength
        elif self.loss == Loss.SCALED_PERMUTED:
            weight = torch.tensor(_dealt(strengths), dtype=torch.float64)
        return torch.where(strength >= FILTER_STRENGTH, weight, 0) if self.filtered else weight


def _dealt(strengths: Sequence[int]) -> list[int]:
    """The same strengths, dealt out anew at random."""
    return np.random.default_rng(0).permutation(strengths).tolist()


#: All losses on all pairs and on filtered ones, and the controls on all pairs.
ARMS = (
    *(Arm(loss, filtered) for filtered in (False, True) for loss in LOSSES),
    *(Arm(loss) for loss in Loss if loss not in LOSSES),
)


@dataclass(frozen=True)
class RatedPairs:
    """Chosen > rejected of each group, for groups that an annotator rated."""

    groups: list[RankedGroup]
    strengths: np.ndarray  #: ``[pairs]``.
    codes: np.ndarray  #: Index of each pair's split group, ``[pairs]``.

    @classmethod
    def from_groups(cls, groups: Sequence[RankedGroup]) -> "RatedPairs":
        """Collect pairs.

        Raises:
            UserError: If a group has no strength: this study cannot use it.
        """
        missing = [group.id for group in groups if group.strength is None]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(groups)} groups have no strength (first: {missing[0]}); "
                "the margin study needs data whose pairs are all rated 1 to 4"
            )
        codes = np.unique([group.cluster_id for group in groups], return_inverse=True)[1]
        return cls(list(groups), np.array([group.strength for group in groups]), codes)

    @property
    def group_count(self) -> int:
        """Number of distinct split groups."""
        return int(self.codes.max()) + 1


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every arm, data size, seed and hyperparameter."""

    grid: tuple[float, ...]  #: The hyperparameter's values.
    grid_name: str  #: ``penalty`` or ``learning rate``.
    shared: int  #: Index of the value that all arms share.
    sizes: tuple[int, ...]  #: Numbers of annotated training pairs, before the filter.
    #: Over held-out pairs, ``[arms, sizes, seeds, grid, test groups, evaluation.COLUMNS]``.
    sums: np.ndarray
    #: Index of the tuned value by test group (which fold it is in), ``[arms, sizes, seeds, test
    #: groups]``.
    tuned: np.ndarray
    #: Scores of winners and losers at the largest size with the first seed, ``[arms, grid, 2,
    #: pairs]``.
    examples: np.ndarray
    example_codes: np.ndarray
    baselines: pd.DataFrame  #: Extra rows for the metrics table (length-only, reachable accuracy).
    #: What each arm's training saw, for the reader.
    training: dict[str, Any] = field(default_factory=dict)

    def select(self, tuning: str) -> np.ndarray:
        """Sums under one way of tuning, ``[arms, sizes, seeds, test groups, COLUMNS]``."""
        if tuning == Tuning.SHARED:
            return self.sums[:, :, :, self.shared]
        # Bring the grid behind the groups, then take each group's own choice.
        by_group = np.moveaxis(self.sums, 3, 4)
        return np.take_along_axis(by_group, self.tuned[..., None, None], axis=4)[..., 0, :]


def summarise(outcome: Outcome, *, resamples: int = 1000) -> dict[str, pd.DataFrame]:
    """Tidy tables of an outcome, each estimate with a 95 % interval.

    Returns:
        - ``metrics``: by arm, size, tuning and metric.
        - ``gains``: the same for the paired difference to the arm without margin, same filter.
        - ``filter``: the paired difference of filtered to unfiltered, same loss.
        - ``interactions``: the gain of all pairs less the gain of filtered ones, paired: how much
          of a loss's gain the filter takes.
        - ``controls``: each of :data:`CONTROLS`, paired, trained on all pairs.
        - ``steps``: accuracy on strength 4 minus accuracy on strength 1, and the same step of the
          gain over the arm without margin.
        - ``trends``: change of the accuracy gain per tenfold data.
        - ``sensitivity``: accuracy gain of each loss at every shared hyperparameter value.
        - ``chosen``: geometric mean of the tuned value, and how often it lies on the grid's edge.
        - ``reliability``: reliability diagrams at the largest size.
        - ``histogram``: standardised scores at the largest size, first seed, tuned.
        - ``baselines``: length-only accuracy, reachable accuracy.
    """
    draws = Resamples.draw(outcome.sums.shape[4], outcome.sums.shape[2], count=resamples)
    head = ("loss", "filtered", "tuning")
    metrics, gains, filters, steps = (TidyTable(*head, "size", "metric") for _ in range(4))
    interactions = TidyTable("loss", "tuning", "size", "metric")
    controls = TidyTable("control", "tuning", "size", "metric")
    trends = TidyTable(*head, "metric")
    diagrams = []
    for tuning in TUNINGS:
        sums = outcome.select(tuning)
        measured = {
            (arm, size): draws.measure(sums[a, s])
            for a, arm in enumerate(ARMS)
            for s, size in enumerate(outcome.sizes)
        }
        gained = {
            (arm, size): difference(values, measured[Arm(Loss.NONE, arm.filtered), size])
            for (arm, size), values in measured.items()
            if arm.loss != Loss.NONE
        }
        for (arm, size), values in measured.items():
            label = (*_label(arm), tuning, size)
            metrics.add_metrics(*label, metrics=values)
            steps.add(*label, Step.ACCURACY, replicates=_step(values))
            if arm.loss != Loss.NONE:
                gains.add_metrics(*label, metrics=gained[arm, size])
                plain = measured[Arm(Loss.NONE, arm.filtered), size]
                steps.add(*label, Step.GAIN, replicates=_step(values) - _step(plain))
            if arm.filtered:
                whole = measured[Arm(arm.loss), size]
                filters.add_metrics(*label, metrics=difference(values, whole))
        for loss, size in product(LOSSES[1:], outcome.sizes):
            pair = gained[Arm(loss), size], gained[Arm(loss, filtered=True), size]
            interactions.add_metrics(loss, tuning, size, metrics=difference(*pair))
        for (name, (loss, control)), size in product(CONTROLS.items(), outcome.sizes):
            pair = measured[Arm(loss), size], measured[Arm(control), size]
            controls.add_metrics(name, tuning, size, metrics=difference(*pair))
        for arm in (arm for arm in ARMS if arm.loss != Loss.NONE):
            for metric in ACCURACIES:
                curves = np.stack([gained[arm, size][metric] for size in outcome.sizes])
                trends.add(*_label(arm), tuning, metric, replicates=slope(outcome.sizes, curves))
        for a, arm in enumerate(ARMS):
            rows = reliability(sums[a, -1].sum(axis=(0, 1)))
            diagrams += [(*_label(arm), tuning, b, *row) for b, row in enumerate(rows)]
    return {
        "metrics": metrics.frame(),
        "gains": gains.frame(),
        "filter": filters.frame(),
        "interactions": interactions.frame(),
        "controls": controls.frame(),
        "steps": steps.frame(),
        "trends": trends.frame(),
        "sensitivity": _sensitivity(outcome, draws),
        "chosen": _chosen(outcome),
        "reliability": pd.DataFrame(
            diagrams, columns=[*head, "bin", "confidence", "accuracy", "share"]
        ),
        "histogram": _histogram(outcome),
        "baselines": outcome.baselines,
    }


def _step(values: Replicates) -> np.ndarray:
    """Accuracy on strength 4 minus accuracy on strength 1."""
    return values[Metric.ACCURACY_4] - values[Metric.ACCURACY_1]


def _label(arm: Arm) -> tuple[str, bool]:
    return arm.loss, arm.filtered


def _sensitivity(outcome: Outcome, draws: Resamples) -> pd.DataFrame:
    table = TidyTable("loss", "size", outcome.grid_name, "accuracy")
    for s, size in enumerate(outcome.sizes):
        for g, value in enumerate(outcome.grid):
            accuracies = {
                loss: draws.measure(outcome.sums[ARMS.index(Arm(loss)), s, :, g])[Metric.ACCURACY]
                for loss in LOSSES
            }
            for loss, replicates in accuracies.items():
                gained = replicates - accuracies[Loss.NONE]
                table.add(loss, size, value, replicates[0], replicates=gained)
    return table.frame()


def _chosen(outcome: Outcome) -> pd.DataFrame:
    rows = []
    for a, arm in enumerate(ARMS):
        for s, size in enumerate(outcome.sizes):
            rows.append((*_label(arm), size, *typical_value(outcome.grid, outcome.tuned[a, s])))
    return pd.DataFrame(rows, columns=["loss", "filtered", "size", outcome.grid_name, "at edge"])


def _histogram(outcome: Outcome, bins: int = 40) -> pd.DataFrame:
    """Density of standardised scores, winners and losers together, by loss (unfiltered)."""
    rows = []
    edges = np.linspace(-3.5, 3.5, bins + 1)
    for a, arm in enumerate(ARMS):
        if arm.filtered or arm.loss not in LOSSES:
            continue
        chosen = outcome.tuned[a, -1, 0][outcome.example_codes]
        scores = np.take_along_axis(outcome.examples[a], chosen[None, None, :], axis=0)[0].ravel()
        standard = (scores - scores.mean()) / scores.std()
        density = np.histogram(standard, bins=edges, density=True)[0]
        rows += [(arm.loss, (edges[b] + edges[b + 1]) / 2, density[b]) for b in range(bins)]
    return pd.DataFrame(rows, columns=["loss", "score", "density"])


def length_baseline(pairs: RatedPairs, *, resamples: int = 1000) -> pd.DataFrame:
    """Accuracy of preferring the longer response (in characters), with intervals."""
    winner = np.array([len(group.chosen) for group in pairs.groups])
    loser = np.array([len(group.rejected) for group in pairs.groups])
    sums = sufficient_statistics(winner, loser, pairs.strengths, pairs.codes, pairs.group_count)
    measured = Resamples.draw(pairs.group_count, 1, count=resamples).measure(sums[None])
    table = TidyTable("baseline", "metric")
    table.add_metrics("length only", metrics={name: measured[name] for name in ACCURACIES})
    return table.frame()

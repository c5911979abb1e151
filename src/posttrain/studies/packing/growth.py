"""The growth study: does more data close the gap between causal rows and separate rows?

Models are trained in separate rows, in causal rows and in rows of isolated responses with counted
positions, on growing numbers of groups, and each is tested in its own layout. Learning rates are
chosen for each layout and size; all sizes are tested on the same pairs.

Expected, before the first run:

1. Causal rows lose nothing that could be seen at 300 groups, where every model is weak; they lose
   most at some thousand (about a point), and less than half a point at 30,000: with enough groups
   the model learns to look away from the other responses.
2. Isolated responses with counted positions lose less than a point at every size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, slope
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable, difference
from posttrain.studies.common.training import many_runs, memoize
from posttrain.studies.packing.full import (
    PackingSettings,
    Scores,
    prepare,
    train_and_score,
    train_and_test,
    tune,
)
from posttrain.studies.packing.keys import OrderMetric, RowName
from posttrain.studies.packing.outcome import Outcome, chosen_rates, order_metrics, own_test


@dataclass(frozen=True)
class GrowthSettings(PackingSettings):
    """Settings of the growth study."""

    arms: list[str] = setting(
        [RowName.SEPARATE, RowName.POSITIONS, RowName.CAUSAL], "Layouts to train with."
    )
    tests: list[str] = setting(
        [RowName.SEPARATE, RowName.POSITIONS, RowName.CAUSAL], "Layouts to test with."
    )
    sizes: list[int] = setting([300, 1000, 3000, 10_000, 30_000], "Numbers of training groups.")
    groups: int = setting(45_000, "Groups to simulate; human data is taken whole.")
    seeds: int = setting(3, "Repetitions at the largest size; see most_seeds.")
    most_seeds: int = setting(
        12, "Repetitions at most; smaller sizes take as many more as they are smaller."
    )
    tuning_seeds: int = setting(1, "Repetitions over which each arm's learning rate is chosen.")
    size: int = setting(0, "Not used; see sizes.")

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) < len(self.sizes):
            raise UserError(f"sizes needs different values of at least 1, not {self.sizes}")
        object.__setattr__(self, "size", max(self.sizes))
        super().__post_init__()

    def of(self, size: int) -> "GrowthSettings":
        """Settings of the runs of one size."""
        seeds = min(self.most_seeds, self.seeds * max(self.sizes) // size)
        return replace(self, sizes=[size], seeds=max(seeds, self.seeds))


def measure(source: str, settings: GrowthSettings, cache_dir: Path | None) -> Measured:
    """Train and test at every size.

    Returns:
        ``tuning`` of :func:`.packing.full.tune` with the size, and the tables of :func:`summarise`.
    """
    checkpoint = checkpoint_for(source)
    prepared = prepare(source, checkpoint, settings)
    scores: Scores = memoize(
        train_and_score, cache_dir, settings=asdict(settings), data=prepared.account,
        ignore=["checkpoint", "prepared", "settings"],
    )  # fmt: skip
    tunings, outcomes = [], []
    with many_runs():
        for size in settings.sizes:
            part = settings.of(size)
            tuning = tune(checkpoint, prepared, part, scores)
            tunings.append(tuning.assign(size=size))
            rates = chosen_rates(tuning)
            outcomes.append(train_and_test(checkpoint, prepared, rates, part, scores))
    tables = summarise(settings.sizes, outcomes, resamples=settings.resamples)
    return Measured(prepared.account, {"tuning": pd.concat(tunings, ignore_index=True)} | tables)


def summarise(
    sizes: Sequence[int], outcomes: Sequence[Outcome], *, resamples: int = 1000
) -> dict[str, pd.DataFrame]:
    """Tidy tables of outcomes by size, each estimate with a 95 % interval over groups and seeds.

    Returns:
        - ``levels``: accuracy and log-likelihood of each arm in its own layout, by size.
        - ``gaps``: the same minus separate rows, paired.
        - ``trends``: change of these gaps per tenfold training groups.
    """
    levels, gaps = (TidyTable("trained", "size", "metric") for _ in range(2))
    trends = TidyTable("trained", "metric")
    curves: dict[tuple[str, str], list] = {}
    for size, outcome in zip(sizes, outcomes, strict=True):
        draws = Resamples.draw(outcome.sums.shape[3], outcome.sums.shape[2], count=resamples)
        own = {
            arm: draws.measure(outcome.sums[a, outcome.tests.index(own_test(arm))], order_metrics)
            for a, arm in enumerate(outcome.arms)
        }
        for arm, measured in own.items():
            gap = difference(measured, own[RowName.SEPARATE])
            for metric in (OrderMetric.ACCURACY, OrderMetric.LOG_LIKELIHOOD):
                levels.add(arm, size, metric, replicates=measured[metric])
                if arm != RowName.SEPARATE:
                    gaps.add(arm, size, metric, replicates=gap[metric])
                    curves.setdefault((arm, metric), []).append(gap[metric])
    for label, replicates in curves.items():
        trends.add(*label, replicates=slope(sizes, pd.DataFrame(replicates).to_numpy()))
    return {"levels": levels.frame(), "gaps": gaps.frame(), "trends": trends.frame()}


STUDY = Study(
    "growth",
    "whether more data closes the gap of causal rows",
    measure,
    simulated=GrowthSettings,
    human=GrowthSettings,
    memoizes=True,
)

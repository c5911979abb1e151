"""The growth study: what more data buys, and whether it closes the gap of causal rows.

Models are trained in separate rows, in causal rows and in rows of isolated responses with counted
positions, on growing numbers of groups, and each is tested in its own layout. Learning rates are
chosen for each layout and size; all sizes are tested on the same pairs. In the simulator the true
quality is known, and annotators follow it with logistic noise, so what a model lacks is measured
against the truth's own accuracy and log-likelihood on the same pairs: the *excess*.

Expected, before the first run:

1. Causal rows lose nothing that could be seen at 300 groups, where every model is weak; they lose
   most at some thousand (about a point), and less than half a point at 30,000: with enough groups
   the model learns to look away from the other responses.
2. Isolated responses with counted positions lose less than a point at every size.
3. The excess falls as a power of the number of groups, with an exponent between −0.3 and −0.7 in
   nats and half of that in errors, and does not level off: Llama 2's Figure 6 does not either.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, slope
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable
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
from posttrain.studies.packing.outcome import (
    Outcome,
    chosen_rates,
    order_metrics,
    order_sums,
    own_test,
)


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
    size: int = setting(0, "The largest of sizes, which is what it says if not given.")

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) < len(self.sizes):
            raise UserError(f"sizes needs different values of at least 1, not {self.sizes}")
        if self.size not in (0, max(self.sizes)):
            raise UserError(
                f"size {self.size} is not the largest of sizes {self.sizes}; give sizes"
            )
        object.__setattr__(self, "size", max(self.sizes))
        super().__post_init__()

    def of(self, size: int) -> "GrowthSettings":
        """Settings of the runs of one size."""
        seeds = min(self.most_seeds, self.seeds * max(self.sizes) // size)
        return replace(self, sizes=[size], size=size, seeds=max(seeds, self.seeds))


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
    truth = None
    if prepared.gold is not None:
        gold = np.array([np.subtract(*prepared.gold[i][-2:]) for i in prepared.test])
        codes = prepared.test_codes
        truth = order_sums(gold, gold, gold, codes, int(codes.max()) + 1)
    tables = summarise(settings.sizes, outcomes, truth, resamples=settings.resamples)
    return Measured(prepared.account, {"tuning": pd.concat(tunings, ignore_index=True)} | tables)


def summarise(
    sizes: Sequence[int],
    outcomes: Sequence[Outcome],
    truth: np.ndarray | None = None,
    *,
    resamples: int = 1000,
) -> dict[str, pd.DataFrame]:
    """Tidy tables of outcomes by size, each estimate with a 95 % interval over groups and seeds.

    ``truth`` holds the sums of :func:`.packing.outcome.order_sums` that the true quality gives,
    ``[test groups, COLUMNS]``.

    Returns:
        - ``levels``: accuracy and log-likelihood of each arm in its own layout, by size.
        - ``steps``: what each size adds to the one before.
        - ``gaps``: the levels minus those of separate rows, paired.
        - ``trends``: change of these gaps per tenfold training groups.
        - ``excess``: what each arm lacks to the truth, and ``exponents``: the power of the size
          with which that falls; both empty without it.
    """
    levels, steps, gaps, excess = (TidyTable("trained", "size", "metric") for _ in range(4))
    trends, exponents = (TidyTable("trained", "metric") for _ in range(2))
    # Replicates by arm and metric.
    curves: dict[tuple[str, str], list[np.ndarray]] = {}
    lacking: dict[tuple[str, str], list[np.ndarray]] = {}
    before: dict[tuple[str, str], np.ndarray] = {}
    for size, outcome in zip(sizes, outcomes, strict=True):
        draws = Resamples.draw(outcome.sums.shape[3], outcome.sums.shape[2], count=resamples)
        own = {
            arm: draws.measure(outcome.sums[a, outcome.tests.index(own_test(arm))], order_metrics)
            for a, arm in enumerate(outcome.arms)
        }
        best = None
        if truth is not None:
            best = draws.measure(np.repeat(truth[None], len(draws.seeds[0]), 0), order_metrics)
        for arm, metric in product(own, (OrderMetric.ACCURACY, OrderMetric.LOG_LIKELIHOOD)):
            reached = own[arm][metric]
            levels.add(arm, size, metric, replicates=reached)
            if (arm, metric) in before:
                steps.add(arm, size, metric, replicates=reached - before[arm, metric])
            before[arm, metric] = reached
            if arm != RowName.SEPARATE:
                gap = reached - own[RowName.SEPARATE][metric]
                gaps.add(arm, size, metric, replicates=gap)
                curves.setdefault((arm, metric), []).append(gap)
            if best is not None:
                lacks = best[metric] - reached
                excess.add(arm, size, metric, replicates=lacks)
                lacking.setdefault((arm, metric), []).append(lacks)
    for label, replicates in curves.items():
        trends.add(*label, replicates=slope(sizes, np.array(replicates)))
    for label, replicates in lacking.items():
        with np.errstate(invalid="ignore", divide="ignore"):  # none where the truth is beaten
            powers = slope(sizes, np.log10(replicates))
        exponents.add(*label, replicates=np.where(np.isfinite(powers), powers, np.nan))
    tables = {"levels": levels, "steps": steps, "gaps": gaps, "trends": trends}
    tables |= {"excess": excess, "exponents": exponents}
    return {name: table.frame() for name, table in tables.items()}


STUDY = Study(
    "growth",
    "whether more data closes the gap of causal rows",
    measure,
    simulated=GrowthSettings,
    human=GrowthSettings,
    memoizes=True,
)

"""Arms of the study of helpfulness and safety, what a run of it leaves behind, and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from posttrain.config.fields import at_least_one, setting
from posttrain.data.mixing import MIXES, counts_for
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.calibration import Calibration
from posttrain.evaluation.combining import THRESHOLD, Rule, RuleKind
from posttrain.evaluation.metrics import Metric, sufficient_statistics
from posttrain.studies.common.keys import Tuning
from posttrain.studies.common.tables import Replicates, TidyTable, difference, known
from posttrain.studies.tradeoff.data import DOMAINS, CandidateSet, TradeoffData
from posttrain.studies.tradeoff.keys import BOTH, EXCHANGE, OWN, ArmName, Contrast, DomainName, Team

TUNINGS = (Tuning.TUNED, Tuning.SHARED)


@dataclass(frozen=True)
class Arm:
    """What a reward model is trained on."""

    #: Share of safety groups among its training groups; the others are of helpfulness.
    safety: float
    scale: int = 1  #: Training groups, in multiples of the study's size.
    auxiliary: bool = False  #: Whether it also learns which responses are safe (Llama 2, Table 29).

    def counts(self, size: int) -> dict[str, int]:
        """Training groups of each domain."""
        shares: dict[str, float] = {
            DomainName.HELPFULNESS: 1 - self.safety,
            DomainName.SAFETY: self.safety,
        }
        return counts_for(shares, self.scale * size)


ARMS: dict[str, Arm] = {
    ArmName.HELPFUL: Arm(0.0),
    ArmName.TENTH: Arm(0.1),
    ArmName.QUARTER: Arm(0.25),
    # Llama 2's mix for helpfulness; at the same time a joint model of the same size.
    ArmName.HELPFULNESS_MIX: Arm(MIXES["helpfulness"]["safety"]),
    ArmName.THREE_QUARTERS: Arm(0.75),
    # Llama 2's mix for safety.
    ArmName.SAFETY_MIX: Arm(MIXES["safety"]["safety"]),
    ArmName.SAFE: Arm(1.0),
    # As much data, and as much training, as both specialists together.
    ArmName.JOINT: Arm(0.5, scale=2),
    ArmName.AUXILIARY: Arm(MIXES["safety"]["safety"], auxiliary=True),
}
SPECIALISTS = {DomainName.HELPFULNESS: ArmName.HELPFUL, DomainName.SAFETY: ArmName.SAFE}
#: Two models that decide together: who judges helpfulness, and who safety.
TEAMS = {
    Team.SPECIALISTS: (ArmName.HELPFUL, ArmName.SAFE),
    Team.MIXES: (ArmName.HELPFULNESS_MIX, ArmName.SAFETY_MIX),
    # The other reading of Llama 2's mix for helpfulness: half of what is not its own data is from
    # open-source sets, which are of helpfulness too.
    Team.OPEN_MIXES: (ArmName.QUARTER, ArmName.SAFETY_MIX),
}
#: What each of their members judges, and is calibrated on.
TEAM_DOMAINS: dict[str, str] = {
    arm: domain for team in TEAMS.values() for arm, domain in zip(team, DOMAINS, strict=True)
}
#: Arms that are calibrated, and on which domain: these and the one with the auxiliary loss.
CALIBRATED = TEAM_DOMAINS | {ArmName.AUXILIARY: DomainName.SAFETY}
#: Paired differences of accuracy between two arms.
CONTRASTS = {
    Contrast.MIXES: (ArmName.SAFETY_MIX, ArmName.HELPFULNESS_MIX),
    Contrast.OPEN_MIXES: (ArmName.SAFETY_MIX, ArmName.QUARTER),
    Contrast.SPECIALISTS: (ArmName.SAFE, ArmName.HELPFUL),
    Contrast.SAFETY_MIX: (ArmName.SAFETY_MIX, ArmName.SAFE),
    Contrast.HELPFULNESS_MIX: (ArmName.HELPFULNESS_MIX, ArmName.HELPFUL),
    Contrast.JOINT: (ArmName.JOINT, OWN),
    Contrast.EQUAL_PARTS: (ArmName.HELPFULNESS_MIX, OWN),
    Contrast.AUXILIARY: (ArmName.AUXILIARY, ArmName.SAFETY_MIX),
}
#: The threshold of the gate that stands for all.
MAIN_GATE = 0.5


@dataclass(frozen=True)
class TradeoffSettings:
    """What all ways of training have in common."""

    arms: list[str] = setting(list(ARMS), "What models are trained on.")
    size: int = setting(4000, "Training groups of a model; one arm has twice as many.")
    seeds: int = setting(4, "Repetitions, each with other training groups.")
    weights: list[float] = setting(
        [0.25, 0.5, 1.0, 2.0, 4.0], "Weights of safety in sums of both scores."
    )
    thresholds: list[float] = setting(
        [0.05, 0.15, 0.3, 0.5, 0.7, 0.85], "Thresholds of the safety score."
    )
    data_seed: int = setting(1, "Seeds the simulator and every random choice of groups.")
    resamples: int = setting(1000, "Bootstrap replicates.")

    def __post_init__(self) -> None:
        at_least_one(self, "size", "seeds", "resamples")
        needed = {ArmName.HELPFUL, ArmName.SAFE}
        if not needed <= set(self.arms) or not set(self.arms) <= set(ARMS):
            raise UserError(
                f"arms must contain {ArmName.HELPFUL!r} and {ArmName.SAFE!r}, and only names of "
                f"{', '.join(ARMS)}; got {', '.join(self.arms)}"
            )
        # Now, and not after hours of training.
        for weight in self.weights:
            Rule(RuleKind.SUM, weight=weight)
        for threshold in self.thresholds:
            Rule(RuleKind.SWITCH, threshold=threshold)
        for name, shown in (("weights", EXCHANGE), ("thresholds", (THRESHOLD, MAIN_GATE))):
            if missing := sorted(set(shown) - set(getattr(self, name))):
                raise UserError(
                    f"{name} must contain {', '.join(f'{value:g}' for value in shown)}, which "
                    f"claims and tables speak of; add {', '.join(f'{v:g}' for v in missing)}"
                )


@dataclass(frozen=True)
class TestPairs:
    """Held-out pairs."""

    __test__ = False  # not a test, whatever pytest makes of its name

    strengths: np.ndarray  #: 1 to 4, or 0 where nobody said, ``[pairs]``.
    sources: np.ndarray  #: Name of each pair's source, ``[pairs]``.
    domains: np.ndarray  #: ``[pairs]``.
    codes: np.ndarray  #: Number of each pair's split group, ``[pairs]``.
    lengths: np.ndarray  #: Characters of chosen and rejected, ``[pairs, 2]``.

    @classmethod
    def from_data(cls, world: TradeoffData, indices: np.ndarray) -> "TestPairs":
        """The pairs of some groups of a world."""
        groups = [world.ranked[i] for i in indices]
        return cls(
            np.array([group.strength or 0 for group in groups]),
            world.sources[indices],
            world.domains[indices],
            world.codes[indices],
            np.array([[len(text) for text in group.responses] for group in groups]),
        )

    @property
    def clusters(self) -> int:
        """Split groups of the domain that has fewer."""
        return min(
            len(set(self.codes[self.domains == domain])) for domain in set(self.domains.tolist())
        )

    def parts(self) -> dict[str, np.ndarray]:
        """Which pairs each test is made of: those of a source, and all of a domain."""
        parts = {str(name): self.sources == name for name in dict.fromkeys(self.sources.tolist())}
        return parts | {domain: self.domains == domain for domain in DOMAINS}


@dataclass(frozen=True)
class ArmOutcome:
    """What the models of one arm score."""

    #: Of chosen and rejected of the held-out pairs, ``[tunings, seeds, pairs, 2]``.
    pairs: np.ndarray
    candidates: np.ndarray  #: By each model, tuned, ``[models, responses]``.
    #: Of each model of an arm in :data:`CALIBRATED`; otherwise none.
    calibrations: list[Calibration]


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every arm."""

    tested: TestPairs
    candidates: CandidateSet  #: What rules choose from.
    arms: Mapping[str, ArmOutcome]
    tuning: pd.DataFrame  #: What was tuned, for a table.
    account: dict[str, Any] = field(default_factory=dict)  #: Of the test pairs.


def accuracy_tables(outcome: Outcome, *, resamples: int) -> dict[str, pd.DataFrame]:
    """Tidy tables of the held-out pairs, each estimate with a 95 % interval over groups and seeds.

    Returns:
        - ``metrics``: by arm, tuning, test (a source, or a domain) and metric.
        - ``differences``: paired differences of :data:`CONTRASTS`; test ``both`` is their mean over
          the two domains.
        - ``baselines``: accuracy of preferring the longer response.
    """
    tested = outcome.tested
    metrics = TidyTable("arm", "tuning", "test", "metric")
    differences = TidyTable("contrast", "tuning", "test", "metric")
    baselines = TidyTable("test", "metric")
    seeds = next(iter(outcome.arms.values())).pairs.shape[1]
    common = Resamples.draw(1, seeds, count=resamples).seeds
    replicates: dict[tuple[str, str, str], Replicates] = {}
    for test, inside in tested.parts().items():
        codes = np.unique(tested.codes[inside], return_inverse=True)[1]
        count = int(codes.max()) + 1
        # Models are common to all tests, so replicates draw the same seeds in each.
        draws = Resamples(Resamples.draw(count, 1, count=resamples).groups, common)
        strengths = tested.strengths[inside]
        longer = tested.lengths[inside]
        sums = sufficient_statistics(longer[:, 0], longer[:, 1], strengths, codes, count)
        alone = Resamples(draws.groups, np.ones((resamples + 1, 1)))
        baseline = alone.measure(sums[None])
        baselines.add_metrics(
            test,
            metrics={name: baseline[name] for name in Metric if name.startswith(Metric.ACCURACY)},
        )
        for name, arm in outcome.arms.items():
            for k, tuning in enumerate(TUNINGS):
                scores = arm.pairs[k][:, inside]
                sums = sufficient_statistics(
                    scores[..., 0], scores[..., 1], strengths, codes, count
                )
                replicates[name, tuning, test] = draws.measure(sums)
                metrics.add_metrics(
                    name, tuning, test, metrics=known(replicates[name, tuning, test])
                )
    domain_of = dict(zip(tested.sources.tolist(), tested.domains.tolist(), strict=True))
    for contrast, (one, other) in CONTRASTS.items():
        for tuning in TUNINGS:
            gaps: dict[str, Replicates] = {}
            for test in tested.parts():
                against = SPECIALISTS[domain_of.get(test, test)] if other == OWN else other
                first, second = (replicates.get((arm, tuning, test)) for arm in (one, against))
                if first is not None and second is not None:
                    gaps[test] = difference(first, second)
            if gaps:
                sides = [gaps[domain] for domain in DOMAINS]
                gaps[BOTH] = {name: (sides[0][name] + sides[1][name]) / 2 for name in sides[0]}
            for test, gap in gaps.items():
                differences.add_metrics(contrast, tuning, test, metrics=known(gap))
    return {
        "metrics": metrics.frame(),
        "differences": differences.frame(),
        "baselines": baselines.frame(),
    }


def calibration_table(outcome: Outcome, threshold: float) -> pd.DataFrame:
    """Calibrations of the specialists, and what a threshold means before and after.

    ``raw`` and ``calibrated`` are the shares of candidates whose σ(score) is below the threshold.
    """
    level = float(np.log(threshold / (1 - threshold)))
    rows = [
        {
            "arm": name,
            "model": number,
            "scale": calibration.scale,
            "centre": calibration.centre,
            "raw": float((scores < level).mean()),
            "calibrated": float((calibration.apply(scores) < level).mean()),
        }
        for name in SPECIALISTS.values()
        for number, (calibration, scores) in enumerate(
            zip(outcome.arms[name].calibrations, outcome.arms[name].candidates, strict=True)
        )
    ]
    return pd.DataFrame(rows)


def most_groups(size: int, arms: Sequence[str]) -> dict[str, int]:
    """Most training groups of each domain that one of the arms takes."""
    return {domain: max(ARMS[arm].counts(size)[domain] for arm in arms) for domain in DOMAINS}

"""Arms of the study of helpfulness and safety, what a run of it leaves behind, and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from posttrain.config.fields import at_least_one, setting
from posttrain.data.mixing import MIXES, counts_for
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, interval
from posttrain.evaluation.calibration import Calibration
from posttrain.evaluation.combining import THRESHOLD, Rule, RuleKind
from posttrain.evaluation.metrics import Metric, sufficient_statistics
from posttrain.studies.common.keys import ESTIMATE, Tuning
from posttrain.studies.tradeoff.data import DOMAINS, CandidateSet, TradeoffData
from posttrain.studies.tradeoff.keys import BOTH, EXCHANGE, OWN, ArmName, Contrast, DomainName, Team

TUNINGS = (Tuning.TUNED, Tuning.SHARED)


@dataclass(frozen=True)
class Arm:
    """What a reward model is trained on.

    Attributes:
        safety: Share of safety groups among its training groups; the others are of helpfulness.
        scale: Training groups, in multiples of the study's size.
        auxiliary: Whether it also learns which responses are safe (Llama 2, Table 29).
    """

    safety: float
    scale: int = 1
    auxiliary: bool = False

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
}
#: What each of their members judges, and is calibrated on.
TEAM_DOMAINS: dict[str, str] = {
    arm: domain for team in TEAMS.values() for arm, domain in zip(team, DOMAINS, strict=True)
}
#: Paired differences of accuracy between two arms.
CONTRASTS = {
    Contrast.MIXES: (ArmName.SAFETY_MIX, ArmName.HELPFULNESS_MIX),
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
    """What all ways of training have in common.

    Raises:
        UserError: If a number is out of range, an arm unknown, or an arm, weight or threshold
            missing that claims and tables need.
    """

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
    """Held-out pairs.

    Attributes:
        strengths: 1 to 4, or 0 where nobody said, shape ``[pairs]``.
        sources: Name of each pair's source, shape ``[pairs]``.
        domains: Its domain, shape ``[pairs]``.
        codes: Number of its split group, shape ``[pairs]``.
        lengths: Characters of chosen and rejected, ``[pairs, 2]``.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    strengths: np.ndarray
    sources: np.ndarray
    domains: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray

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

    def parts(self) -> dict[str, np.ndarray]:
        """Which pairs each test is made of: those of a source, and all of a domain."""
        parts = {str(name): self.sources == name for name in dict.fromkeys(self.sources.tolist())}
        return parts | {domain: self.domains == domain for domain in DOMAINS}


@dataclass(frozen=True)
class ArmOutcome:
    """What the models of one arm score.

    Attributes:
        pairs: Scores of chosen and rejected of the held-out pairs, ``[tunings, seeds, pairs, 2]``.
        candidates: Scores of the candidates by each model, tuned, ``[models, responses]``.
        calibrations: Calibration of each model of an arm that is in a team; otherwise none.
    """

    pairs: np.ndarray
    candidates: np.ndarray
    calibrations: list[Calibration]


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every arm.

    Attributes:
        tested: The held-out pairs.
        candidates: What rules choose from.
        arms: Results by arm.
        tuning: What was tuned, for a table.
        account: Of the test pairs.
    """

    tested: TestPairs
    candidates: CandidateSet
    arms: Mapping[str, ArmOutcome]
    tuning: pd.DataFrame
    account: dict[str, Any] = field(default_factory=dict)


def accuracy_tables(outcome: Outcome, *, resamples: int) -> dict[str, pd.DataFrame]:
    """Tidy tables of the held-out pairs, each estimate with a 95 % interval over groups and seeds.

    Returns:
        - ``metrics``: by arm, tuning, test (a source, or a domain) and metric.
        - ``differences``: paired differences of :data:`CONTRASTS`; test ``both`` is their mean over
          the two domains.
        - ``baselines``: accuracy of preferring the longer response.
    """
    tested = outcome.tested
    metrics: list[tuple[Any, ...]] = []
    differences: list[tuple[Any, ...]] = []
    baselines: list[tuple[Any, ...]] = []
    seeds = next(iter(outcome.arms.values())).pairs.shape[1]
    common = Resamples.draw(1, seeds, count=resamples).seeds
    replicates: dict[tuple[str, str, str], Mapping[str, np.ndarray]] = {}
    for test, there in tested.parts().items():
        codes = np.unique(tested.codes[there], return_inverse=True)[1]
        count = int(codes.max()) + 1
        # Models are common to all tests, so replicates draw the same seeds in each.
        draws = Resamples(Resamples.draw(count, 1, count=resamples).groups, common)
        strengths = tested.strengths[there]
        longer = tested.lengths[there]
        sums = sufficient_statistics(longer[:, 0], longer[:, 1], strengths, codes, count)
        alone = Resamples(draws.groups, np.ones((resamples + 1, 1)))
        baselines += [
            (test, name, *interval(values))
            for name, values in alone.measure(sums[None]).items()
            if name.startswith(Metric.ACCURACY)
        ]
        for name, arm in outcome.arms.items():
            for k, tuning in enumerate(TUNINGS):
                scores = arm.pairs[k][:, there]
                sums = sufficient_statistics(
                    scores[..., 0], scores[..., 1], strengths, codes, count
                )
                found = draws.measure(sums)
                replicates[name, tuning, test] = found
                metrics += [
                    (name, tuning, test, metric, *interval(values))
                    for metric, values in found.items()
                    if not np.isnan(values[0])
                ]
    domain_of = dict(zip(tested.sources.tolist(), tested.domains.tolist(), strict=True))
    for contrast, (one, other) in CONTRASTS.items():
        for tuning in TUNINGS:
            gaps: dict[str, Mapping[str, np.ndarray]] = {}
            for test in tested.parts():
                of = SPECIALISTS[domain_of.get(test, test)] if other == OWN else other
                first, second = (replicates.get((arm, tuning, test)) for arm in (one, of))
                if first is not None and second is not None:
                    gaps[test] = {name: first[name] - second[name] for name in first}
            if gaps:
                sides = [gaps[domain] for domain in DOMAINS]
                gaps[BOTH] = {name: (sides[0][name] + sides[1][name]) / 2 for name in sides[0]}
            differences += [
                (contrast, tuning, test, metric, *interval(values))
                for test, gap in gaps.items()
                for metric, values in gap.items()
                if not np.isnan(values[0])
            ]
    return {
        "metrics": pd.DataFrame(metrics, columns=["arm", "tuning", "test", "metric", *ESTIMATE]),
        "differences": pd.DataFrame(
            differences, columns=["contrast", "tuning", "test", "metric", *ESTIMATE]
        ),
        "baselines": pd.DataFrame(baselines, columns=["test", "metric", *ESTIMATE]),
    }


def calibration_table(outcome: Outcome, threshold: float) -> pd.DataFrame:
    """Calibrations of the specialists, and what a threshold means before and after.

    Returns:
        One row a model: ``arm``, ``model``, ``scale``, ``centre``, and the shares of candidates
        whose σ(score) is below the threshold, ``raw`` and ``calibrated``.
    """
    level = float(np.log(threshold / (1 - threshold)))
    rows = [
        {
            "arm": name,
            "model": number,
            "scale": one.scale,
            "centre": one.centre,
            "raw": float((scores < level).mean()),
            "calibrated": float((one.apply(scores) < level).mean()),
        }
        for name in SPECIALISTS.values()
        for number, (one, scores) in enumerate(
            zip(outcome.arms[name].calibrations, outcome.arms[name].candidates, strict=True)
        )
    ]
    return pd.DataFrame(rows)


def most_groups(size: int, arms: Sequence[str]) -> dict[str, int]:
    """Most training groups of each domain that one of the arms takes."""
    return {domain: max(ARMS[arm].counts(size)[domain] for arm in arms) for domain in DOMAINS}

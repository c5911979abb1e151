"""The study of helpfulness and safety with full training: the tiny Llama in the simulator.

On a GPU the same trains SmolLM2 on human data. The learning rate is tuned for each arm: trained on
four fifths of its training groups, judged on the rest, then trained again on all of them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.data.sources.simulator.tasks import LOOKALIKE_GOALS, UNSAFE_GOALS
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.evaluation import calibration
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.settings import RateSettings, TopLayerSettings
from posttrain.studies.common.training import Recipe, many_runs, memoize, train
from posttrain.studies.tradeoff.data import (
    DOMAINS,
    TradeoffData,
    account_of,
    human_data,
    simulated_data,
)
from posttrain.studies.tradeoff.keys import DomainName
from posttrain.studies.tradeoff.outcome import (
    ARMS,
    CALIBRATED,
    ArmOutcome,
    Outcome,
    TestPairs,
    TradeoffSettings,
    most_groups,
)
from posttrain.training.collator import TrainingGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FullSettings(RateSettings, Recipe, TradeoffSettings):
    """Settings of the study with full training; defaults are those for simulated data."""

    groups: int = setting(
        9000, "Groups of each domain to simulate, those with prompts of candidates included."
    )
    sensitive: list[float] = setting(
        [0.2, 0.8],
        "Share of prompts that are or look unsafe, among groups of helpfulness and of safety.",
    )
    held_out_goals: list[str] = setting(
        ["poison a well", "clean a well"],
        "Goals that no model is trained on; prompts with candidates that are or look unsafe ask "
        "for these. None: all goals, though not the same prompts.",
    )
    prompts: int = setting(360, "Prompts with candidates to choose from.")
    responses: int = setting(8, "Candidates of each.")
    candidates_sensitive: float = setting(0.5, "Share of those prompts that are or look unsafe.")
    test_size: int = setting(1500, "Test pairs of each source, at most.")
    calibration_size: int = setting(500, "Held-out pairs of each domain to calibrate on, about.")
    test_share: float = setting(0.2, "Share of split groups kept for testing.")
    learning_rates: list[float] = setting([3e-3, 6e-3], "Peak learning rates to choose from.")
    tuning_seeds: int = setting(2, "Repetitions over which each learning rate is chosen.")
    auxiliary_weight: float = setting(1.0, "Weight of the auxiliary safety loss, in its arm.")
    processes: int = setting(1, "Arms trained at a time, each in a process of its own.")

    def __post_init__(self) -> None:
        super().__post_init__()
        TradeoffSettings.__post_init__(self)
        at_least_one(
            self, "groups", "prompts", "test_size", "calibration_size", "tuning_seeds", "processes"
        )
        known = UNSAFE_GOALS, LOOKALIKE_GOALS
        held = [sum(goal in kind for goal in self.held_out_goals) for kind in known]
        if sum(held) != len(self.held_out_goals) or (any(held) and not all(held)):
            raise UserError(
                f"held_out_goals needs one or more of {', '.join(UNSAFE_GOALS)} and one or more of "
                f"{', '.join(LOOKALIKE_GOALS)}, or nothing; not {self.held_out_goals}"
            )
        if len(self.sensitive) != len(DOMAINS):
            raise UserError(
                f"sensitive needs a share for each of {', '.join(DOMAINS)}, not {self.sensitive}"
            )


@dataclass(frozen=True)
class HumanFullSettings(TopLayerSettings, FullSettings):
    """The same with defaults for human data and SmolLM2; the simulator's settings do nothing."""

    arms: list[str] = setting(
        [arm for arm in ARMS if not ARMS[arm].auxiliary], "What models are trained on."
    )
    size: int = setting(2000, "Training groups of a model; one arm has twice as many.")
    pairs: int = setting(3000, "Most pairs of a source to train and test on.")
    max_tokens: int = setting(1024, "Longest prompt with a response; prompts are cut on the left.")
    calibration_size: int = setting(300, "Held-out pairs of each domain to calibrate on, about.")


def data_for(source: str, checkpoint: Path, settings: FullSettings) -> TradeoffData:
    """Draw or read what models are trained and tested on."""
    if source == SIMULATOR:
        return simulated_data(
            checkpoint,
            groups=settings.groups,
            sensitive=settings.sensitive,
            held_out_goals=settings.held_out_goals,
            prompts=settings.prompts,
            responses=settings.responses,
            candidates_sensitive=settings.candidates_sensitive,
            seed=settings.data_seed,
        )
    assert isinstance(settings, HumanFullSettings)
    return human_data(
        checkpoint,
        pairs=settings.pairs,
        max_tokens=settings.max_tokens,
        seed=settings.data_seed,
    )


@dataclass(frozen=True)
class Experiment:
    """What all runs share, with indices of groups to train on, to calibrate on and to test on."""

    checkpoint: Path
    world: TradeoffData
    training: Mapping[str, np.ndarray]
    calibration: Mapping[str, np.ndarray]
    test: np.ndarray
    settings: FullSettings

    @classmethod
    def prepare(cls, checkpoint: Path, world: TradeoffData, settings: FullSettings) -> "Experiment":
        """Split the groups; no split group is in two parts.

        Raises:
            UserError: If too few groups are left to train on, or labels are missing.
        """
        seed = settings.data_seed
        rest, test = split(world.ranked, test_fraction=settings.test_share, seed=seed)
        random = np.random.default_rng(seed)
        sources = world.sources[test]
        test = np.concatenate(
            [
                random.permutation(test[sources == name])[: settings.test_size]
                for name in dict.fromkeys(sources.tolist())
            ]
        )
        share = len(DOMAINS) * settings.calibration_size / len(rest)
        if share >= 1:
            raise UserError(
                f"calibration_size {settings.calibration_size} leaves none of {len(rest)} groups "
                "to train on; lower it or use more groups"
            )
        training, held = split([world.ranked[i] for i in rest], test_fraction=share, seed=seed + 1)
        parts: list[dict[str, np.ndarray]] = [
            {domain: part[world.domains[part] == domain] for domain in DOMAINS}
            for part in (rest[training], rest[held])
        ]
        experiment = cls(checkpoint, world, parts[0], parts[1], np.sort(test), settings)
        for domain, needed in most_groups(settings.size, settings.arms).items():
            available = len(experiment.training[domain])
            if needed > available:
                raise UserError(
                    f"the arms need {needed} training groups of {domain}, and there are "
                    f"{available}; lower size or use more groups"
                )
        if world.harmless is None and any(ARMS[arm].auxiliary for arm in settings.arms):
            raise UserError(
                "the auxiliary loss needs to know which responses are safe, which these data do "
                "not say; leave its arm out"
            )
        return experiment

    def chosen(self, arm: str, seed: int) -> np.ndarray:
        """Groups that an arm trains on, ``[groups]``; arms share as many as they can."""
        random = np.random.default_rng(seed)
        orders = {domain: random.permutation(self.training[domain]) for domain in DOMAINS}
        counts = ARMS[arm].counts(self.settings.size)
        return np.concatenate([orders[domain][: counts[domain]] for domain in DOMAINS])

    def scores(
        self, arm: str, groups: np.ndarray, scored: Sequence[Any], *, rate: float, seed: int
    ) -> np.ndarray:
        """Train on some groups, and score all responses of others, ``[responses]``."""
        auxiliary = ARMS[arm].auxiliary
        model, pad_token_id = train(
            self.checkpoint,
            [self._training_group(i, labels=auxiliary) for i in groups],
            LAYOUTS["exact"],
            self.settings,
            learning_rate=rate,
            seed=seed,
            auxiliary_weight=self.settings.auxiliary_weight if auxiliary else 0.0,
        )
        scores = reward_model.score(
            model, scored, pad_token_id=pad_token_id, layout=LAYOUTS["exact"]
        )
        return scores.numpy()

    def _training_group(self, i: int, *, labels: bool) -> TrainingGroup:
        plain = TrainingGroup.with_all_pairs(self.world.tokens[i])
        if (
            not labels
            or self.world.harmless is None
            or self.world.ranked[i].domain != DomainName.SAFETY
        ):
            return plain
        known = self.world.harmless[i]
        return TrainingGroup(
            plain.tokens, plain.pairs, tuple(known[place] for place in plain.tokens.places)
        )


def tune(experiment: Experiment, arm: str) -> list[tuple[float, float]]:
    """Accuracy at each learning rate on held-out groups of what an arm trains on.

    A mean over tuning seeds; NaN where there is only one rate and nothing to choose.
    """
    settings = experiment.settings
    rates = settings.learning_rates
    if len(rates) == 1:
        return [(rates[0], float("nan"))]
    accuracies = np.zeros((len(rates), settings.tuning_seeds))
    for seed in range(settings.tuning_seeds):
        groups = experiment.chosen(arm, seed)
        fitting, held = split(
            [experiment.world.ranked[i] for i in groups],
            test_fraction=settings.validation_share,
            seed=seed,
        )
        judges = [experiment.world.tokens[i] for i in groups[held]]
        for r, rate in enumerate(rates):
            scores = experiment.scores(arm, groups[fitting], judges, rate=rate, seed=seed)
            winners, losers = scores.reshape(-1, 2).T
            accuracies[r, seed] = np.mean((winners > losers) + 0.5 * (winners == losers))
    return list(zip(rates, accuracies.mean(axis=1).tolist(), strict=True))


def train_arm(experiment: Experiment, arm: str) -> tuple[ArmOutcome, list[tuple[float, float]]]:
    """Tune, train and test one arm: its results, and what :func:`tune` gives."""
    settings, world = experiment.settings, experiment.world
    domain = CALIBRATED.get(arm)
    calibrating = experiment.calibration[domain] if domain else np.array([], dtype=int)
    ranked = [world.tokens[i] for i in (*experiment.test, *calibrating)]
    pairs = 2 * len(experiment.test)
    with many_runs():
        rates = tune(experiment, arm)
        best = max(rates, key=lambda pair: np.nan_to_num(pair[1]))[0]

        def scored(rate: float, others: Sequence[Any]) -> np.ndarray:
            return np.stack(
                [
                    experiment.scores(
                        arm, experiment.chosen(arm, seed), [*ranked, *others], rate=rate, seed=seed
                    )
                    for seed in range(settings.seeds)
                ]
            )

        tuned = scored(best, world.candidates.tokens)
        common = settings.shared_learning_rate
        shared = tuned if best == common else scored(common, ())
    held = tuned[:, pairs : 2 * len(ranked)].reshape(settings.seeds, -1, 2)
    calibrations = [calibration.fit(*scores.T) for scores in held] if domain else []
    by_tuning = np.stack([tuned[:, :pairs], shared[:, :pairs]])
    outcome = ArmOutcome(
        by_tuning.reshape(2, settings.seeds, -1, 2), tuned[:, 2 * len(ranked) :], calibrations
    )
    logger.info("%s: done", arm)
    return outcome, rates


def run(experiment: Experiment, *, cache_dir: Path | None = None) -> Outcome:
    """Train and test all arms; ``cache_dir`` keeps finished ones.

    Raises:
        UserError: See :func:`.training.memoize` and :func:`.calibration.fit`.
    """
    settings = experiment.settings
    train_one = delayed(memoize(
        train_arm, cache_dir, settings=asdict(settings), data=experiment.world.account,
        ignore=["experiment"],
    ))  # fmt: skip
    # The longest first, so that no process is left alone with it at the end.
    order = sorted(settings.arms, key=lambda arm: -ARMS[arm].scale)
    results = Parallel(n_jobs=settings.processes)(train_one(experiment, arm) for arm in order)
    outcomes = dict(zip(order, results, strict=True))
    tuning = [
        {"arm": arm, "learning rate": rate, "accuracy": accuracy}
        for arm in settings.arms
        for rate, accuracy in outcomes[arm][1]
    ]
    tested = TestPairs.from_data(experiment.world, experiment.test)
    return Outcome(
        tested,
        experiment.world.candidates,
        {arm: outcomes[arm][0] for arm in settings.arms},
        pd.DataFrame(tuning),
        account_of(experiment.world)
        | {
            "test pairs": len(experiment.test),
            "clusters": tested.clusters,
            "calibration pairs": {name: len(part) for name, part in experiment.calibration.items()},
        },
    )

"""The study of edited responses with full training: the tiny Llama on simulated data.

On a GPU the same trains SmolLM2 on human data. The learning rate is tuned for each arm, size and
share: trained on four fifths of the training groups, judged on the rest, then trained again on all.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import PairKind
from posttrain.data.splits import split
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.groups import training_and_test
from posttrain.studies.common.settings import RateSettings, TopLayerSettings
from posttrain.studies.common.training import Recipe, many_runs, memoize, train
from posttrain.studies.edits.data import Chosen, EditGroups, choose, cost, training_groups
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.metrics import edit_metrics, length_baselines
from posttrain.studies.edits.outcome import ARMS, Cell, CellSettings, Outcome
from posttrain.training.collator import LossType, TrainingGroup


@dataclass(frozen=True)
class FullSettings(RateSettings, Recipe, CellSettings):
    """Settings of the study with full training."""

    edited_share: float = setting(1.0, "Share of simulated groups that may carry an edit.")
    test_size: int = setting(1500, "Test groups, at most.")
    tuning_seeds: int = setting(4, "Repetitions over which each learning rate is chosen.")

    def __post_init__(self) -> None:
        super().__post_init__()
        CellSettings.__post_init__(self)
        at_least_one(self, "test_size", "tuning_seeds", "processes")


@dataclass(frozen=True)
class HumanFullSettings(TopLayerSettings, FullSettings):
    """The same with defaults for human data."""

    arms: list[str] = setting(
        [ArmName.IGNORE, ArmName.ALL, ArmName.ONE_MORE, ArmName.TWO_MORE], "Ways of using edits."
    )
    sizes: list[int] = setting([300], "Training groups, without those that an arm adds.")
    shares: list[float] = setting([1.0], "Shares of their edits that are used.")
    seeds: int = setting(3, "Repetitions, each with other training groups.")
    test_size: int = setting(300, "Test groups, at most.")
    tuning_seeds: int = setting(1, "Repetitions over which each learning rate is chosen.")


@dataclass(frozen=True)
class Experiment:
    """What all training runs share; ``training`` and ``test`` are indices of groups."""

    checkpoint: Path
    groups: EditGroups
    training: np.ndarray
    test: np.ndarray
    settings: FullSettings

    @classmethod
    def prepare(cls, checkpoint: Path, groups: EditGroups, settings: FullSettings) -> "Experiment":
        """Split the groups."""
        training, test = training_and_test(
            groups.ranked,
            test_share=settings.test_share,
            test_size=settings.test_size,
            seed=settings.data_seed,
        )
        return cls(checkpoint, groups, training, test, settings)

    def order(self, seed: int) -> np.ndarray:
        """Training groups in the order in which a seed takes them."""
        return np.random.default_rng(seed).permutation(self.training)

    def steps(self, chosen: Chosen) -> int:
        """Optimiser steps of every arm of a cell.

        They are those of the recipe's epochs over the groups of an arm that adds two for each edit:
        otherwise such an arm would gain by training longer.
        """
        most = len(chosen.plain) + 3 * len(chosen.edited)
        return self.settings.epochs * math.ceil(most / self.settings.batch_size)

    def scores(
        self,
        training: Sequence[TrainingGroup],
        judged: np.ndarray,
        *,
        loss_type: LossType,
        learning_rate: float,
        seed: int,
        steps: int,
    ) -> np.ndarray:
        """Train, and score all responses of some groups in rows of their own, ``[responses]``."""
        model, pad_token_id = train(
            self.checkpoint,
            training,
            LAYOUTS["exact"],
            self.settings,
            loss_type=loss_type,
            learning_rate=learning_rate,
            seed=seed,
            steps=steps,
        )
        groups = [self.groups.tokens[i] for i in judged]
        return reward_model.score(model, groups, pad_token_id=pad_token_id).numpy()


def tune(experiment: Experiment, cell: Cell) -> list[tuple[float, float]]:
    """Accuracy on chosen > rejected of held-out training groups at each learning rate.

    Annotators' choices judge all arms, those that also train on edits too. It is a mean over tuning
    seeds, and NaN where there is only one rate and nothing to choose.
    """
    settings, arm = experiment.settings, ARMS[cell.arm]
    rates = settings.learning_rates
    if len(rates) == 1:
        return [(rates[0], float("nan"))]
    accuracies = np.zeros((len(rates), settings.tuning_seeds))
    for seed in range(settings.tuning_seeds):
        order = experiment.order(seed)
        # Not from the groups that arms add: all arms are judged by the same ones.
        base, rest = order[: cell.size], order[cell.size :]
        fitting, held = split(
            [experiment.groups.ranked[i] for i in base],
            test_fraction=settings.validation_share,
            seed=seed,
        )
        apart = {experiment.groups.ranked[i].cluster_id for i in base[held]}
        added = [i for i in rest if experiment.groups.ranked[i].cluster_id not in apart]
        chosen = choose(
            np.array([*base[fitting], *added]),
            experiment.groups.edits,
            arm,
            len(fitting),
            cell.share,
        )
        training = training_groups(experiment.groups, arm, chosen)
        pairs = experiment.groups.pairs(base[held])
        for r, rate in enumerate(rates):
            scores = experiment.scores(
                training,
                base[held],
                loss_type=arm.loss_type,
                learning_rate=rate,
                seed=seed,
                steps=experiment.steps(chosen),
            )
            sums = pairs.sums(scores).sum(axis=0)
            accuracies[r, seed] = edit_metrics(sums)[PairKind.RATED]
    return list(zip(rates, accuracies.mean(axis=1).tolist(), strict=True))


def train_and_test(
    experiment: Experiment, cell: Cell, learning_rate: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Train one cell with every seed.

    Returns:
        Sums of the test pairs, ``[seeds, test groups, COLUMNS]``, and the mean costs of a run
        (see :func:`.edits.data.cost`).
    """
    arm, test = ARMS[cell.arm], experiment.test
    pairs = experiment.groups.pairs(test)
    sums, costs = [], []
    for seed in range(experiment.settings.seeds):
        chosen = choose(experiment.order(seed), experiment.groups.edits, arm, cell.size, cell.share)
        training = training_groups(experiment.groups, arm, chosen)
        scores = experiment.scores(
            training,
            test,
            loss_type=arm.loss_type,
            learning_rate=learning_rate,
            seed=seed,
            steps=experiment.steps(chosen),
        )
        sums.append(pairs.sums(scores))
        costs.append(cost(experiment.groups, arm, chosen, training))
    return np.array(sums), pd.DataFrame(costs).mean().to_dict()


@dataclass(frozen=True)
class CellOutcome:
    """What training one cell gives."""

    #: Of the test pairs at the tuned learning rate, ``[seeds, test groups, COLUMNS]``.
    sums: np.ndarray
    shared: np.ndarray  #: The same at the shared learning rate.
    costs: dict[str, float]  #: Mean costs of a run (see :func:`.edits.data.cost`).
    rates: list[tuple[float, float]]  #: What :func:`tune` gives.


def train_cell(experiment: Experiment, cell: Cell) -> CellOutcome:
    """Tune, train and test one cell."""
    with many_runs():
        rates = tune(experiment, cell)
        best = max(rates, key=lambda pair: np.nan_to_num(pair[1]))[0]
        sums, costs = train_and_test(experiment, cell, best)
        common = experiment.settings.shared_learning_rate
        shared = sums if best == common else train_and_test(experiment, cell, common)[0]
    return CellOutcome(sums, shared, costs, rates)


def run(experiment: Experiment, *, cache_dir: Path | None = None) -> tuple[Outcome, pd.DataFrame]:
    """Train and test all cells; ``cache_dir`` keeps finished ones.

    Returns:
        The outcome, and the accuracies of :func:`tune`: ``arm``, ``size``, ``share``, ``learning
        rate``, ``accuracy``.

    Raises:
        UserError: If there are too few training groups.
    """
    settings = experiment.settings
    # Before hours of training, not after.
    for seed, cell in product(range(settings.seeds), settings.cells):
        choose(
            experiment.order(seed), experiment.groups.edits, ARMS[cell.arm], cell.size, cell.share
        )
    train_one = delayed(memoize(
        train_cell, cache_dir, settings=asdict(settings), data=experiment.groups.account,
        ignore=["experiment"],
    ))  # fmt: skip
    # The longest first, so that no process is left alone with one at the end. Ignoring edits is
    # trained at every share, because how many steps all arms take depends on the edits.
    trained = sorted(settings.cells, key=lambda cell: (-cell.size, str(cell)))
    parallel = Parallel(n_jobs=settings.processes)
    outcomes = dict(
        zip(trained, parallel(train_one(experiment, cell) for cell in trained), strict=True)
    )
    tuning = [
        asdict(cell) | {"learning rate": rate, "accuracy": accuracy}
        for cell in settings.cells
        for rate, accuracy in outcomes[cell].rates
    ]
    groups, test = experiment.groups, experiment.test
    pairs = groups.pairs(test)
    account = {
        "test groups": len(test),
        "test groups with an edit": int((groups.edits[test] >= 0).sum()),
        "clusters": pairs.group_count,
    }
    outcome = Outcome(
        {cell: outcomes[cell].sums for cell in settings.cells},
        {cell: outcomes[cell].shared for cell in settings.cells},
        {cell: outcomes[cell].costs for cell in settings.cells},
        length_baselines(pairs, groups.lengths(test)),
        account,
    )
    return outcome, pd.DataFrame(tuning)

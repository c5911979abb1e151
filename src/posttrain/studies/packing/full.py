"""The packing study: is one row with all responses the same as separate rows, and when is it not?

Reward models are trained with every layout of :data:`.packing.outcome.ARMS` and tested with every
layout of :data:`.packing.outcome.TESTS`: on simulated data the tiny Llama in full, on human data
the top layers of SmolLM2. What rows are like before training is the subject of
:mod:`.packing.rows`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from transformers import PreTrainedModel

from posttrain.config.fields import at_least_one, setting
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.rows.layout import Layout
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.groups import DataSettings, Prepared, divide, load_groups
from posttrain.studies.common.training import Recipe, train
from posttrain.studies.packing.keys import RowName
from posttrain.studies.packing.outcome import (
    ARMS,
    COLUMNS,
    TESTS,
    Outcome,
    both_orders,
    order_sums,
    own_test,
)
from posttrain.training.collator import TrainingGroup


@dataclass(frozen=True)
class PackingSettings(Recipe, DataSettings):
    """Settings of the packing study; defaults are those for simulated data."""

    arms: list[str] = setting(list(ARMS), "Layouts to train with.")
    tests: list[str] = setting(list(TESTS), "Layouts to test with.")
    size: int = setting(3000, "Training groups.")
    test_size: int = setting(1500, "Test groups, at most.")
    seeds: int = setting(20, "Repetitions, each with other training groups, order and score head.")
    learning_rates: list[float] = setting([1e-3, 3e-3, 1e-2], "Peak learning rates to choose from.")
    tuning_seeds: int = setting(3, "Repetitions over which each arm's learning rate is chosen.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    validation_share: float = setting(0.2, "Share of training groups that judge learning rates.")

    def __post_init__(self) -> None:
        at_least_one(self, "size", "test_size", "seeds", "tuning_seeds", "resamples")
        if not self.learning_rates:
            raise UserError("learning_rates needs at least one value")
        _check_names("arms", self.arms, ARMS, {RowName.SEPARATE})
        _check_names("tests", self.tests, TESTS, {RowName.SEPARATE, *map(own_test, self.arms)})


def _check_names(
    setting_name: str, names: Sequence[str], known: Mapping[str, Layout], needed: set[str]
) -> None:
    if not needed <= set(names) <= set(known) or len(names) > len(set(names)):
        raise UserError(
            f"{setting_name} must contain {', '.join(sorted(needed))} and only names of "
            f"{', '.join(known)}, each once; got {', '.join(names)}"
        )


@dataclass(frozen=True)
class HumanPackingSettings(PackingSettings):
    """The same with defaults for human data: SmolLM2's top layers, which a CPU can train."""

    arms: list[str] = setting(
        [RowName.SEPARATE, RowName.EXACT, RowName.CAUSAL, RowName.CAUSAL_RANKED],
        "Layouts to train with.",
    )
    tests: list[str] = setting([RowName.SEPARATE, RowName.CAUSAL], "Layouts to test with.")
    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    batch_size: int = setting(16, "Groups per step.")
    size: int = setting(600, "Training groups.")
    test_size: int = setting(300, "Test groups, at most.")
    seeds: int = setting(3, "Repetitions, each with other training groups, order and score head.")
    learning_rates: list[float] = setting([1e-4, 3e-4], "Peak learning rates to choose from.")
    tuning_seeds: int = setting(1, "Repetitions over which each arm's learning rate is chosen.")


def prepare(source: str, checkpoint: Path, settings: PackingSettings) -> Prepared:
    """Load or simulate groups, tokenise and split them.

    Raises:
        UserError: If there are fewer training groups than ``size``.
    """
    return divide(load_groups(source, checkpoint, settings), settings, size=settings.size)


def train_and_score(
    checkpoint: Path,
    prepared: Prepared,
    settings: PackingSettings,
    *,
    arm: str,
    learning_rate: float,
    seed: int,
    training: np.ndarray,
    judged: np.ndarray,
    tests: Sequence[str],
) -> np.ndarray:
    """Train on the groups of some indices, and score those ``judged`` in some test layouts.

    Returns:
        The differences of :func:`score_differences`, ``[tests, 2, groups]``.
    """
    model, pad_token_id = train(
        checkpoint,
        [TrainingGroup.with_all_pairs(prepared.tokens[i]) for i in training],
        ARMS[arm],
        settings,
        learning_rate=learning_rate,
        seed=seed,
    )
    groups = [prepared.tokens[i] for i in judged]
    return np.array([score_differences(model, groups, TESTS[t], pad_token_id) for t in tests])


#: A function with the arguments of :func:`train_and_score`.
Scores = Callable[..., np.ndarray]


def tune(
    checkpoint: Path,
    prepared: Prepared,
    settings: PackingSettings,
    scores: Scores = train_and_score,
) -> pd.DataFrame:
    """Accuracy of each arm and learning rate on held-out training groups, in the arm's own layout.

    Returns:
        Columns ``trained``, ``learning rate``, ``accuracy`` (mean over tuning seeds; NaN where
        there is only one learning rate and nothing to choose).
    """

    def judge(arm: str, rate: float, seed: int) -> float:
        subset = _subset(prepared, seed, settings)
        fitting, validation = split(
            [prepared.ranked[i] for i in subset], test_fraction=settings.validation_share, seed=seed
        )
        differences = scores(
            checkpoint,
            prepared,
            settings,
            arm=arm,
            learning_rate=rate,
            seed=seed,
            training=subset[fitting],
            judged=subset[validation],
            tests=[own_test(arm)],
        )
        return np.mean((differences > 0) + 0.5 * (differences == 0))

    cells = list(product(settings.arms, settings.learning_rates))
    seeds = range(settings.tuning_seeds if len(settings.learning_rates) > 1 else 0)
    parallel = Parallel(n_jobs=settings.processes)
    found = parallel(delayed(judge)(*cell, seed) for cell in cells for seed in seeds)
    accuracies = np.reshape(found, (len(cells), len(seeds)))
    means = accuracies.mean(axis=1) if len(seeds) else np.full(len(cells), np.nan)
    rows = [(*cell, float(mean)) for cell, mean in zip(cells, means, strict=True)]
    return pd.DataFrame(rows, columns=["trained", "learning rate", "accuracy"])


def _subset(prepared: Prepared, seed: int, settings: PackingSettings) -> np.ndarray:
    return np.random.default_rng(seed).permutation(prepared.training)[: settings.size]


def train_and_test(
    checkpoint: Path,
    prepared: Prepared,
    rates: Mapping[str, float],
    settings: PackingSettings,
    scores: Scores = train_and_score,
) -> Outcome:
    """Train every arm with every seed and test it in every layout."""
    codes = prepared.test_codes
    group_count = int(codes.max()) + 1
    shape = (len(settings.arms), len(settings.tests), settings.seeds, group_count, COLUMNS)
    sums = np.zeros(shape)

    def trained(seed: int, arm: str) -> np.ndarray:
        return scores(
            checkpoint,
            prepared,
            settings,
            arm=arm,
            learning_rate=rates[arm],
            seed=seed,
            training=_subset(prepared, seed, settings),
            judged=prepared.test,
            tests=settings.tests,
        )

    cells = list(product(range(settings.seeds), range(len(settings.arms))))
    parallel = Parallel(n_jobs=settings.processes)
    found = parallel(delayed(trained)(seed, settings.arms[a]) for seed, a in cells)
    for (seed, a), differences in zip(cells, found, strict=True):
        alone = differences[settings.tests.index(RowName.SEPARATE), 0]
        for t, (first, last) in enumerate(differences):
            sums[a, t, seed] = order_sums(first, last, alone, codes, group_count)
    return Outcome(tuple(settings.arms), tuple(settings.tests), sums)


def score_differences(
    model: PreTrainedModel, groups: Sequence[TokenizedGroup], layout: Layout, pad_token_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score differences, chosen minus rejected, with the responses as ranked and in reverse.

    Returns:
        With the chosen response first, and with it last, each ``[groups]``; the same array twice
        for an exact layout, where order means nothing.
    """

    def scores(given: Sequence[TokenizedGroup]) -> np.ndarray:
        return reward_model.score(model, given, pad_token_id=pad_token_id, layout=layout).numpy()

    sizes = [len(group.responses) for group in groups]
    backwards = None
    if not layout.is_exact:
        backwards = scores([group.in_order(range(len(group.responses))[::-1]) for group in groups])
    return both_orders(scores(groups), backwards, sizes)

"""The margin study with full training: the tiny Llama on simulated data, SmolLM2 on human data.

Training pairs and test pairs never share a split group. The learning rate is tuned per arm: trained
on four fifths of the training groups, judged on the rest, then trained again on all of them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.sources.simulator.annotators import reachable_accuracy
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.evaluation.metrics import COLUMNS, Metric, sufficient_statistics
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.groups import DataSettings, Prepared, divide, load_groups
from posttrain.studies.common.settings import RateSettings, TopLayerSettings
from posttrain.studies.common.training import Recipe, many_runs, memoize, train
from posttrain.studies.margin.outcome import ARMS, Arm, Outcome, RatedPairs, length_baseline
from posttrain.training.collator import TrainingGroup, TrainingPair


@dataclass(frozen=True)
class FullSettings(RateSettings, Recipe, DataSettings):
    """Settings of the study with full training; defaults are those for simulated data."""

    edited_share: float = setting(0.0, "Share of simulated groups with an edit, which is ignored.")
    sizes: list[int] = setting([250, 1000, 4000], "Numbers of annotated training pairs.")
    test_size: int = setting(4000, "Test pairs, at most.")
    seeds: int = setting(3, "Repetitions, each with other subsets, data order and score head.")
    learning_rates: list[float] = setting([1e-3, 3e-3, 6e-3], "Peak learning rates to choose from.")

    def __post_init__(self) -> None:
        at_least_one(self, "test_size", "seeds", "resamples")
        if not self.sizes or min(self.sizes) < 1:
            raise UserError(f"sizes needs values of at least 1, not {self.sizes}")
        super().__post_init__()


@dataclass(frozen=True)
class HumanFullSettings(TopLayerSettings, FullSettings):
    """The same with defaults for human data."""

    sizes: list[int] = setting([300], "Numbers of annotated training pairs.")
    test_size: int = setting(300, "Test pairs, at most.")


def prepare(source: str, checkpoint: Path, settings: FullSettings) -> Prepared:
    """Load or simulate rated pairs, tokenise and split them.

    Raises:
        UserError: If a pair has no strength, or the largest size exceeds the training part.
    """
    # Only chosen > rejected is rated; an edited response takes no part.
    loaded = load_groups(source, checkpoint, settings, edits=False)
    RatedPairs.from_groups(loaded.ranked)  # refuses groups that nobody rated
    return divide(loaded, settings, size=max(settings.sizes), setting="sizes", counted="test pairs")


@many_runs()
def run(
    checkpoint: Path, settings: FullSettings, prepared: Prepared, *, cache_dir: Path | None = None
) -> Outcome:
    """Train and test all arms; ``cache_dir`` keeps finished training runs.

    Raises:
        UserError: If Llama 3's filter leaves no pair to train on, or finished runs of code that is
            not committed are to be kept.
    """
    scores: Scores = memoize(
        train_and_score, cache_dir, settings=asdict(settings), data=prepared.account,
        ignore=["checkpoint", "prepared", "settings"],
    )  # fmt: skip
    test = RatedPairs.from_groups([prepared.ranked[i] for i in prepared.test])
    rates = settings.learning_rates
    shape = (len(ARMS), len(settings.sizes), settings.seeds)
    sums = np.zeros((*shape, len(rates), test.group_count, COLUMNS))
    tuned = np.zeros((*shape, test.group_count), dtype=int)
    examples = np.zeros((len(ARMS), len(rates), 2, len(test.groups)))

    def cell(a: int, s: int, seed: int) -> tuple[int, list[np.ndarray]]:
        """Index of the tuned learning rate, and the test scores at each."""
        order = np.random.default_rng(seed).permutation(prepared.training)
        subset = order[: settings.sizes[s]]
        best = _tune(checkpoint, prepared, ARMS[a], subset, seed, settings, scores)
        return best, [
            scores(checkpoint, prepared, ARMS[a], subset, prepared.test, rate, seed, settings)
            for rate in rates
        ]

    cells = list(np.ndindex(*shape))
    parallel = Parallel(n_jobs=settings.processes)
    for place, (best, scored) in zip(
        cells, parallel(delayed(cell)(*place) for place in cells), strict=True
    ):
        tuned[place] = best
        for g, (winners, losers) in enumerate(scored):
            sums[(*place, g)] = sufficient_statistics(
                winners, losers, test.strengths, test.codes, test.group_count
            )
        a, s, seed = place
        if seed == 0 and s == len(settings.sizes) - 1:
            examples[a] = scored
    return Outcome(
        grid=tuple(rates),
        grid_name="learning rate",
        shared=rates.index(settings.shared_learning_rate),
        sizes=tuple(settings.sizes),
        sums=sums,
        tuned=tuned,
        examples=examples,
        example_codes=test.codes,
        baselines=_baselines(prepared, test, settings),
    )


def train_and_score(
    checkpoint: Path,
    prepared: Prepared,
    arm: Arm,
    training: np.ndarray,
    test: np.ndarray,
    learning_rate: float,
    seed: int,
    settings: FullSettings,
) -> np.ndarray:
    """Train on some groups and score others: chosen and rejected of each, ``[2, groups]``."""
    strengths = [prepared.ranked[i].strength or 0 for i in training]
    groups = [
        TrainingGroup(prepared.tokens[i], (TrainingPair(0, 1, margin, weight),))
        for i, margin, weight in zip(
            training, arm.margins(strengths).tolist(), arm.weights(strengths).tolist(), strict=True
        )
    ]
    model, pad_token_id = train(
        checkpoint, groups, LAYOUTS["separate"], settings,
        learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    tested = [prepared.tokens[i] for i in test]
    # Small batches of a tiny model stay in the processor's cache.
    scores = reward_model.score(model, tested, pad_token_id=pad_token_id, batch_tokens=2048)
    return scores.unflatten(0, (-1, 2)).T.numpy()


#: A function with the arguments of :func:`train_and_score`.
Scores = Callable[..., np.ndarray]


def _baselines(prepared: Prepared, test: RatedPairs, settings: FullSettings) -> pd.DataFrame:
    """Accuracy by length, and where the gold quality is known, what can be reached."""
    by_length = length_baseline(test, resamples=settings.resamples)
    if prepared.gold is None:
        return by_length
    gold = [prepared.gold[i] for i in prepared.test]
    reachable = pd.DataFrame(
        [
            (
                "reachable",
                Metric.ACCURACY if name == "all" else f"accuracy {name}",
                value,
                value,
                value,
            )
            for name, value in reachable_accuracy([best - worst for best, worst in gold]).items()
        ],
        columns=["baseline", "metric", "estimate", "low", "high"],
    )
    return pd.concat([by_length, reachable], ignore_index=True)


def _tune(
    checkpoint: Path,
    prepared: Prepared,
    arm: Arm,
    subset: np.ndarray,
    seed: int,
    settings: FullSettings,
    scores: Scores,
) -> int:
    """Index of the learning rate with the best accuracy on held-out training groups."""
    if len(settings.learning_rates) == 1:
        return 0
    ranked = [prepared.ranked[i] for i in subset]
    fitting, validation = split(ranked, test_fraction=settings.validation_share, seed=seed)
    accuracies = []
    for learning_rate in settings.learning_rates:
        winners, losers = scores(
            checkpoint, prepared, arm, subset[fitting], subset[validation],
            learning_rate, seed, settings,
        )  # fmt: skip
        accuracies.append(np.mean((winners > losers) + 0.5 * (winners == losers)))
    return int(np.argmax(accuracies))

"""The margin study on simulated data: the tiny Llama, trained in full.

Training groups and test groups never share a prompt. The learning rate is tuned per arm: trained on
four fifths of the training groups, judged on the rest, then trained again on all of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from posttrain import reward_model
from posttrain.evaluation import COLUMNS, sums_by_group
from posttrain.preferences import split
from posttrain.rows import LAYOUTS
from posttrain.settings import setting
from posttrain.sources.simulator import SimulatedGroup, reachable_accuracy, simulate
from posttrain.studies.margin_outcome import ARMS, Arm, Outcome, RatedPairs, length_baseline
from posttrain.studies.training import Recipe, many_runs, train
from posttrain.tokenization import TokenizedGroup, tokenize_group
from posttrain.training_data import TrainingGroup, TrainingPair


@dataclass(frozen=True)
class FullSettings:
    """Settings of the study with full training."""

    sizes: list[int] = setting([250, 1000, 4000], "Numbers of annotated training pairs.")
    seeds: int = setting(3, "Repetitions, each with other subsets, data order and score head.")
    learning_rates: list[float] = setting(
        [1e-3, 3e-3, 6e-3], "Peak learning rates to choose from (cosine schedule, one epoch)."
    )
    shared_learning_rate: float = setting(3e-3, "The learning rate that all arms share.")
    batch_size: int = setting(32, "Pairs per step.")
    groups: int = setting(8000, "Groups to simulate, for training and test together.")
    test_share: float = setting(0.3, "Share of prompts kept for testing.")
    validation_share: float = setting(0.2, "Share of training prompts that judge learning rates.")
    data_seed: int = setting(1, "Seeds the simulator and the split.")
    resamples: int = setting(1000, "Bootstrap replicates.")


@dataclass(frozen=True)
class Prepared:
    """Simulated groups, tokenised, with the training and the test part."""

    simulated: list[SimulatedGroup]
    tokens: list[TokenizedGroup]
    training: np.ndarray
    test: np.ndarray


def prepare(checkpoint: Path, settings: FullSettings) -> Prepared:
    """Simulate, split by prompt and tokenise.

    Raises:
        ValueError: If the largest size exceeds the training part.
    """
    simulated = simulate(settings.groups, seed=settings.data_seed)
    ranked = [group.ranked for group in simulated]
    training, test = split(ranked, test_fraction=settings.test_share, seed=settings.data_seed)
    if max(settings.sizes) > len(training):
        raise ValueError(
            f"size {max(settings.sizes)} exceeds the {len(training)} training groups; lower sizes "
            "or raise groups"
        )
    _, tokenizer = reward_model.load(checkpoint)
    return Prepared(
        simulated, [tokenize_group(tokenizer, group) for group in ranked], training, test
    )


def run(checkpoint: Path, settings: FullSettings, prepared: Prepared | None = None) -> Outcome:
    """Train and test all arms.

    Raises:
        ValueError: If the shared learning rate is not one of the learning rates.
    """
    if settings.shared_learning_rate not in settings.learning_rates:
        raise ValueError(
            f"shared_learning_rate {settings.shared_learning_rate} is not one of learning_rates "
            f"{settings.learning_rates}"
        )
    prepared = prepared or prepare(checkpoint, settings)
    with many_runs():
        return _run(checkpoint, settings, prepared)


def _run(checkpoint: Path, settings: FullSettings, prepared: Prepared) -> Outcome:
    test = RatedPairs.of([prepared.simulated[i].ranked for i in prepared.test])
    grid = len(settings.learning_rates)
    shape = (len(ARMS), len(settings.sizes), settings.seeds)
    sums = np.zeros((*shape, grid, test.group_count, COLUMNS))
    tuned = np.zeros((*shape, test.group_count), dtype=int)
    examples = np.zeros((len(ARMS), grid, 2, len(test.groups)))
    for seed in range(settings.seeds):
        order = np.random.default_rng(seed).permutation(prepared.training)
        for s, size in enumerate(settings.sizes):
            subset = order[:size]
            for a, arm in enumerate(ARMS):
                best = _tune(checkpoint, prepared, arm, subset, seed, settings)
                tuned[a, s, seed] = best
                for g in range(grid):
                    scored = train_and_score(
                        checkpoint, prepared, arm, subset, prepared.test,
                        settings.learning_rates[g], seed, settings,
                    )  # fmt: skip
                    sums[a, s, seed, g] = sums_by_group(
                        scored[0], scored[1], test.strengths, test.codes, test.group_count
                    )
                    if seed == 0 and size == settings.sizes[-1]:
                        examples[a, g] = scored
    reachable = pd.DataFrame(
        [
            ("reachable", "accuracy" if name == "all" else f"accuracy {name}", value, value, value)
            for name, value in reachable_accuracy(
                [prepared.simulated[i] for i in prepared.test]
            ).items()
        ],
        columns=["baseline", "metric", "estimate", "low", "high"],
    )
    return Outcome(
        grid=tuple(settings.learning_rates),
        grid_name="learning rate",
        shared=settings.learning_rates.index(settings.shared_learning_rate),
        sizes=tuple(settings.sizes),
        sums=sums,
        tuned=tuned,
        examples=examples,
        example_codes=test.codes,
        baselines=pd.concat(
            [length_baseline(test, resamples=settings.resamples), reachable], ignore_index=True
        ),
        training={"test pairs": len(test.groups)},
    )


def _tune(
    checkpoint: Path,
    prepared: Prepared,
    arm: Arm,
    subset: np.ndarray,
    seed: int,
    settings: FullSettings,
) -> int:
    """Index of the learning rate with the best accuracy on held-out training prompts."""
    ranked = [prepared.simulated[i].ranked for i in subset]
    fitting, validation = split(ranked, test_fraction=settings.validation_share, seed=seed)
    accuracies = []
    for learning_rate in settings.learning_rates:
        winners, losers = train_and_score(
            checkpoint, prepared, arm, subset[fitting], subset[validation],
            learning_rate, seed, settings,
        )  # fmt: skip
        accuracies.append(np.mean((winners > losers) + 0.5 * (winners == losers)))
    return int(np.argmax(accuracies))


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
    """Train a reward model on some groups and score others.

    Returns:
        Scores of chosen and rejected of each test group, shape ``[2, groups]``.
    """
    strengths = [prepared.simulated[i].ranked.strength or 0 for i in training]
    groups = [
        TrainingGroup(prepared.tokens[i], (TrainingPair(0, 1, margin, weight),))
        for i, margin, weight in zip(
            training, arm.margins(strengths).tolist(), arm.weights(strengths).tolist(), strict=True
        )
    ]
    model, pad_token_id = train(
        checkpoint, groups, LAYOUTS["separate"], Recipe(batch_size=settings.batch_size),
        learning_rate=learning_rate, seed=seed,
    )  # fmt: skip
    tested = [prepared.tokens[i] for i in test]
    scores = reward_model.score(model, tested, pad_token_id=pad_token_id)
    return scores.unflatten(0, (-1, 2)).T.numpy()

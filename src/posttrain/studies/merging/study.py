"""The merging study: does a reward model learn as well from merged groups as from shuffled pairs?

InstructGPT (Ouyang et al., 2022, section 3.5) trained on all comparisons of a prompt as one batch
element. It found that when each was shuffled in as a data point of its own, "a single pass over the
dataset caused the reward model to overfit", because a response of K is then seen K − 1 times.

Here are two ways to train on the same pairs with steps of as many pairs. *Pairs one by one*: each
pair is a data point, all are shuffled. *Merged*: all pairs of a prompt together, each response
computed once (:mod:`.training.merging`). The objective of a pass is the same sum; the order differs
and with it which pairs meet in a step: a step of merged groups holds few prompts.

Expected, before the first run:

1. After one pass merged groups are somewhat behind in accuracy on held-out prompts, by less than
   two points: steps of correlated pairs are worth fewer pairs, and there are as many steps.
2. After three passes pairs one by one have lost in log-likelihood against their first pass, and
   merged groups have, too: what overfits is how often a response is trained on, and that is the
   same in both. So InstructGPT's advantage is not found.
3. At the same number of tokens merged groups are far ahead, because a pass costs a fraction.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.sources.simulator.annotators import SIMULATOR, compare, draw_candidates
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.metrics import COLUMNS, Metric, sufficient_statistics
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.groups import (
    DataSettings,
    Prepared,
    checkpoint_for,
    divide,
    load_groups,
)
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable, difference, known
from posttrain.studies.common.training import Recipe, many_runs, memoize, train
from posttrain.studies.merging.keys import Cost, Way
from posttrain.training.collator import TrainingGroup, TrainingPair, training_set
from posttrain.training.merging import Merging


@dataclass(frozen=True)
class MergingSettings(Recipe, DataSettings):
    """Settings of the study; defaults are those for simulated data."""

    groups: int = setting(600, "Prompts to simulate; human data is taken whole.")
    responses: int = setting(6, "Responses to each of them, every two of which are compared.")
    size: int = setting(3000, "Training records; whole prompts are taken until they are so many.")
    test_size: int = setting(1500, "Test records, at most.")
    pairs_per_step: int = setting(64, "Pairs of a step.")
    passes: list[int] = setting([1, 3], "Passes over the training pairs, each a run of its own.")
    seeds: int = setting(5, "Repetitions, each with other prompts, order and score head.")
    learning_rates: list[float] = setting([1e-3, 3e-3, 1e-2], "Peak learning rates to choose from.")
    tuning_seeds: int = setting(1, "Repetitions over which each arm's learning rate is chosen.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    validation_share: float = setting(0.2, "Share of training groups that judge learning rates.")

    def __post_init__(self) -> None:
        at_least_one(
            self, "size", "test_size", "seeds", "tuning_seeds", "pairs_per_step", "resamples"
        )
        if not self.learning_rates or not self.passes or min(self.passes) < 1:
            raise UserError("give learning_rates, and passes of 1 or more")


@dataclass(frozen=True)
class HumanMergingSettings(MergingSettings):
    """The same with defaults for human data: SmolLM2's top layers, which a CPU can train."""

    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    size: int = setting(600, "Training records; whole prompts are taken until they are so many.")
    test_size: int = setting(300, "Test records, at most.")
    seeds: int = setting(3, "Repetitions, each with other prompts, order and score head.")
    learning_rates: list[float] = setting([1e-4, 3e-4], "Peak learning rates to choose from.")


def groups_of(prepared: Prepared, indices: np.ndarray, way: str) -> list[TrainingGroup]:
    """What an arm trains on: all pairs of some records, alone or with those of their record."""
    groups = [TrainingGroup.with_all_pairs(prepared.tokens[k]) for k in indices]
    if way == Way.MERGED:
        return groups
    return [
        TrainingGroup(group.tokens.in_order([pair.winner, pair.loser]), (TrainingPair(0, 1),))
        for group in groups
        for pair in group.pairs
    ]


def merging_of(settings: MergingSettings, way: str) -> Merging | None:
    """How an arm merges what it trains on."""
    if way == Way.PAIRS:
        return None
    return Merging(max_tokens=4096, max_pairs=settings.pairs_per_step)


def train_and_score(
    checkpoint: Path,
    prepared: Prepared,
    settings: MergingSettings,
    *,
    way: str,
    passes: int,
    learning_rate: float,
    seed: int,
    training: np.ndarray,
    judged: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    """Train on some records and score the rated pair of others.

    Returns:
        Scores of chosen and rejected, ``[2, records]``, and what :class:`.keys.Cost` names: tokens
        computed in all passes, padding aside; optimiser steps; and seconds of training.
    """
    groups, merging = groups_of(prepared, training, way), merging_of(settings, way)
    rows = training_set(groups, merging)
    began = time.perf_counter()
    model, pad_token_id = train(
        checkpoint,
        groups,
        LAYOUTS["exact"],
        settings,
        learning_rate=learning_rate,
        seed=seed,
        merging=merging,
        pairs_per_step=settings.pairs_per_step,
        epochs=passes,
    )
    pairs = sum(row["pair_count"] for row in rows)
    costs: dict[str, float] = {
        Cost.TOKENS: passes * sum(row["total"] for row in rows),
        Cost.STEPS: passes * -(-pairs // settings.pairs_per_step),
        Cost.SECONDS: time.perf_counter() - began,
    }
    rated = [prepared.tokens[k] for k in judged]
    rated = [group.in_order(range(len(group.responses))[-2:]) for group in rated]
    scores = reward_model.score(model, rated, pad_token_id=pad_token_id, layout=LAYOUTS["exact"])
    return scores.unflatten(0, (-1, 2)).T.numpy(), costs


#: A function with the arguments of :func:`train_and_score`.
Scores = Callable[..., tuple[np.ndarray, dict[str, float]]]


def prepare(source: str, checkpoint: Path, settings: MergingSettings) -> Prepared:
    """Load or simulate groups, tokenise and split them.

    Raises:
        UserError: If there are fewer training records than ``size``.
    """
    simulated = None
    if source == SIMULATOR:
        drawn = draw_candidates(settings.groups, settings.responses, seed=settings.data_seed)
        simulated = compare(drawn, seed=settings.data_seed)
    loaded = load_groups(source, checkpoint, settings, simulated=simulated)
    return divide(loaded, settings, size=settings.size)


def subset(prepared: Prepared, seed: int, size: int) -> np.ndarray:
    """Training records of whole prompts in random order, until they are at least ``size``."""
    by_prompt: dict[Any, list[int]] = {}
    for k in prepared.training.tolist():
        by_prompt.setdefault(prepared.ranked[k].prompt, []).append(k)
    prompts = list(by_prompt.values())
    order = np.random.default_rng(seed).permutation(len(prompts))
    taken: list[int] = []
    for place in order.tolist():
        if len(taken) >= size:
            break
        taken += prompts[place]
    return np.array(taken)


def run(
    checkpoint: Path, prepared: Prepared, settings: MergingSettings, scores: Scores
) -> dict[str, pd.DataFrame]:
    """Tune, train and test both ways at each number of passes; tables of :func:`summarise`."""
    arms: list[tuple[str, int]] = list(product(Way, settings.passes))
    parallel = Parallel(n_jobs=settings.processes)

    def judge(way: str, passes: int, rate: float, seed: int) -> float:
        drawn = subset(prepared, seed, settings.size)
        ranked = [prepared.ranked[k] for k in drawn]
        fitting, held = split(ranked, test_fraction=settings.validation_share, seed=seed)
        (winners, losers), _ = scores(
            checkpoint, prepared, settings, way=way, passes=passes, learning_rate=rate, seed=seed,
            training=drawn[fitting], judged=drawn[held],
        )  # fmt: skip
        return float(-np.logaddexp(0, losers - winners).mean())

    rates = settings.learning_rates
    seeds = range(settings.tuning_seeds if len(rates) > 1 else 0)
    tried = list(product(arms, rates))
    found = parallel(delayed(judge)(*arm, rate, seed) for arm, rate in tried for seed in seeds)
    likelihood = np.reshape(found, (len(arms), len(rates), len(seeds)))
    means = likelihood.mean(axis=2) if len(seeds) else np.zeros(likelihood.shape[:2])
    tuned = dict(zip(arms, (rates[k] for k in means.argmax(axis=1)), strict=True))

    def trained(way: str, passes: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
        return scores(
            checkpoint, prepared, settings, way=way, passes=passes,
            learning_rate=tuned[way, passes], seed=seed,
            training=subset(prepared, seed, settings.size), judged=prepared.test,
        )  # fmt: skip

    cells = list(product(arms, range(settings.seeds)))
    outcomes = parallel(delayed(trained)(*arm, seed) for arm, seed in cells)
    tuning = pd.DataFrame(
        [
            (*arm, rate, means[a, r] if len(seeds) else np.nan, rate == tuned[arm])
            for a, arm in enumerate(arms)
            for r, rate in enumerate(rates)
        ],
        columns=["way", "passes", "learning rate", Metric.LOG_LIKELIHOOD, "chosen"],
    )
    return {"tuning": tuning} | summarise(
        dict(zip(cells, outcomes, strict=True)), prepared, resamples=settings.resamples
    )


def summarise(
    outcomes: dict[tuple[tuple[str, int], int], tuple[np.ndarray, dict[str, float]]],
    prepared: Prepared,
    *,
    resamples: int,
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over test groups and seeds.

    Returns:
        - ``metrics``: by way, passes and metric.
        - ``gains``: merged minus pairs one by one, paired, by passes and metric.
        - ``overfitting``: the most passes minus the fewest, by way and metric.
        - ``costs``: mean :class:`.keys.Cost` of a run by way and passes.
    """
    codes = prepared.test_codes
    strengths = np.array([prepared.ranked[k].strength or 0 for k in prepared.test])
    count = int(codes.max()) + 1
    arms = list(dict.fromkeys(arm for arm, _ in outcomes))
    seeds = 1 + max(seed for _, seed in outcomes)
    draws = Resamples.draw(count, seeds, count=resamples)
    metrics, gains, overfitting = (
        TidyTable("way", "passes", "metric"), TidyTable("passes", "metric"),
        TidyTable("way", "metric"),
    )  # fmt: skip
    measured, costs = {}, []
    for arm in arms:
        sums = np.zeros((seeds, count, COLUMNS))
        for seed in range(seeds):
            winners, losers = outcomes[arm, seed][0]
            sums[seed] = sufficient_statistics(winners, losers, strengths, codes, count)
        measured[arm] = known(draws.measure(sums))
        metrics.add_metrics(*arm, metrics=measured[arm])
        mean = pd.DataFrame([outcomes[arm, seed][1] for seed in range(seeds)]).mean()
        costs += [(*arm, name, value) for name, value in mean.items()]
    passes = sorted({number for _, number in arms})
    for number in passes:
        pair = measured[Way.MERGED, number], measured[Way.PAIRS, number]
        gains.add_metrics(number, metrics=difference(*pair))
    if len(passes) > 1:
        for way in Way:
            pair = measured[way, passes[-1]], measured[way, passes[0]]
            overfitting.add_metrics(way, metrics=difference(*pair))
    return {
        "metrics": metrics.frame(),
        "gains": gains.frame(),
        "overfitting": overfitting.frame(),
        "costs": pd.DataFrame(costs, columns=["way", "passes", "cost", "mean"]),
    }


def measure(source: str, settings: MergingSettings, cache_dir: Path | None) -> Measured:
    """Train and test both ways."""
    checkpoint = checkpoint_for(source)
    prepared = prepare(source, checkpoint, settings)
    scores: Scores = memoize(
        train_and_score, cache_dir, settings=asdict(settings), data=prepared.account,
        ignore=["checkpoint", "prepared", "settings"],
    )  # fmt: skip
    with many_runs():
        tables = run(checkpoint, prepared, settings, scores)
    return Measured(prepared.account, tables)


STUDY = Study(
    "merging",
    "whether all comparisons of a prompt together train as well as shuffled pairs",
    measure,
    simulated=MergingSettings,
    human=HumanMergingSettings,
    memoizes=True,
)

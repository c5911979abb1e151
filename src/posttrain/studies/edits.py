"""The study of edited responses: how they are used, how much they add, and when.

Reward models are trained with every arm of :data:`.edits_outcome.ARMS` at growing numbers of groups
and growing shares of edits, and tested on chosen > rejected, edited > chosen and edited > rejected
of held-out groups; on simulated data also against the gold quality.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from posttrain import records, reward_model
from posttrain.pairing import RATED, Pairing
from posttrain.preferences import RankedGroup, split
from posttrain.rows import LAYOUTS
from posttrain.settings import setting
from posttrain.studies.edits_outcome import (
    ARMS,
    IGNORE,
    Arm,
    Cell,
    Outcome,
    TestPairs,
    edit_metrics,
    summarise,
)
from posttrain.studies.groups import DataSettings, StudyGroups, checkpoint_for, load_groups
from posttrain.studies.training import Recipe, many_runs, train
from posttrain.trainer import TrainingGroup


@dataclass(frozen=True)
class EditSettings(Recipe, DataSettings):
    """Settings of the study; defaults are those for simulated data.

    Raises:
        ValueError: If a number is out of range, a list empty, or an arm unknown or missing.
    """

    arms: list[str] = setting(list(ARMS), "Ways of using edits.")
    edited_share: float = setting(1.0, "Share of simulated groups that may carry an edit.")
    sizes: list[int] = setting([250, 1000], "Training groups, without those that an arm adds.")
    shares: list[float] = setting([0.25, 1.0], "Shares of their edits that are used.")
    test_size: int = setting(1500, "Test groups, at most.")
    seeds: int = setting(10, "Repetitions, each with other training groups, order and score head.")
    learning_rates: list[float] = setting([3e-4, 1e-3, 3e-3], "Peak learning rates to choose from.")
    tuning_seeds: int = setting(3, "Repetitions over which each learning rate is chosen.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    validation_share: float = setting(0.2, "Share of training groups that judge learning rates.")

    def __post_init__(self) -> None:
        for name in ("test_size", "seeds", "tuning_seeds", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("sizes", "shares", "learning_rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one value")
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares must lie above 0 and be at most 1, not {self.shares}")
        if IGNORE not in self.arms or not set(self.arms) <= set(ARMS):
            raise ValueError(
                f"arms must contain {IGNORE!r} and only names of {', '.join(ARMS)}; got "
                f"{', '.join(self.arms)}"
            )


@dataclass(frozen=True)
class Prepared(StudyGroups):
    """Groups with their split.

    Attributes:
        training: Indices of groups to train on.
        test: Indices of groups to test on.
    """

    training: np.ndarray = field(kw_only=True)
    test: np.ndarray = field(kw_only=True)


def prepare(source: str, checkpoint: Path, settings: EditSettings) -> Prepared:
    """Load or simulate groups, tokenise and split them.

    An edit that equals another response in tokens is counted and taken off its group.
    """
    found = load_groups(source, checkpoint, settings)
    lost = [
        len(t.responses) < len(g.responses) for g, t in zip(found.ranked, found.tokens, strict=True)
    ]
    ranked = [without_edit(g) if gone else g for g, gone in zip(found.ranked, lost, strict=True)]
    tokens = [replace(t, places=()) for t in found.tokens]
    gold = found.gold and [
        truth[-len(group.responses) :] for truth, group in zip(found.gold, ranked, strict=True)
    ]
    training, test = split(ranked, test_fraction=settings.test_share, seed=settings.data_seed)
    drawn = np.random.default_rng(settings.data_seed).permutation(test)
    test = np.sort(drawn[: settings.test_size])
    account = found.account | {
        "groups with an edit": sum(group.has_edit for group in ranked),
        "edits equal to another response in tokens": sum(lost),
        "test groups": len(test),
        "test groups with an edit": sum(ranked[i].has_edit for i in test),
    }
    return Prepared(ranked, tokens, account, gold, training=training, test=test)


def without_edit(group: RankedGroup) -> RankedGroup:
    """The same group as if nobody had edited the chosen response."""
    return replace(group, responses=group.responses[-2:])


@dataclass(frozen=True)
class Chosen:
    """The groups that one run trains on.

    Attributes:
        edited: Indices of groups whose edits are used.
        plain: Indices of the others of the cell's size.
        added: Indices of ordinary groups beside them.
    """

    edited: np.ndarray
    plain: np.ndarray
    added: np.ndarray


def choose(order: np.ndarray, has_edit: np.ndarray, arm: Arm, size: int, share: float) -> Chosen:
    """Which groups an arm trains on.

    All arms share the first ``size`` groups of an order and the same of their edits. Whether edits
    are used at all is the arm's business.

    Args:
        order: Indices of training groups in the order in which they are taken.
        has_edit: Whether a group has an edit, by index.
        arm: The arm.
        size: Groups, those that the arm adds aside.
        share: Share of their edits that exist for this run.

    Raises:
        ValueError: If there are too few groups.
    """
    base = order[:size]
    with_edit = base[has_edit[base]]
    edited = with_edit[: round(share * len(with_edit))]
    needed = size + arm.added * len(edited)
    if needed > len(order):
        raise ValueError(
            f"{size} groups with {len(edited)} edits need {needed} training groups, of which there "
            f"are {len(order)}; lower sizes or shares, or use more groups"
        )
    return Chosen(edited, base[~np.isin(base, edited)], order[size:needed])


@dataclass(frozen=True)
class Bench:
    """What all training runs of the study share."""

    checkpoint: Path
    prepared: Prepared
    settings: EditSettings

    def training_groups(self, arm: Arm, chosen: Chosen) -> list[TrainingGroup]:
        """The comparisons that an arm trains on."""
        ranked, tokens = self.prepared.ranked, self.prepared.tokens
        ordinary = Pairing("rated")
        return [arm.pairing.of(ranked[i], tokens[i]) for i in chosen.edited] + [
            ordinary.of(ranked[i], tokens[i]) for i in (*chosen.plain, *chosen.added)
        ]

    def scores(
        self, arm: Arm, chosen: Chosen, judged: np.ndarray, *, learning_rate: float, seed: int
    ) -> np.ndarray:
        """Train a reward model, and score all responses of some groups in rows of their own.

        Returns:
            Shape ``[responses]``, by group.
        """
        model, pad_token_id = train(
            self.checkpoint,
            self.training_groups(arm, chosen),
            LAYOUTS["exact"],
            self.settings,
            objective=arm.objective,
            learning_rate=learning_rate,
            seed=seed,
        )
        groups = [self.prepared.tokens[i] for i in judged]
        return reward_model.score(model, groups, pad_token_id=pad_token_id).numpy()

    def pairs(self, judged: np.ndarray) -> TestPairs:
        """All pairs of some groups."""
        gold = self.prepared.gold
        return TestPairs.of(
            [self.prepared.ranked[i] for i in judged], gold and [gold[i] for i in judged]
        )

    def order(self, seed: int) -> np.ndarray:
        """Training groups in the order in which a seed takes them."""
        return np.random.default_rng(seed).permutation(self.prepared.training)

    @cached_property
    def has_edit(self) -> np.ndarray:
        """Whether each group has an edit."""
        return np.array([group.has_edit for group in self.prepared.ranked])


def tune(bench: Bench, cell: Cell) -> list[tuple[float, float]]:
    """Accuracy on chosen > rejected of held-out training groups at each learning rate.

    Annotators' choices judge all arms, those that also train on edits too.

    Returns:
        Learning rates, each with its mean accuracy over tuning seeds (NaN where there is only one
        rate and nothing to choose).
    """
    settings = bench.settings
    rates = settings.learning_rates
    if len(rates) == 1:
        return [(rates[0], float("nan"))]
    found = np.zeros((len(rates), settings.tuning_seeds))
    for seed in range(settings.tuning_seeds):
        order = bench.order(seed)
        # Not from the groups that arms add: all arms are judged by the same ones.
        base, rest = order[: cell.size], order[cell.size :]
        fitting, held = split(
            [bench.prepared.ranked[i] for i in base],
            test_fraction=settings.validation_share,
            seed=seed,
        )
        apart = {bench.prepared.ranked[i].group for i in base[held]}
        added = [i for i in rest if bench.prepared.ranked[i].group not in apart]
        chosen = choose(
            np.array([*base[fitting], *added]),
            bench.has_edit,
            ARMS[cell.arm],
            len(fitting),
            cell.share,
        )
        pairs = bench.pairs(base[held])
        for r, rate in enumerate(rates):
            scores = bench.scores(ARMS[cell.arm], chosen, base[held], learning_rate=rate, seed=seed)
            sums = pairs.sums(scores).sum(axis=0)
            found[r, seed] = edit_metrics(sums)[RATED]
    return list(zip(rates, found.mean(axis=1).tolist(), strict=True))


def train_and_test(bench: Bench, cell: Cell, learning_rate: float) -> tuple[np.ndarray, pd.Series]:
    """Train one cell with every seed.

    Returns:
        Sums of the test pairs, ``[seeds, test groups, COLUMNS]``, and the mean costs of a run:
        ``groups``, ``edits``, ``pairs``, ``decisions`` of annotators (one for each rated pair and
        one for each edit) and ``tokens`` of exact rows.
    """
    arm, test = ARMS[cell.arm], bench.prepared.test
    pairs = bench.pairs(test)
    sums, costs = [], []
    for seed in range(bench.settings.seeds):
        chosen = choose(bench.order(seed), bench.has_edit, arm, cell.size, cell.share)
        scores = bench.scores(arm, chosen, test, learning_rate=learning_rate, seed=seed)
        sums.append(pairs.sums(scores))
        costs.append(_cost(arm, chosen, bench.training_groups(arm, chosen)))
    return np.array(sums), pd.DataFrame(costs).mean()


def _cost(arm: Arm, chosen: Chosen, groups: Sequence[TrainingGroup]) -> dict[str, int]:
    edits = len(chosen.edited) if arm.uses_edits else 0
    return {
        "groups": len(groups),
        "edits": edits,
        "pairs": sum(len(group.pairs) for group in groups),
        "decisions": len(groups) + edits,
        "tokens": sum(group.tokens.total for group in groups),
    }


def cells(settings: EditSettings) -> list[Cell]:
    """Every arm at every size and share."""
    return [Cell(*cell) for cell in product(settings.arms, settings.sizes, settings.shares)]


def run(
    source: str, *, profile: str = "quick", settings: EditSettings | None = None
) -> records.Record:
    """Run the study on one source.

    Args:
        source: ``simulator``, or the name of human preference data (see :mod:`.sources.human`).
        profile: Label of how much was run.
        settings: Default ones if not given.

    Returns:
        The record, not yet saved: the tables of :func:`.edits_outcome.summarise`, and ``tuning``,
        the accuracies of :func:`tune` by cell.

    Raises:
        ValueError: If an arm is unknown or missing, or the data does not suffice.
    """
    started = time.time()
    settings = settings or EditSettings()
    checkpoint = checkpoint_for(source)
    bench = Bench(checkpoint, prepare(source, checkpoint, settings), settings)
    sums: dict[Cell, np.ndarray] = {}
    costs: list[dict[str, Any]] = []
    tuning: list[dict[str, Any]] = []
    with many_runs():
        for cell in cells(settings):
            # Where nothing depends on the edits, one share stands for all.
            same = replace(cell, share=settings.shares[0])
            if not depends_on_edits(ARMS[cell.arm]) and same in sums:
                sums[cell] = sums[same]
                costs.append(costs[-1] | asdict(cell))
                continue
            rates = tune(bench, cell)
            tuning += [asdict(cell) | {"learning rate": r, "accuracy": a} for r, a in rates]
            best = max(rates, key=lambda pair: np.nan_to_num(pair[1]))[0]
            sums[cell], cost = train_and_test(bench, cell, best)
            costs.append(asdict(cell) | cost.to_dict())
    test = bench.pairs(bench.prepared.test)
    length = np.array(
        [len(text) for i in bench.prepared.test for text in bench.prepared.ranked[i].responses]
    )
    outcome = Outcome(
        sums, pd.DataFrame(costs), {"longer": test.sums(length), "shorter": test.sums(-length)}
    )
    return records.Record(
        study="edits",
        source=source,
        profile=profile,
        settings=asdict(settings),
        data=bench.prepared.account,
        tables={"tuning": pd.DataFrame(tuning)} | summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )


def depends_on_edits(arm: Arm) -> bool:
    """Whether it matters to an arm how many edits there are."""
    return arm.uses_edits or arm.added > 0

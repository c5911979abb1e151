"""What the rounds study measures, and the tables made of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import Resamples
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.rounds.keys import Measure, Ranked

#: Values of the policy after each round, the first one before any: what ``run_arm`` gives.
Run = Sequence[Mapping[str, np.ndarray]]


def summarise(
    runs: Mapping[str, Sequence[Run]], *, resamples: int = 1000
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over evaluation prompts and seeds.

    ``runs`` holds the runs of each arm, one for each seed.

    Returns:
        - ``levels``: ``arm``, ``round``, ``measure``; round 0 is the pre-trained policy.
        - ``steps``: what a round adds to the one before.
        - ``growth``: gold after the last round minus after the first, by arm.
        - ``gains``: an arm's level minus that of the first arm.
        - ``ranking``: share of answer pairs that the round's reward model ranks as gold does, of
          the policy that it chose from, of the policy that came of it, and of the latter by the
          next reward model.
        - ``shifts``: ``decay``, the second minus the first of these, and ``renewal``, the third
          minus the second; means over rounds that have both.
        - ``edits``: ``arm``, ``round``: share of annotated pairs that carry an edit, where any do.
    """
    levels, steps, gains = (TidyTable("arm", "round", "measure") for _ in range(3))
    ranking, shifts = TidyTable("arm", "round", "ranked"), TidyTable("arm", "shift")
    growth, edits = TidyTable("arm"), TidyTable("arm", "round")
    reference: dict[tuple[int, str], np.ndarray] = {}
    first = next(iter(runs))
    for arm, seeds in runs.items():
        prompts = len(seeds[0][0]["gold"])
        draws = Resamples.draw(prompts, len(seeds), count=resamples)
        before: dict[str, np.ndarray] = {}
        golds: list[np.ndarray] = []
        for number in range(len(seeds[0])):
            for measure in Measure:
                values = np.array([_measured(run, number, measure) for run in seeds])
                level = _mean(draws, values)
                levels.add(arm, number, measure, replicates=level)
                if measure in before:
                    steps.add(arm, number, measure, replicates=level - before[measure])
                before[measure] = level
                if measure == Measure.GOLD:
                    golds.append(level)
                if arm == first:
                    reference[number, measure] = level
                elif number:
                    gap = level - reference[number, measure]
                    gains.add(arm, number, measure, replicates=gap)
        growth.add(arm, replicates=golds[-1] - golds[1])
        _rank(arm, seeds, draws, ranking, shifts)
        for number in range(1, len(seeds[0])):
            shares = [run[number]["edited"].mean() for run in seeds if "edited" in run[number]]
            if any(shares):
                edits.add(arm, number, replicates=draws.seeds @ shares)
    tables = {
        "levels": levels, "steps": steps, "growth": growth, "gains": gains, "ranking": ranking,
        "shifts": shifts, "edits": edits,
    }  # fmt: skip
    return {name: table.frame() for name, table in tables.items()}


def _measured(run: Run, number: int, measure: str) -> np.ndarray:
    """A measure of a policy for each prompt, ``[prompts]``."""
    values = run[number]
    if measure == Measure.SCORE:
        if not number:
            return np.zeros(len(values["gold"]))
        return (values["made it"] - run[0][f"round {number}"]).mean(axis=1)
    column = {
        Measure.GOLD: "gold",
        Measure.DIVERGENCE: "log ratio",
        Measure.PRAISE: "praise",
        Measure.WORDS: "words",
        Measure.ENDED: "ended",
    }[Measure(measure)]
    return values[column].mean(axis=1)


def _rank(
    arm: str, seeds: Sequence[Run], draws: Resamples, ranking: TidyTable, shifts: TidyTable
) -> None:
    rounds = len(seeds[0]) - 1
    decays, renewals = [], []
    for number in range(1, rounds + 1):
        found = {
            Ranked.LAST: _accuracies(seeds, draws, number - 1, "goes on"),
            Ranked.NEXT: _accuracies(seeds, draws, number, "made it"),
        }
        decays.append(found[Ranked.NEXT] - found[Ranked.LAST])
        if number < rounds:
            found[Ranked.REFRESHED] = _accuracies(seeds, draws, number, "goes on")
            renewals.append(found[Ranked.REFRESHED] - found[Ranked.NEXT])
        for ranked, accuracy in found.items():
            ranking.add(arm, number, ranked, replicates=accuracy)
    shifts.add(arm, "decay", replicates=np.mean(decays, axis=0))
    if renewals:
        shifts.add(arm, "renewal", replicates=np.mean(renewals, axis=0))


def _accuracies(seeds: Sequence[Run], draws: Resamples, number: int, scorer: str) -> np.ndarray:
    """Share of pairs of answers to a prompt whose order by score is that by gold."""
    right, count = [], []
    for run in seeds:
        golds, scores = run[number]["gold"], run[number][scorer]
        first, second = np.triu_indices(golds.shape[1], 1)
        gap = golds[:, first] - golds[:, second]
        by_score = scores[:, first] - scores[:, second]
        right.append((((gap * by_score) > 0) + 0.5 * ((by_score == 0) & (gap != 0))).sum(axis=1))
        count.append((gap != 0).sum(axis=1))
    total = np.einsum("sp,rp->rs", np.array(right, dtype=float), draws.groups)
    known = np.einsum("sp,rp->rs", np.array(count, dtype=float), draws.groups)
    with np.errstate(invalid="ignore"):
        shares = total / known
    return (np.where(draws.seeds > 0, shares, 0) * draws.seeds).sum(axis=1)


def _mean(draws: Resamples, values: np.ndarray) -> np.ndarray:
    """Mean over prompts and seeds of ``[seeds, prompts]``, in each replicate."""
    weights = draws.groups / draws.groups.sum(axis=1, keepdims=True)
    return np.einsum("sp,rp,rs->r", values, weights, draws.seeds, optimize=True)

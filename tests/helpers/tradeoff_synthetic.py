"""Small outcomes of the study of helpfulness and safety, and records of it with planted numbers."""

import itertools

import numpy as np
import pandas as pd

from posttrain.data.preferences import Message
from posttrain.evaluation.calibration import Calibration
from posttrain.evidence.records import Record
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.tradeoff.data import CandidateSet
from posttrain.studies.tradeoff.keys import BOTH, EXCHANGE, OWN, ArmName, Chosen, Team
from posttrain.studies.tradeoff.outcome import (
    ARMS,
    CALIBRATED,
    CONTRASTS,
    TEAMS,
    ArmOutcome,
    Outcome,
    TestPairs,
)
from posttrain.studies.tradeoff.rules import BEST, RANDOM

WEIGHTS, THRESHOLDS = (0.5, *EXCHANGE), (0.15, 0.5)
SOURCES = {
    "simulator": {"helpfulness": "helpfulness", "safety": "safety"},
    "human": {"rmb_helpfulness": "helpfulness", "hh_harmless": "safety"},
}
ACCURACIES = ("accuracy", *(f"accuracy {strength}" for strength in (1, 2, 3, 4)))
ERRORS = ("answers unsafe", "refuses lookalike", "errors")
ESTIMATE = ("estimate", "low", "high")


def candidate_set(*, gold=True):
    """An unsafe prompt (a refusal, two answers) and a harmless one (an answer, a refusal)."""
    texts = [("no", "a bomb", "a bad bomb"), ("a chair", "no")]
    return CandidateSet(
        [(Message("user", "build a bomb"),), (Message("user", "build a chair"),)],
        texts,
        [TokenizedGroup((1,), tuple((2 + k,) for k in range(len(part)))) for part in texts],
        np.array(["unsafe", "lookalike"]),
        np.array([[0, 1], [0, 2], [3, 4]]),
        np.array([[-4.0, 0], [0, -4], [-1.5, -6.5], [0, 0], [-4, 0]]) if gold else None,
    )


def calibrations(*scales):
    """One for each model."""
    return [Calibration(scale, 0.0, 10) for scale in scales]


def outcome_of(candidates, scores, *, tested=None, pairs=None):
    """An outcome of arms with given scores.

    Args:
        candidates: What was chosen from.
        scores: Scores of the candidates by arm, ``[models, responses]``.
        tested: Held-out pairs.
        pairs: Scores of these, by arm.
    """
    arms = {}
    for name, values in scores.items():
        values = np.asarray(values, dtype=float)
        fitted = calibrations(*np.ones(len(values))) if name in CALIBRATED else []
        of_pairs = np.zeros((2, len(values), 0, 2)) if pairs is None else pairs[name]
        arms[name] = ArmOutcome(of_pairs, values, fitted)
    if tested is None:
        none = np.array([], dtype=int)
        tested = TestPairs(none, none.astype(str), none.astype(str), none, none.reshape(0, 2))
    return Outcome(tested, candidates, arms, pd.DataFrame())


def _systems(arms, gold):
    yield Team.NOBODY, RANDOM, np.nan
    if gold:
        yield from ((Team.NOBODY, BEST, rate) for rate in EXCHANGE)
    yield from ((Team.SINGLE, arm, np.nan) for arm in arms)
    for team, members in TEAMS.items():
        if not set(members) <= set(arms):
            continue
        yield from ((team, "sum", weight) for weight in WEIGHTS)
        for kind, threshold in itertools.product(("switch", "gate"), THRESHOLDS):
            yield team, kind, threshold
            yield team, f"{kind}, unsafe prompts flagged", threshold
        yield team, "switch, not calibrated", 0.15


def _tables(source, arms):
    gold = source == "simulator"
    tests = dict.fromkeys((*SOURCES[source], "helpfulness", "safety"))
    both = itertools.product(("tuned", "shared"), tests, ACCURACIES)
    contrasts = [
        name for name, pair in CONTRASTS.items() if set(pair) - {OWN} <= set(arms)
    ]  # fmt: skip
    metrics = ERRORS
    if gold:
        by_rate = [f"{name} {rate:g}" for rate in EXCHANGE for name in ("combined", "recovered")]
        metrics = (*ERRORS, "helpfulness", "safety", *by_rate)
    systems = list(_systems(arms, gold))
    sums = [one for one in systems if one[:2] == ("specialists", "sum")]
    kinds = ("unsafe", "lookalike", *(("golds disagree",) if gold else ()))
    choices = ["team", "system", "parameter", "metric"]
    yield "metrics", ["arm", "tuning", "test", "metric"], [
        (arm, *rest) for arm, rest in itertools.product(arms, [*both])
    ]  # fmt: skip
    yield (
        "differences",
        ["contrast", "tuning", "test", "metric"],
        [*itertools.product(contrasts, ("tuned", "shared"), (*tests, BOTH), ACCURACIES)],
    )
    yield "baselines", ["test", "metric"], [*itertools.product(tests, ACCURACIES)]
    yield "choices", choices, [
        (*one, metric) for one, metric in itertools.product(systems, metrics)
    ]  # fmt: skip
    reference = next(one for one in sums if one[2] == 2.0)
    others = [one for one in systems if one != reference]
    yield "advantages", choices, [
        (*one, metric) for one, metric in itertools.product(others, metrics)
    ]  # fmt: skip
    ones = [Chosen.ARM, *([ArmName.JOINT] if ArmName.JOINT in arms else [])]
    teams = [team for team, members in TEAMS.items() if set(members) <= set(arms)]
    found = (Chosen.RULE, Chosen.FLAGGED)
    yield "against one", ["team", "system", "one model", "metric"], [
        *itertools.product(teams, found, ones, metrics)
    ]  # fmt: skip
    yield "conflicts", ["arm", "kind"], [*itertools.product(arms, kinds)]
    watching = [arm for arm in arms if CALIBRATED.get(arm) == "safety"]
    each = [*itertools.product(("raw", "calibrated"), THRESHOLDS, ("recall", "precision"))]
    yield "detection", ["arm", "scores", "threshold", "metric"], [
        (arm, *rest) for arm, rest in itertools.product(watching, each)
    ]  # fmt: skip
    has_both = {ArmName.AUXILIARY, ArmName.SAFETY_MIX} <= set(arms)
    yield "auxiliary", ["scores", "threshold", "metric"], each if has_both else []


def synthetic(everywhere=None, *, cell=None, planted=None, arms=tuple(ARMS), source="simulator"):
    """A record with ``everywhere`` in all rows but those of one cell, which hold ``planted``.

    Args:
        everywhere: Estimate, low and high; another number in every row if not given.
        cell: Table, and what must hold of its columns.
        planted: Estimate, low and high.
        arms: The arms that were run.
        source: ``simulator`` or ``human``.
    """
    tables = {}
    for number, (name, columns, rows) in enumerate(_tables(source, arms)):
        table = pd.DataFrame(rows, columns=columns)
        if everywhere is None:
            values = 0.2 + 0.05 * number + 1e-4 * np.arange(len(table))
            table = table.assign(estimate=values, low=values - 0.02, high=values + 0.03)
        else:
            table = table.assign(**dict(zip(ESTIMATE, everywhere, strict=True)))
        if cell is not None and cell[0] == name:
            here = np.ones(len(table), dtype=bool)
            for column, wanted in cell[1].items():
                here &= (table[column] == wanted).to_numpy()
            assert here.sum() == 1, cell
            table.loc[here, list(ESTIMATE)] = planted
        tables[name] = table
    tables["calibration"] = pd.DataFrame(
        [
            (arm, model, 0.5 + model, 0.25 - model, 0.1 * model, 0.2 + 0.1 * model)
            for arm, model in itertools.product((ArmName.HELPFUL, ArmName.SAFE), (0, 1))
        ],
        columns=["arm", "model", "scale", "centre", "raw", "calibrated"],
    )
    settings = {"arms": [*arms], "responses": 8, "seeds": 2}
    if source == "simulator":
        settings["held_out_goals"] = ["poison a well", "clean a well"]
    return Record("tradeoff", source, "quick", settings, {}, tables)

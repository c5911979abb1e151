"""Choosing the best of several responses by one model or by two, and what comes of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.combining import THRESHOLD, Rule, RuleKind
from posttrain.studies.common.tables import Replicates, TidyTable, difference, known
from posttrain.studies.tradeoff.data import KINDS, CandidateSet
from posttrain.studies.tradeoff.keys import (
    ERRORS,
    EXCHANGE,
    MAIN_EXCHANGE,
    RECOVERED,
    ArmName,
    Chosen,
    Kind,
    Team,
)
from posttrain.studies.tradeoff.outcome import TEAMS, ArmOutcome, Outcome

RANDOM, BEST = "random", "best possible"
#: Folds of prompts: which way of choosing is best is found on all others.
FOLDS = 5
FLAGGED = ", unsafe prompts flagged"
UNCALIBRATED = "switch, not calibrated"


@dataclass(frozen=True)
class System:
    """A way of choosing."""

    team: str  #: Who scores: a key of :data:`.TEAMS`, :attr:`.Team.SINGLE` or :attr:`.Team.NOBODY`.
    name: str  #: Of the rule, or of the arm.
    parameter: float = float("nan")  #: Weight or threshold; NaN where there is none.


def systems(
    outcome: Outcome, weights: Sequence[float], thresholds: Sequence[float]
) -> Iterator[tuple[System, np.ndarray]]:
    """All ways of choosing, each with the probability of every candidate to be chosen.

    That has shape ``[models, responses]`` (one model where nobody scores). Equal scores share.
    """
    candidates = outcome.candidates
    prompt_of = candidates.prompt_of
    yield System(Team.NOBODY, RANDOM), _best(np.zeros((1, len(prompt_of))), prompt_of)
    if candidates.gold is not None:
        for rate in EXCHANGE:
            worth = candidates.gold @ (1.0, rate)
            yield System(Team.NOBODY, BEST, rate), _best(worth[None], prompt_of)
    for name, arm in outcome.arms.items():
        yield System(Team.SINGLE, name), _best(arm.candidates, prompt_of)
    flagged = candidates.kinds[prompt_of] == Kind.UNSAFE
    for team, members in TEAMS.items():
        if not set(members) <= set(outcome.arms):
            continue
        helpfulness, safety = (calibrated(outcome.arms[name]) for name in members)
        for weight in weights:
            rule = Rule(RuleKind.SUM, weight=weight)
            yield (
                System(team, RuleKind.SUM, weight),
                _best(rule.combine(helpfulness, safety), prompt_of),
            )
        for kind in (RuleKind.SWITCH, RuleKind.GATE):
            for threshold in thresholds:
                rule = Rule(kind, threshold=threshold)
                yield (
                    System(team, kind, threshold),
                    _best(rule.combine(helpfulness, safety), prompt_of),
                )
                yield (
                    System(team, f"{kind}{FLAGGED}", threshold),
                    _best(rule.combine(helpfulness, safety, flagged), prompt_of),
                )
        raw = (outcome.arms[name].candidates for name in members)
        rule = Rule(RuleKind.SWITCH, threshold=THRESHOLD)
        yield (
            System(team, UNCALIBRATED, THRESHOLD),
            _best(rule.combine(*raw), prompt_of),
        )


def calibrated(arm: ArmOutcome) -> np.ndarray:
    """Calibrated scores of the candidates, ``[models, responses]``."""
    pairs = zip(arm.calibrations, arm.candidates, strict=True)
    return np.stack([calibration.apply(scores) for calibration, scores in pairs])


def _best(scores: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Probability of each response to be chosen, the shape of ``scores``."""
    firsts = np.searchsorted(prompt_of, np.arange(prompt_of[-1] + 1))
    is_best = scores == np.maximum.reduceat(scores, firsts, axis=1)[:, prompt_of]
    return is_best / np.add.reduceat(is_best, firsts, axis=1)[:, prompt_of]


class SelectionMetrics:
    """Turns choices into sums by prompt, and these into what a reader wants to know."""

    def __init__(self, candidates: CandidateSet) -> None:
        prompt_of, kinds, errs = candidates.prompt_of, candidates.kinds, candidates.errs
        self.firsts = np.searchsorted(prompt_of, np.arange(len(kinds)))
        wrong = [errs & (kinds[prompt_of] == kind) for kind in KINDS]
        by_prompt = [np.ones(len(kinds)), *(kinds == kind for kind in KINDS)]
        self.gold = candidates.gold is not None
        if candidates.gold is not None:
            worths = [candidates.gold @ (1.0, rate) for rate in EXCHANGE]
            counts = np.bincount(prompt_of)
            for worth in worths:
                by_prompt.append(np.add.reduceat(worth, self.firsts) / counts)
                by_prompt.append(np.maximum.reduceat(worth, self.firsts))
            wrong += [*candidates.gold.T, *worths]
        self.of_responses = np.stack(wrong, axis=1).astype(float)
        self.of_prompts = np.stack(by_prompt, axis=1).astype(float)

    def sums(self, chosen: np.ndarray) -> np.ndarray:
        """Sums by prompt of one system's choices, ``[models, prompts, columns]``.

        ``chosen`` is the probability of each response, ``[models, responses]``.
        """
        weighted = chosen[..., None] * self.of_responses
        sums = np.add.reduceat(weighted, self.firsts, axis=1)
        prompts = np.broadcast_to(self.of_prompts, (len(chosen), *self.of_prompts.shape))
        return np.concatenate([sums, prompts], axis=2)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of the leading shape from sums, ``[..., columns]``.

        Shares: ``answers unsafe`` (of unsafe prompts, those of which a response is chosen that
        refuses less than another one, see :attr:`.CandidateSet.errs`), ``refuses lookalike`` and
        ``refuses other`` (the reverse); ``errors``, the mean of the first two. NaN where there is
        no such prompt. With gold: mean ``helpfulness`` and ``safety`` of what was chosen; for each
        rate of exchange ``combined`` and ``recovered``, the share of the way from a random choice
        to the best possible one.
        """
        width = self.of_responses.shape[1]
        totals, prompts = sums[..., :width], sums[..., width:]
        count = prompts[..., 0]
        names = ("answers unsafe", "refuses lookalike", "refuses other")
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {name: totals[..., k] / prompts[..., 1 + k] for k, name in enumerate(names)}
            values[ERRORS] = (values[names[0]] + values[names[1]]) / 2
            if self.gold:
                values["helpfulness"] = totals[..., 3] / count
                values["safety"] = totals[..., 4] / count
                for k, rate in enumerate(EXCHANGE):
                    random, best = prompts[..., 4 + 2 * k], prompts[..., 5 + 2 * k]
                    values[f"combined {rate:g}"] = totals[..., 5 + k] / count
                    values[f"recovered {rate:g}"] = (totals[..., 5 + k] - random) / (best - random)
        return values


def best_elsewhere(
    sums: Mapping[System, np.ndarray], chosen: SelectionMetrics, kinds: np.ndarray
) -> dict[System, np.ndarray]:
    """What comes of the way of choosing that does best on other prompts: its sums by prompt.

    Prompts are dealt to :data:`FOLDS` folds, by kind; in each, that way of a family chooses which
    does best on all the others: by recovered gold where that is known, else by fewest errors.
    Families are each team's rules, the same with unsafe prompts flagged, and single models.
    """
    random = np.random.default_rng(0)
    fold = np.empty(len(kinds), dtype=int)
    for kind in np.unique(kinds):
        places = random.permutation(np.flatnonzero(kinds == kind))
        fold[places] = np.arange(len(places)) % FOLDS
    families: dict[System, list[System]] = {}
    for system in sums:
        if system.team == Team.SINGLE:
            families.setdefault(System(system.team, Chosen.ARM), []).append(system)
        elif system.team != Team.NOBODY and system.name != UNCALIBRATED:
            flagged = system.name.endswith(FLAGGED)
            name = Chosen.FLAGGED if flagged else Chosen.RULE
            families.setdefault(System(system.team, name), []).append(system)
    found = {}
    for best, members in families.items():
        result = np.empty_like(sums[members[0]])
        for f in range(FOLDS):
            elsewhere = [
                chosen.metrics(sums[member][:, fold != f].sum(axis=(0, 1))) for member in members
            ]
            worth = [m[RECOVERED] if chosen.gold else -m[ERRORS] for m in elsewhere]
            here = fold == f
            best_one = members[int(np.argmax(np.nan_to_num(worth, nan=-np.inf)))]
            result[:, here] = sums[best_one][:, here]
        found[best] = result
    return found


def choice_tables(
    outcome: Outcome, *, weights: Sequence[float], thresholds: Sequence[float], resamples: int
) -> dict[str, pd.DataFrame]:
    """Tidy tables of what is chosen, with 95 % intervals over prompts and models.

    Returns:
        - ``choices``: by team, system, parameter and metric (see :meth:`SelectionMetrics.metrics`).
        - ``advantages``: the sum of calibrated specialists, safety weighing
          :data:`MAIN_EXCHANGE`, minus every other system, paired.
        - ``against one``: the way of choosing that is best on other prompts
          (:func:`best_elsewhere`), minus one model of all data and minus the single model that is
          best on other prompts, paired: ``team``, ``system``, ``one model``, ``metric``.
    """
    chosen = SelectionMetrics(outcome.candidates)
    models = len(outcome.arms[ArmName.HELPFUL].calibrations)
    draws = Resamples.draw(len(outcome.candidates.kinds), models, count=resamples)
    alone = Resamples(draws.groups, np.ones((resamples + 1, 1)))
    sums = {
        system: chosen.sums(probability)
        for system, probability in systems(outcome, weights, thresholds)
    }
    found = best_elsewhere(sums, chosen, outcome.candidates.kinds)
    measured: dict[System, Replicates] = {
        system: (alone if system.team == Team.NOBODY else draws).measure(one, chosen.metrics)
        for system, one in {**sums, **found}.items()
    }
    reference = next(
        (s for s in measured if (s.name, s.parameter) == (RuleKind.SUM, MAIN_EXCHANGE)), None
    )
    choices, advantages = (TidyTable("team", "system", "parameter", "metric") for _ in range(2))
    for system, replicates in measured.items():
        label = (system.team, system.name, system.parameter)
        choices.add_metrics(*label, metrics=known(replicates))
        if reference is not None and system != reference and system not in found:
            gaps = known(difference(measured[reference], replicates))
            advantages.add_metrics(*label, metrics=gaps)
    against = TidyTable("team", "system", "one model", "metric")
    ones = [System(Team.SINGLE, Chosen.ARM), System(Team.SINGLE, ArmName.JOINT)]
    for system, one in product(found, ones):
        if one in measured and system.team != Team.SINGLE:
            gaps = known(difference(measured[system], measured[one]))
            against.add_metrics(system.team, system.name, one.name, metrics=gaps)
    return {
        "choices": choices.frame(),
        "advantages": advantages.frame(),
        "against one": against.frame(),
    }


def conflict_table(outcome: Outcome, *, resamples: int) -> pd.DataFrame:
    """How often each arm's models do right where refusing and answering are compared.

    For each of :data:`KINDS` that occurs, the share of pairs whose better response scores higher;
    with gold also ``golds disagree``: of pairs whose golds prefer different responses, the share in
    which the more *helpful* one scores higher.
    """
    candidates = outcome.candidates
    prompt_of, kinds = candidates.prompt_of, candidates.kinds
    tests: dict[str, np.ndarray] = {
        kind: candidates.pairs[kinds[prompt_of[candidates.pairs[:, 0]]] == kind] for kind in KINDS
    }
    if candidates.gold is not None:
        tests["golds disagree"] = _disagreements(candidates)
    table = TidyTable("arm", "kind")
    for kind, pairs in tests.items():
        if not len(pairs):
            continue
        codes = np.unique(prompt_of[pairs[:, 0]], return_inverse=True)[1]
        total = np.bincount(codes).astype(float)
        models = len(next(iter(outcome.arms.values())).candidates)
        draws = Resamples.draw(len(total), models, count=resamples)
        for name, arm in outcome.arms.items():
            gaps = arm.candidates[:, pairs[:, 0]] - arm.candidates[:, pairs[:, 1]]
            right = (gaps > 0) + 0.5 * (gaps == 0)
            sums = np.stack([np.bincount(codes, weights=wins) for wins in right])
            both = np.stack([sums, np.broadcast_to(total, sums.shape)], axis=2)
            share = draws.measure(both, lambda s: {"right": s[..., 0] / s[..., 1]})["right"]
            table.add(name, kind, replicates=share)
    return table.frame()


def _disagreements(candidates: CandidateSet) -> np.ndarray:
    """Pairs whose golds prefer different responses, the more helpful one first, ``[pairs, 2]``."""
    assert candidates.gold is not None
    pairs = []
    stops = np.cumsum([*map(len, candidates.responses)])
    for stop, texts in zip(stops, candidates.responses, strict=True):
        for first, second in combinations(range(stop - len(texts), stop), 2):
            helpful, safe = candidates.gold[first] - candidates.gold[second]
            if helpful * safe < 0:
                pairs.append((first, second) if helpful > 0 else (second, first))
    return np.array(pairs, dtype=int).reshape(-1, 2)

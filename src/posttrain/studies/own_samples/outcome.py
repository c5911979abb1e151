"""The tables of the own-samples study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import Resamples
from posttrain.policy.selection import best_of_n_divergence, expected_best
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.own_samples.data import Answers
from posttrain.studies.own_samples.keys import Agreement, Chooser, Policy, Test, Value


@dataclass(frozen=True)
class Half:
    """How the reward models of one half see answers, and how those of the other half do.

    Scores are ``[models, prompts, samples]``; those of pairs ``[models, 2, pairs]``, the chosen
    response first.

    Attributes:
        pairs: Scores of people's pairs for the prompts that no model was trained on.
        own, judge: Scores of the policy's answers.
        others: By source, scores of the answers by reward models of other data.
        policies: By how it was trained, what a policy answers, and own and judge's scores of it.
    """

    pairs: np.ndarray
    own: np.ndarray
    judge: np.ndarray
    others: Mapping[str, np.ndarray]
    policies: Mapping[str, tuple[Answers, np.ndarray, np.ndarray, Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class Scale:
    """Turns scores into standard deviations within a prompt, from the answers' mean to it."""

    centre: np.ndarray  #: ``[prompts, 1]``
    spread: float
    slope: float  #: What a standard deviation of words adds.
    words: np.ndarray  #: Mean words, ``[prompts, 1]``
    words_spread: float

    @classmethod
    def of(cls, scores: np.ndarray, words: np.ndarray) -> "Scale":
        """That of one model's scores of the untrained policy's answers, ``[prompts, samples]``."""
        centre, mean = scores.mean(axis=1, keepdims=True), words.mean(axis=1, keepdims=True)
        spread, words_spread = (scores - centre).std(), (words - mean).std()
        z, w = (scores - centre) / spread, (words - mean) / words_spread
        return cls(centre, float(spread), float((z * w).mean()), mean, float(words_spread))

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Standardised scores of answers to the same prompts."""
        return (scores - self.centre) / self.spread

    def at_equal_length(self, scores: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The same, less what their length explains."""
        return self(scores) - self.slope * (words - self.words) / self.words_spread


def sizes_up_to(samples: int) -> list[int]:
    """Powers of two up to the number of samples."""
    return [2**k for k in range(samples.bit_length()) if 2**k <= samples]


def summarise(
    said: Answers,
    halves: Sequence[Half],
    lengths: np.ndarray,
    *,
    clusters: np.ndarray,
    resamples: int = 1000,
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over prompts and reward models.

    ``lengths`` are words of people's pairs, ``[2, pairs]``, and ``clusters`` their prompts' codes.

    Returns:
        - ``tests``: shares of people's pairs ranked right.
        - ``agreement``: correlations over the answers to a prompt.
        - ``curves``: ``chooser``, ``n``, ``divergence``, ``value``.
        - ``policies``: ``policy``, ``value``; of those trained, less those of the one before.
    """
    return {
        "tests": _tests(halves, lengths, clusters, resamples),
        "agreement": _agreement(said, halves, resamples),
        "curves": _curves(said, halves, resamples),
        "policies": _policies(said, halves, resamples),
    }


def _tests(
    halves: Sequence[Half], lengths: np.ndarray, clusters: np.ndarray, resamples: int
) -> pd.DataFrame:
    def right(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
        return (chosen > rejected) + 0.5 * (chosen == rejected)

    found = {
        Test.SINGLE: np.array([right(*one) for half in halves for one in half.pairs]),
        Test.MEAN: np.array([right(*half.pairs.mean(axis=0)) for half in halves]),
        Test.LONGEST: right(*lengths)[None],
    }
    table = TidyTable("test")
    # Pairs of one prompt stand or fall together.
    counts = np.bincount(clusters)
    for test, shares in found.items():
        sums = np.array([np.bincount(clusters, weights=one) for one in shares])
        draws = Resamples.draw(len(counts), len(sums), count=resamples)
        drawn = (sums @ draws.groups.T).T / (draws.groups @ counts)[:, None]
        table.add(test, replicates=(drawn * draws.seeds).sum(axis=1))
    return table.frame()


def _agreement(said: Answers, halves: Sequence[Half], resamples: int) -> pd.DataFrame:
    found: dict[str, list[np.ndarray]] = {key: [] for key in Agreement}
    for half in halves:
        judge = _mean_of(half.judge, said.words)
        found[Agreement.JUDGE_WORDS].append(_correlations(judge, said.words))
        for one in half.own:
            found[Agreement.JUDGE].append(_correlations(one, judge))
            found[Agreement.WORDS].append(_correlations(one, said.words))
        found[Agreement.SEEDS] += [
            _correlations(one, other)
            for place, one in enumerate(half.own)
            for other in half.own[:place]
        ]
    table = TidyTable("agreement")
    for key, values in found.items():
        if values:
            table.add(key, replicates=_replicates(np.array(values), resamples))
    return table.frame()


def _curves(said: Answers, halves: Sequence[Half], resamples: int) -> pd.DataFrame:
    n = sizes_up_to(said.words.shape[1])
    divergence = best_of_n_divergence(n)
    table = TidyTable("chooser", "n", "divergence", "value")
    found: dict[tuple[str, str], list[np.ndarray]] = {}

    def add(chooser: str, by: np.ndarray, half: Half, judges: np.ndarray) -> None:
        values = _judged(said, judges, half, said.words) | {Value.OWN: Scale.of(by, said.words)(by)}
        for value, of_answers in values.items():
            found.setdefault((chooser, value), []).append(expected_best(by, of_answers, n))

    for half in halves:
        for one in half.own:
            add(Chooser.SINGLE, one, half, half.judge)
        add(Chooser.MEAN, _mean_of(half.own, said.words), half, half.judge)
        add(Chooser.LONGEST, said.words, half, half.judge)
        for place, one in enumerate(half.judge):
            if len(others := np.delete(half.judge, place, axis=0)):
                add(Chooser.JUDGE, one, half, others)
    for (chooser, value), by_seed in found.items():
        for place, size in enumerate(n):
            per_prompt = np.array([one[place] for one in by_seed])
            replicates = _replicates(per_prompt, resamples)
            table.add(chooser, size, divergence[place], value, replicates=replicates)
    return table.frame()


def _policies(said: Answers, halves: Sequence[Half], resamples: int) -> pd.DataFrame:
    table = TidyTable("policy", "value")
    for policy in Policy:
        found: dict[str, list[np.ndarray]] = {}
        for half in halves:
            if policy not in half.policies:
                continue
            answers, own, judge, others = half.policies[policy]
            scale = Scale.of(half.own[0], said.words)
            values = _judged(said, half.judge, half, answers.words, judge, others) | {
                Value.OWN: scale(own),
                Value.DIVERGENCE: answers.log_ratio,
                Value.ENDED: answers.ended - said.ended.mean(axis=1, keepdims=True),
            }
            values[Value.WORDS] = answers.words - said.words.mean(axis=1, keepdims=True)
            for value, of_answers in values.items():
                found.setdefault(value, []).append(of_answers.mean(axis=1))
        for value, by_half in found.items():
            table.add(policy, value, replicates=_replicates(np.array(by_half), resamples))
    return table.frame()


def _judged(
    said: Answers,
    base: np.ndarray,
    half: Half,
    words: np.ndarray,
    scores: np.ndarray | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """What judges say of answers; ``base`` are their scores of the untrained policy's answers."""
    scores = base if scores is None else scores
    others = half.others if others is None else others
    scales = [Scale.of(one, said.words) for one in base]
    judged = np.mean([scale(one) for scale, one in zip(scales, scores, strict=True)], axis=0)
    level = np.mean(
        [scale.at_equal_length(one, words) for scale, one in zip(scales, scores, strict=True)],
        axis=0,
    )
    # The mean of several scores spreads less than each; its own spread is the unit.
    unit = np.mean([scale(one) for scale, one in zip(scales, base, strict=True)], axis=0).std()
    found: dict[str, np.ndarray] = {
        Value.JUDGE: judged / unit,
        Value.LEVEL: level / unit,
        Value.WORDS: words,
    }
    for source, by_model in others.items():
        of_base = [Scale.of(one, said.words) for one in half.others[source]]
        seen = [scale(one) for scale, one in zip(of_base, by_model, strict=True)]
        spread = np.mean(
            [scale(one) for scale, one in zip(of_base, half.others[source], strict=True)], axis=0
        ).std()
        found[f"judge of {source}"] = np.mean(seen, axis=0) / spread
    return found


def _mean_of(scores: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The mean of several models' standardised scores."""
    return np.mean([Scale.of(one, words)(one) for one in scores], axis=0)


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation over the answers to each prompt; 0 where either is the same for all."""
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    norm = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.divide((one * other).sum(axis=1), norm, out=np.zeros_like(norm), where=norm > 0)


def _replicates(values: np.ndarray, resamples: int) -> np.ndarray:
    """Means over prompts and seeds of ``[seeds, prompts]``, in each replicate."""
    draws = Resamples.draw(values.shape[1], len(values), count=resamples)
    weights = draws.groups / draws.groups.sum(axis=1, keepdims=True)
    return np.einsum("sp,rp,rs->r", values, weights, draws.seeds, optimize=True)

"""Choosing among the samples of each prompt: rejection sampling, and what it is worth.

Scores are arrays ``[prompts, samples]``; those of several reward models ``[models, prompts,
samples]``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from posttrain.errors import UserError

#: What several reward models' scores become (Coste et al., 2023), over the first axis.
COMBINED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda scores: scores.mean(axis=0),
    "minimum": lambda scores: scores.min(axis=0),
    "mean - variance": lambda scores: scores.mean(axis=0) - 0.5 * scores.var(axis=0),
}


@dataclass(frozen=True)
class Selection:
    """Samples that were chosen: their prompts, ascending, and which sample of each."""

    prompts: np.ndarray
    samples: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """The values of the chosen samples, of ``[prompts, samples]``."""
        return values[self.prompts, self.samples]


def combine(scores: np.ndarray, how: str) -> np.ndarray:
    """One score of several reward models' scores, ``[models, prompts, samples]``.

    >>> combine(np.array([[[1.0, 2.0]], [[3.0, 2.0]]]), "minimum")
    array([[1., 2.]])
    """
    if how not in COMBINED:
        raise UserError(f"unknown way to combine scores {how!r}; known: {', '.join(COMBINED)}")
    return COMBINED[how](scores)


def best(scores: np.ndarray, share: float = 1.0) -> Selection:
    """The best sample of each prompt, of equals the first.

    A ``share`` below 1 keeps that share of the prompts, those whose best sample scores highest.

    >>> best(np.array([[1.0, 3.0], [2.0, 0.0]])).samples
    array([1, 0])
    >>> best(np.array([[1.0, 3.0], [2.0, 0.0]]), share=0.5).prompts
    array([0])
    """
    chosen = scores.argmax(axis=1)
    heights = scores[np.arange(len(scores)), chosen]
    kept = np.argsort(-heights, kind="stable")[: max(1, round(share * len(scores)))]
    prompts = np.sort(kept)
    return Selection(prompts, chosen[prompts])


def random_control(selection: Selection, samples: int, *, seed: int) -> Selection:
    """The control of a selection: of the same prompts one sample each, drawn at random."""
    rng = np.random.default_rng(seed)
    return Selection(selection.prompts, rng.integers(samples, size=len(selection.prompts)))


def expected_best(
    proxy: np.ndarray, values: np.ndarray, sizes: list[int] | np.ndarray
) -> np.ndarray:
    """Expected value of the best of n samples by the proxy, of each prompt, ``[sizes, prompts]``.

    Unbiased: the mean over all subsets of n of the samples, of which there are at least n. The
    sample of rank i from below is the best of C(i − 1, n − 1) of C(N, n) subsets. Where scores are
    equal, each of the equals is as likely to be taken.

    >>> expected_best(np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 6.0, 3.0]]), [1, 2, 3]).T
    array([[3., 4., 3.]])
    """
    count = proxy.shape[1]
    if max(sizes) > count:
        raise UserError(f"the best of {max(sizes)} needs as many samples, and there are {count}")
    order = np.argsort(proxy, axis=1, kind="stable")
    ranked = _mean_of_equals(
        np.take_along_axis(proxy, order, axis=1), np.take_along_axis(values, order, axis=1)
    )
    ranks = np.arange(1, count + 1)
    weights = np.array(
        [np.exp(_log_choose(ranks - 1, n - 1) - _log_choose(count, n)) for n in sizes]
    )
    return weights @ ranked.T


def _mean_of_equals(proxy: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sorted values, each replaced by the mean of those with the same score of the proxy."""
    starts = np.ones_like(proxy, dtype=bool)
    starts[:, 1:] = proxy[:, 1:] != proxy[:, :-1]
    run = starts.ravel().cumsum() - 1
    means = np.bincount(run, weights=values.ravel()) / np.bincount(run)
    return means[run].reshape(values.shape)


def _log_choose(total: np.ndarray | int, chosen: int) -> np.ndarray:
    """Logarithm of C(total, chosen), −∞ where more are chosen than there are."""
    total = np.asarray(total, dtype=float)
    possible = total >= chosen
    safe = np.where(possible, total, chosen)
    logs = gammaln(safe + 1) - gammaln(chosen + 1) - gammaln(safe - chosen + 1)
    return np.where(possible, logs, -np.inf)


def best_of_n_divergence(sizes: np.ndarray | list[int]) -> np.ndarray:
    """KL divergence of best-of-n from the policy sampled from, ln n − (n − 1)/n, in nats.

    It is exact where no two samples score the same, and an upper bound otherwise (Gao et al., 2023;
    Beirami et al., 2024).
    """
    n = np.asarray(sizes, dtype=float)
    return np.log(n) - (n - 1) / n

"""Intervals: bootstrap over groups and seeds, and the slope of a curve over data sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.evaluation.metrics import metrics


@dataclass(frozen=True)
class Resamples:
    """Bootstrap replicates shared by everything that is compared.

    Attributes:
        groups: How often each replicate draws each test group, shape ``[replicates, groups]``. The
            first replicate draws each once: it gives the estimate.
        seeds: Share of each training seed in each replicate, shape ``[replicates, seeds]``.
    """

    groups: np.ndarray
    seeds: np.ndarray

    @classmethod
    def draw(cls, groups: int, seeds: int, *, count: int = 1000, seed: int = 0) -> "Resamples":
        """Resample test groups and training seeds with replacement, ``count`` times."""
        random = np.random.default_rng(seed)
        by_group = random.multinomial(groups, np.full(groups, 1 / groups), size=count)
        by_seed = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
        return cls(
            np.concatenate([np.ones((1, groups)), by_group]),
            np.concatenate([np.full((1, seeds), 1 / seeds), by_seed]),
        )

    def measure(
        self, sums: np.ndarray, metrics: Callable[[np.ndarray], dict[str, np.ndarray]] = metrics
    ) -> dict[str, np.ndarray]:
        """Metrics of each replicate: computed for each seed, then averaged over seeds.

        ``sums`` are ``[seeds, groups, columns]``; ``metrics`` turns sums over pairs,
        ``[..., columns]``, into metrics of the leading shape. Each result is ``[replicates]``, the
        estimate first.
        """
        drawn = np.einsum("rg,sgc->rsc", self.groups, sums, optimize=True)
        return {
            name: (np.where(self.seeds > 0, values, 0) * self.seeds).sum(axis=1)
            for name, values in metrics(drawn).items()
        }


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Estimate and percentile interval from replicates whose first entry is the estimate.

    Replicates in which a metric does not exist (a strength was not drawn) are left out.
    """
    tail = (1 - level) / 2
    drawn = replicates[1:][~np.isnan(replicates[1:])]
    if np.isnan(replicates[0]) or not len(drawn):
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(replicates[0]), float(low), float(high)


def slope(sizes: Sequence[int], curves: np.ndarray) -> np.ndarray:
    """Least-squares change per tenfold data; NaN with a single size, or where a value is NaN.

    ``curves`` are ``[sizes, replicates]``, the result ``[replicates]``.

    >>> slope([100, 1000], np.array([[0.6], [0.7]])).round(6).tolist()
    [0.1]
    """
    if len(sizes) < 2:
        return np.full(curves.shape[1], np.nan)
    centred = np.log10(sizes) - np.log10(sizes).mean()
    return centred @ curves / (centred @ centred)

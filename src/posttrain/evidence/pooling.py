"""What several sources of data say together about one effect.

Their common effect, weighted by precision, is about *these* sources. Beside it stands the
random-effects estimate, which asks what an unseen source would show; of fewer than five sources it
says little.

>>> pooled = pool([Effect("a", 0.02, 0.004, 15), Effect("b", 0.03, 0.006, 300)])
>>> f"{pooled.common.estimate:.3f} {pooled.common.p():.4f}"
'0.023 0.0000'
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

#: One-sided error of a test, and the power at which detectable effects are stated.
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Effect:
    """What one source says.

    Attributes:
        source: The source of data.
        estimate: The effect.
        error: Its standard error, over clusters and seeds.
        freedom: Degrees of freedom of that error: clusters less one.
    """

    source: str
    estimate: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided interval by a t quantile."""
        half = float(stats.t.ppf((1 + level) / 2, self.freedom)) * self.error
        return self.estimate - half, self.estimate + half

    def p(self, bound: float = 0.0) -> float:
        """One-sided p value against an effect of at most ``bound``."""
        return float(stats.t.sf((self.estimate - bound) / self.error, self.freedom))

    def __neg__(self) -> "Effect":
        return replace(self, estimate=-self.estimate)

    @property
    def detectable(self) -> float:
        """The effect that a test at :data:`LEVEL` finds with :data:`POWER`, by the error alone."""
        quantiles = stats.t.ppf([1 - LEVEL, POWER], self.freedom)
        return float(quantiles.sum()) * self.error


@dataclass(frozen=True)
class Pooled:
    """Several sources together.

    Attributes:
        sources: What each source says, one effect each.
        common: Their common effect: weighted by precision, with its own error alone.
        random: The mean over sources of which these are a sample (Hartung–Knapp–Sidik–Jonkman,
            whose scale is at least 1): estimate, and ends of a 95 % interval.
        tau2: Variance of effects between sources (Paule–Mandel).
        differ: P value of Cochran's test that all sources have the same effect.
    """

    sources: tuple[Effect, ...]
    common: Effect
    random: tuple[float, float, float]
    tau2: float
    differ: float


def effect(
    source: str, interval: tuple[float, float, float], clusters: int, level: float = 0.95
) -> Effect:
    """The effect behind a bootstrap interval (estimate, low, high) over so many clusters.

    With few clusters the bootstrap is too sure: its variance is short by a factor of
    1 − 1/clusters, which is put back, and :class:`Effect` uses t quantiles.
    """
    value, low, high = interval
    clusters = max(clusters, 2)
    error = (high - low) / (2 * float(stats.norm.ppf((1 + level) / 2)))
    error *= math.sqrt(clusters / (clusters - 1))
    return Effect(source, value, error, clusters - 1)


def one_vote(effects: Sequence[Effect]) -> list[Effect]:
    """One effect for each source: the mean of its runs, whose errors are taken as the same error.

    Runs on one source share its test groups, so more runs of it are no more evidence.
    """
    by_source: dict[str, list[Effect]] = {}
    for one in effects:
        by_source.setdefault(one.source, []).append(one)
    return [
        Effect(
            source,
            float(np.mean([one.estimate for one in some])),
            float(np.mean([one.error for one in some])),
            min(one.freedom for one in some),
        )
        for source, some in by_source.items()
    ]


def pool(effects: Sequence[Effect]) -> Pooled:
    """Combine effects, of which those of one source count once."""
    sources = one_vote(effects)
    values = np.array([one.estimate for one in sources])
    errors = np.array([one.error for one in sources])
    freedom = np.array([one.freedom for one in sources])
    weights = errors**-2 / np.sum(errors**-2)
    # Satterthwaite's degrees of freedom of a weighted mean.
    variance = np.sum(weights**2 * errors**2)
    own = variance**2 / np.sum((weights * errors) ** 4 / freedom)
    common = Effect("all", float(weights @ values), math.sqrt(variance), float(own))
    if len(sources) == 1:
        return Pooled(tuple(sources), common, (common.estimate, -math.inf, math.inf), math.nan, 1.0)
    # Imported here because it takes long, and few who read claims pool anything.
    from statsmodels.stats.meta_analysis import combine_effects

    with np.errstate(divide="ignore", over="ignore"):  # of a share that is not read here
        found = combine_effects(values, errors**2, method_re="iterated", use_t=True)
    error = found.sd_eff_w_re * math.sqrt(max(1.0, found.scale_hksj_re))
    half = float(stats.t.ppf(0.975, len(sources) - 1)) * error
    mean = float(found.mean_effect_re)
    spread = float(np.sum(((values - common.estimate) / errors) ** 2))
    differ = float(stats.chi2.sf(spread, len(sources) - 1))
    ends = (mean, mean - half, mean + half)
    return Pooled(tuple(sources), common, ends, float(found.tau2), differ)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """P values of several claims, adjusted by Holm's method so that all are tested at one level."""
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(list(values.values()), method="holm")[1]
    return dict(zip(values, map(float, adjusted), strict=True))

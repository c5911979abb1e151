"""How well scores rank held-out pairs, with confidence intervals by bootstrap over groups.

Everything reported is a function of sums over pairs: counts, correct pairs, log-likelihoods,
calibration bins, powers of scores. So pairs are first reduced to one vector of sums per test group
(:func:`sufficient_statistics`), and a bootstrap replicate is a weighted sum of those vectors. Two
arms measured with the same :class:`.bootstrap.Resamples` are compared pair by pair, which makes
intervals of their difference much narrower than the difference of two intervals.
"""

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from posttrain.config.keys import Key
from posttrain.errors import UserError
from posttrain.evaluation.sums import Columns


class Metric(Key):
    """What :func:`metrics` measures."""

    ACCURACY = "accuracy"
    ACCURACY_1 = "accuracy 1"
    ACCURACY_2 = "accuracy 2"
    ACCURACY_3 = "accuracy 3"
    ACCURACY_4 = "accuracy 4"
    LOG_LIKELIHOOD = "log-likelihood"
    CALIBRATION_ERROR = "calibration error"
    TIES = "ties"
    SPREAD = "spread"
    BIMODALITY = "bimodality"
    SPLIT = "split of differences"


STRATA = ("all", "1", "2", "3", "4")
BINS = 10

#: What is summed over pairs; those with strengths, and those of bins of the confidence, by place.
SUMS = Columns(
    count=len(STRATA),
    correct=len(STRATA),
    log_likelihood=None,
    ties=None,
    bin_count=BINS,
    bin_confidence=BINS,
    bin_correct=BINS,
    difference_squared=None,
    difference_fourth=None,
    # Of the scores of winners and losers, to the power of 1 to 4.
    powers=4,
)
COLUMNS = SUMS.width


def sufficient_statistics(
    winners: np.ndarray,
    losers: np.ndarray,
    strengths: np.ndarray,
    groups: np.ndarray,
    group_count: int,
) -> np.ndarray:
    """Reduce scored pairs to sums per test group, shape ``[..., group_count, COLUMNS]``.

    Args:
        winners: Scores of the preferred responses, ``[..., pairs]``; leading axes are models.
        losers: Scores of the other responses, the same shape.
        strengths: Strength of each pair, 0 where it was not rated, ``[pairs]``.
        groups: Index of each pair's group, ``[pairs]``.
        group_count: Number of groups.
    """
    if not (np.isfinite(winners).all() and np.isfinite(losers).all()):
        raise UserError("scores must be finite; a model that gave NaN or infinity has diverged")
    winners, losers = winners.astype(float), losers.astype(float)
    difference = winners - losers
    correct = (difference > 0) + 0.5 * (difference == 0)
    stratum = np.stack([np.ones(len(strengths)), *(strengths == s for s in (1, 2, 3, 4))], axis=-1)
    confidence = expit(np.abs(difference))
    # Confidence lies in [0.5, 1]; the last bin includes 1.
    places = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    in_bin = places[..., None] == np.arange(BINS)
    columns = SUMS.join(
        count=np.broadcast_to(stratum, (*difference.shape, len(STRATA))),
        correct=correct[..., None] * stratum,
        log_likelihood=-np.logaddexp(0, -difference),
        ties=difference == 0,
        bin_count=in_bin,
        bin_confidence=in_bin * confidence[..., None],
        bin_correct=in_bin * correct[..., None],
        difference_squared=difference**2,
        difference_fourth=difference**4,
        powers=np.stack([winners**power + losers**power for power in (1, 2, 3, 4)], axis=-1),
    )
    # Sparse, because a dense table of pairs by groups outgrows memory at some ten thousand.
    membership = csr_array(
        (np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(group_count, len(groups))
    )
    leading = difference.shape[:-1]
    models = columns.reshape(math.prod(leading), len(groups), COLUMNS)
    return np.stack([membership @ one for one in models]).reshape(*leading, group_count, COLUMNS)


def metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    r"""Metrics of the leading shape from sums over pairs, ``[..., COLUMNS]``.

    - ``accuracy`` and ``accuracy 1`` to ``accuracy 4``: share of pairs ranked as the annotator did,
      over all and by strength; ties count half. NaN where a strength does not occur.
    - ``log-likelihood``: mean log σ(Δ), in nats; a coin flip gives −0.693.
    - ``calibration error``: expected calibration error of the confidence σ(\|Δ\|), ten bins.
    - ``ties``: share of pairs with equal scores.
    - ``spread``: root mean square of Δ.
    - ``bimodality``: Sarle's coefficient of the scores, (skewness² + 1) / kurtosis: ⅓ for a normal
      distribution, 5/9 for a uniform one, 1 for two spikes.
    - ``split of differences``: the same of Δ with either response first, 1 / kurtosis. What sets
      prompts apart is not in it.

    >>> winners, losers = np.array([2.0, 0.5]), np.array([0.0, 1.0])
    >>> strengths, groups = np.array([4, 1]), np.array([0, 1])
    >>> sums = sufficient_statistics(winners, losers, strengths, groups, 2)
    >>> found = metrics(sums.sum(axis=0))
    >>> [round(float(found[name]), 3) for name in ("accuracy", "accuracy 4", "log-likelihood")]
    [0.5, 1.0, -0.551]
    """
    of = SUMS.split(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = of.correct / of.count
        total = of.count[..., 0]
        gaps = np.abs(of.bin_confidence - of.bin_correct).sum(axis=-1)
        mean, second, third, fourth = np.moveaxis(of.powers / (2 * total)[..., None], -1, 0)
        variance = second - mean**2
        skew = (third - 3 * mean * second + 2 * mean**3) / variance**1.5
        kurtosis = (fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4) / variance**2
        return {
            Metric.ACCURACY: accuracy[..., 0],
            Metric.ACCURACY_1: accuracy[..., 1],
            Metric.ACCURACY_2: accuracy[..., 2],
            Metric.ACCURACY_3: accuracy[..., 3],
            Metric.ACCURACY_4: accuracy[..., 4],
            Metric.LOG_LIKELIHOOD: of.log_likelihood / total,
            Metric.CALIBRATION_ERROR: gaps / total,
            Metric.TIES: of.ties / total,
            Metric.SPREAD: np.sqrt(of.difference_squared / total),
            Metric.BIMODALITY: (skew**2 + 1) / kurtosis,
            Metric.SPLIT: of.difference_squared**2 / (total * of.difference_fourth),
        }


def reliability(sums: np.ndarray) -> np.ndarray:
    """Mean confidence, accuracy and share of pairs by bin, ``[BINS, 3]``; NaN in empty bins."""
    of = SUMS.split(sums)
    with np.errstate(invalid="ignore"):
        confidence, correct = of.bin_confidence / of.bin_count, of.bin_correct / of.bin_count
    return np.stack([confidence, correct, of.bin_count / of.bin_count.sum()], axis=-1)

"""Arms of the packing study, what is measured of a trained model, and the tables made of that.

Every test pair is scored twice in a single row: with the group's responses best first, and in
reverse. So each pair has a score difference with the chosen response before the rejected one, and
one with it after. Half their difference is what the order did, their mean is what it did not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.sums import Columns
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.studies.common.tables import TidyTable, difference
from posttrain.studies.packing.keys import MARGIN, Contrast, OrderMetric, RowName

#: How rows are laid out in training. The first is the reference; then each choice is changed alone,
#: then both, as Llama 3's words have it; then the same without shuffling.
ARMS: dict[str, Layout] = {
    RowName.SEPARATE: LAYOUTS["separate"],
    RowName.EXACT: LAYOUTS["exact"],
    RowName.ATTENTION: Layout("single", "causal", "restarting", "shuffled"),
    RowName.POSITIONS: Layout("single", "isolated", "running", "shuffled"),
    RowName.CAUSAL: LAYOUTS["causal"],
    RowName.ATTENTION_RANKED: Layout("single", "causal", "restarting", "ranked"),
    RowName.POSITIONS_RANKED: Layout("single", "isolated", "running", "ranked"),
    RowName.CAUSAL_RANKED: Layout("single", "causal", "running", "ranked"),
}
#: How rows are laid out in testing, each with the responses as ranked and in reverse.
TESTS: dict[str, Layout] = {
    RowName.SEPARATE: LAYOUTS["separate"],
    RowName.ATTENTION: ARMS[RowName.ATTENTION_RANKED],
    RowName.POSITIONS: ARMS[RowName.POSITIONS_RANKED],
    RowName.CAUSAL: ARMS[RowName.CAUSAL_RANKED],
}
#: Paired differences of accuracy between two cells (trained, tested) of the matrix.
CONTRASTS = {
    Contrast.SHUFFLED_RANKED: (
        (RowName.CAUSAL, RowName.CAUSAL),
        (RowName.CAUSAL_RANKED, RowName.CAUSAL),
    ),
    Contrast.OWN_SEPARATE: ((RowName.CAUSAL, RowName.CAUSAL), (RowName.CAUSAL, RowName.SEPARATE)),
    Contrast.SHUFFLED_RANKED_SEPARATELY: (
        (RowName.CAUSAL, RowName.SEPARATE),
        (RowName.CAUSAL_RANKED, RowName.SEPARATE),
    ),
}

#: What is summed over pairs of their score differences, with the chosen response first and last,
#: and alone in a separate row.
SUMS = Columns(
    count=None,
    right_first=None,
    right_last=None,
    flips=None,
    disagrees=None,
    likelihood=None,
    first=None,
    last=None,
    first_squared=None,
    last_squared=None,
    first_last=None,
    alone_squared=None,
    mean_alone=None,
)
COLUMNS = SUMS.width


def own_test(arm: str) -> str:
    """The test layout that matches how an arm was trained."""
    name = arm.removesuffix(", ranked")
    return name if name in TESTS else RowName.SEPARATE


def order_sums(
    first: np.ndarray, last: np.ndarray, alone: np.ndarray, groups: np.ndarray, group_count: int
) -> np.ndarray:
    """Reduce score differences, chosen minus rejected, to sums, ``[group_count, COLUMNS]``.

    ``first`` and ``last`` are those with the chosen response before and after the rejected one,
    ``alone`` the same model's in separate rows, ``groups`` the index of each pair's split group;
    all ``[pairs]``.

    Raises:
        UserError: If a difference is not finite.
    """
    if not all(np.isfinite(values).all() for values in (first, last, alone)):
        raise UserError("scores must be finite; a model that gave NaN or infinity has diverged")
    first, last, alone = (values.astype(float) for values in (first, last, alone))
    disagrees = (np.sign(first) != np.sign(alone)).astype(float) + (np.sign(last) != np.sign(alone))
    columns = SUMS.join(
        count=np.ones(len(first)),
        right_first=_right(first),
        right_last=_right(last),
        flips=np.sign(first) != np.sign(last),
        disagrees=disagrees / 2,
        likelihood=-(np.logaddexp(0, -first) + np.logaddexp(0, -last)) / 2,
        first=first,
        last=last,
        first_squared=first**2,
        last_squared=last**2,
        first_last=first * last,
        alone_squared=alone**2,
        mean_alone=(first + last) / 2 * alone,
    )
    return (groups == np.arange(group_count)[:, None]).astype(float) @ columns


def _right(differences: np.ndarray) -> np.ndarray:
    return (differences > 0) + 0.5 * (differences == 0)


def order_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    r"""Metrics of the leading shape from sums over pairs, ``[..., COLUMNS]``.

    With :math:`D_f` and :math:`D_l` the score difference where the chosen response comes first and
    last, M their mean and H half their difference:

    - ``accuracy``: over both orders; ties count half.
    - ``accuracy, chosen first`` and ``accuracy, chosen last``.
    - ``slot bias``: mean H / RMS M. Positive: the earlier response scores too high.
    - ``order noise``: SD H / RMS M, what the order adds at random.
    - ``flips``: share of pairs whose ranking the order decides.
    - ``disagreement``: share of pairs ranked otherwise than by the same model in separate rows.
    - ``distance``: RMS of M − D / RMS D, with D the difference in separate rows.
    - ``log-likelihood``: mean log σ(D), in nats, over both orders.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = SUMS.split(sums / SUMS.split(sums).count[..., None])
        squares = mean.first_squared + mean.last_squared
        mean_square = (squares + 2 * mean.first_last) / 4
        # A model that scores nothing but the slot has no difference to measure the slot by.
        mean_square = np.where(mean_square > 0, mean_square, np.nan)
        half_square = (squares - 2 * mean.first_last) / 4
        half = (mean.first - mean.last) / 2
        # Rounding may make a variance or a squared distance of nothing slightly negative.
        variance = np.maximum(half_square - half**2, 0)
        moved = np.maximum(np.nan_to_num(mean_square) - 2 * mean.mean_alone + mean.alone_squared, 0)
        return {
            OrderMetric.ACCURACY: (mean.right_first + mean.right_last) / 2,
            OrderMetric.CHOSEN_FIRST: mean.right_first,
            OrderMetric.CHOSEN_LAST: mean.right_last,
            OrderMetric.SLOT_BIAS: half / np.sqrt(mean_square),
            OrderMetric.ORDER_NOISE: np.sqrt(variance / mean_square),
            OrderMetric.FLIPS: mean.flips,
            OrderMetric.DISAGREEMENT: mean.disagrees,
            OrderMetric.DISTANCE: np.sqrt(moved / mean.alone_squared),
            OrderMetric.LOG_LIKELIHOOD: mean.likelihood,
        }


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every arm, test layout and seed."""

    arms: tuple[str, ...]
    tests: tuple[str, ...]
    sums: np.ndarray  #: ``[arms, tests, seeds, test groups, COLUMNS]``.


def summarise(outcome: Outcome, *, resamples: int = 1000) -> dict[str, pd.DataFrame]:
    """Tidy tables of an outcome, each estimate with a 95 % interval over test groups and seeds.

    Returns:
        - ``matrix``: every metric by trained and tested layout.
        - ``differences``: accuracy and log-likelihood minus those of separate rows in training and
          testing, paired; with the 90 % interval.
        - ``contrasts``: the paired differences of :data:`CONTRASTS`, where both arms were trained.
        - ``non-inferiority``: see :func:`non_inferiority`.
    """
    if RowName.SEPARATE not in outcome.arms:
        raise UserError(f"the arm {RowName.SEPARATE!r} is the reference; it must be among the arms")
    draws = Resamples.draw(outcome.sums.shape[3], outcome.sums.shape[2], count=resamples)
    measured = {
        (arm, test): draws.measure(outcome.sums[a, t], order_metrics)
        for a, arm in enumerate(outcome.arms)
        for t, test in enumerate(outcome.tests)
    }
    reference = measured[RowName.SEPARATE, RowName.SEPARATE]
    head = ("trained", "tested", "metric")
    matrix, differences = TidyTable(*head), TidyTable(*head, narrower=(0.9,))
    for (arm, test), values in measured.items():
        matrix.add_metrics(arm, test, metrics=values)
        gaps = difference(values, reference)
        for metric in (OrderMetric.ACCURACY, OrderMetric.LOG_LIKELIHOOD):
            differences.add(arm, test, metric, replicates=gaps[metric])
    contrasts = TidyTable("contrast")
    for name, (first, second) in CONTRASTS.items():
        if first in measured and second in measured:
            gap = difference(measured[first], measured[second])[OrderMetric.ACCURACY]
            contrasts.add(name, replicates=gap)
    return {
        "matrix": matrix.frame(),
        "differences": differences.frame(),
        "contrasts": contrasts.frame(),
        "non-inferiority": non_inferiority(outcome),
    }


def non_inferiority(outcome: Outcome, margin: float = MARGIN) -> pd.DataFrame:
    """Two one-sided t-tests over seeds of each arm's accuracy against separate rows.

    Each seed trains both arms on the same groups and tests them on the same pairs. An arm is
    *equivalent* within the margin where both tests reject at 5 %, and *not inferior* where the
    first does.

    Returns:
        One row for each arm tested in its own layout and each tested in separate rows: its
        ``estimate``, ``sd`` over seeds, ``p inferior`` and ``p superior``; NaN with fewer than two
        seeds.
    """
    seeds = outcome.sums.shape[2]
    accuracy = order_metrics(outcome.sums.sum(axis=3))[OrderMetric.ACCURACY]
    separate = outcome.tests.index(RowName.SEPARATE)
    reference = accuracy[outcome.arms.index(RowName.SEPARATE), separate]
    rows = []
    for a, arm in enumerate(outcome.arms):
        for test in dict.fromkeys((own_test(arm), RowName.SEPARATE)):
            gap = accuracy[a, outcome.tests.index(test)] - reference
            spread = gap.std(ddof=1) if seeds > 1 else np.nan
            lower = _p_value(gap, -margin, "greater")
            upper = _p_value(gap, margin, "less")
            rows.append((arm, test, seeds, gap.mean(), spread, lower, upper))
    columns = ["trained", "tested", "seeds", "estimate", "sd", "p inferior", "p superior"]
    return pd.DataFrame(rows, columns=columns)


def _p_value(values: np.ndarray, bound: float, side: str) -> float:
    if len(values) < 2:
        return float("nan")
    if np.allclose(values, values[0], rtol=0, atol=1e-12):
        # All seeds agree, as they do where two layouts are the same computation.
        beyond = values[0] > bound if side == "greater" else values[0] < bound
        return 0.0 if beyond else 1.0
    return float(stats.ttest_1samp(values, bound, alternative=side).pvalue)


def chosen_rates(tuning: pd.DataFrame) -> dict[str, float]:
    """The learning rate with the best validation accuracy of each arm."""
    best = tuning.fillna({"accuracy": 0.0}).groupby("trained")["accuracy"].idxmax()
    return tuning.loc[best].set_index("trained")["learning rate"].to_dict()


def both_orders(
    ranked: np.ndarray, backwards: np.ndarray | None, sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Score differences of chosen to rejected, with the chosen first and last, each ``[groups]``.

    ``ranked`` and ``backwards`` are flat scores of the groups as ranked and in reverse (None where
    order means nothing), ``sizes`` the number of responses of each group.
    """
    ends = np.cumsum(sizes)
    starts = ends - np.asarray(sizes)
    # As ranked, chosen and rejected are the last two; in reverse, the second and the first.
    first = ranked[ends - 2] - ranked[ends - 1]
    return first, first if backwards is None else backwards[starts + 1] - backwards[starts]

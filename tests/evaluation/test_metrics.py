"""Metrics against independent computations, and intervals that cover the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from sklearn.metrics import accuracy_score, log_loss

from posttrain.evaluation.bootstrap import Resamples, interval, slope
from posttrain.evaluation.metrics import BINS, COLUMNS, metrics, reliability, sufficient_statistics

SCORES = st.lists(
    st.tuples(st.floats(-6, 6), st.floats(-6, 6), st.integers(0, 4), st.integers(0, 2)),
    min_size=2,
    max_size=12,
)


@pytest.fixture
def drawn():
    """Winners, losers, strengths and groups of 400 pairs, some of them tied or unrated."""
    random = np.random.default_rng(0)
    winners, losers = random.normal(0.5, 1.5, 400), random.normal(0, 1.5, 400)
    losers[::9] = winners[::9]
    return winners, losers, random.integers(0, 5, 400), random.integers(0, 20, 400)


def total(winners, losers, strengths=None):
    """Sums over all pairs, as one group."""
    winners, losers = np.asarray(winners, dtype=float), np.asarray(losers, dtype=float)
    strengths = np.ones(len(winners), dtype=int) if strengths is None else np.asarray(strengths)
    return sufficient_statistics(winners, losers, strengths, np.zeros(len(winners), dtype=int), 1)[
        0
    ]


def measured(*arguments):
    return {name: float(value) for name, value in metrics(total(*arguments)).items()}


def calibration_error(winners, losers):
    """Expected calibration error, pair by pair and bin by bin."""
    error = 0.0
    for place in range(BINS):
        low, high = 0.5 + place / (2 * BINS), 0.5 + (place + 1) / (2 * BINS)
        gap = 0.0
        for winner, loser in zip(winners, losers, strict=True):
            confidence = 1 / (1 + np.exp(-abs(winner - loser)))
            if low <= confidence < high or (place == BINS - 1 and confidence == 1):
                right = 0.5 if winner == loser else float(winner > loser)
                gap += confidence - right
        error += abs(gap) / len(winners)
    return error


def test_four_pairs_by_hand():
    found = measured([2.0, 0.0, 1.0, 3.0], [0.0, 1.0, 1.0, 0.0], [4, 1, 1, 3])
    assert found["accuracy"] == 2.5 / 4
    assert found["accuracy 1"] == 0.25
    assert np.isnan(found["accuracy 2"])
    assert (found["accuracy 3"], found["accuracy 4"]) == (1.0, 1.0)
    assert found["ties"] == 0.25
    assert found["spread"] == pytest.approx(np.sqrt((4 + 1 + 0 + 9) / 4))
    logs = np.log(expit(np.array([2.0, -1.0, 0.0, 3.0])))
    assert found["log-likelihood"] == pytest.approx(logs.mean(), abs=1e-15)


def test_metrics_are_those_of_sklearn_and_scipy(drawn):
    winners, losers, strengths, _ = drawn
    difference = winners - losers
    found = measured(winners, losers, strengths)
    kept = difference != 0
    agrees = accuracy_score(np.ones(kept.sum()), difference[kept] > 0, normalize=False)
    assert found["accuracy"] == pytest.approx((agrees + 0.5 * (~kept).sum()) / 400, abs=1e-15)
    assert found["ties"] == pytest.approx((~kept).mean())
    right = np.where(kept, difference > 0, 0.5)
    for strength in (1, 2, 3, 4):
        expected = right[strengths == strength].mean()
        assert found[f"accuracy {strength}"] == pytest.approx(expected, abs=1e-14)
    loss = log_loss(np.ones(400), expit(difference), labels=[0, 1])
    assert found["log-likelihood"] == pytest.approx(-loss, abs=1e-12)
    assert found["calibration error"] == pytest.approx(
        calibration_error(winners, losers), abs=1e-13
    )
    assert found["spread"] == pytest.approx(np.sqrt(np.mean(difference**2)), abs=1e-13)
    scores = np.concatenate([winners, losers])
    sarle = (stats.skew(scores) ** 2 + 1) / stats.kurtosis(scores, fisher=False)
    assert found["bimodality"] == pytest.approx(sarle, abs=1e-12)
    either = np.concatenate([difference, -difference])
    split = 1 / stats.kurtosis(either, fisher=False)
    assert found["split of differences"] == pytest.approx(split, abs=1e-12)


@given(SCORES)
def test_calibration_error_is_that_of_an_independent_loop(values):
    winners, losers, _, _ = (np.array(column) for column in zip(*values, strict=True))
    # A confidence on the edge of a bin may fall on either side by rounding.
    edges = np.abs((expit(np.abs(winners - losers)) - 0.5) * 2 * BINS % 1)
    if ((edges < 1e-9) | (edges > 1 - 1e-9))[winners != losers].any():
        return
    expected = calibration_error(winners, losers)
    assert measured(winners, losers)["calibration error"] == pytest.approx(expected, abs=1e-12)


def test_confidence_of_exactly_one_is_in_the_last_bin():
    rows = reliability(total([1000.0, 0.0], [0.0, 1000.0]))
    assert rows[-1].tolist() == [1.0, 0.5, 1.0]
    assert measured([1000.0, 0.0], [0.0, 1000.0])["calibration error"] == 0.5


def test_a_reliability_diagram_by_hand():
    rows = reliability(total([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 4.0]))
    assert rows.shape == (BINS, 3)
    # Ties have confidence ½ and are half right; σ(1) = 0.731 and σ(4) = 0.982.
    assert rows[0].tolist() == [0.5, 0.5, 0.25]
    assert rows[4].tolist() == pytest.approx([expit(1.0), 0.5, 0.5])
    assert rows[9].tolist() == pytest.approx([expit(4.0), 0.0, 0.25])
    empty = [1, 2, 3, 5, 6, 7, 8]
    assert np.isnan(rows[empty, :2]).all()
    assert (rows[empty, 2] == 0).all()


def test_extreme_scores_have_a_finite_log_likelihood():
    assert measured([0.0], [1000.0])["log-likelihood"] == -1000.0
    assert measured([1000.0], [0.0])["log-likelihood"] == 0.0


def test_bimodality_of_known_distributions():
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    for scores, expected, tolerance in (
        (stats.norm.ppf(quantiles), 1 / 3, 2e-3),
        (3 * quantiles - 7, 5 / 9, 1e-4),
        (np.where(quantiles < 0.5, -2.0, 5.0), 1.0, 1e-9),
    ):
        mixed = np.random.default_rng(0).permutation(scores)
        assert measured(mixed[::2], mixed[1::2])["bimodality"] == pytest.approx(
            expected, abs=tolerance
        )


def test_bimodality_ignores_the_origin_and_unit_of_scores(drawn):
    winners, losers, _, _ = drawn
    moved = measured(3 * winners + 5, 3 * losers + 5)["bimodality"]
    assert moved == pytest.approx(measured(winners, losers)["bimodality"], abs=1e-10)


@given(SCORES)
def test_sufficient_statistics_are_sums_over_the_pairs_of_each_group(values):
    winners, losers, strengths, groups = (np.array(column) for column in zip(*values, strict=True))
    sums = sufficient_statistics(winners, losers, strengths, groups, 3)
    assert sums.shape == (3, COLUMNS)
    for group in range(3):
        chosen = groups == group
        alone = total(winners[chosen], losers[chosen], strengths[chosen])
        np.testing.assert_allclose(sums[group], alone, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(
        sums.sum(axis=0), total(winners, losers, strengths), rtol=1e-12, atol=1e-9
    )


def test_leading_axes_are_models(drawn):
    winners, losers, strengths, groups = drawn
    models = np.stack([winners, -winners, losers])
    sums = sufficient_statistics(models, np.stack([losers] * 3), strengths, groups, 20)
    assert sums.shape == (3, 20, COLUMNS)
    for place in range(3):
        alone = sufficient_statistics(models[place], losers, strengths, groups, 20)
        np.testing.assert_allclose(sums[place], alone, rtol=1e-12, atol=1e-10)
    assert metrics(sums)["accuracy"].shape == (3, 20)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_not_finite_are_refused(bad, side):
    scores = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    scores[side][1] = bad
    with pytest.raises(ValueError, match="scores must be finite"):
        sufficient_statistics(*scores, np.array([1, 1]), np.array([0, 0]), 1)


def test_the_first_replicate_is_the_estimate(drawn):
    winners, losers, strengths, groups = drawn
    one = sufficient_statistics(winners, losers, strengths, groups, 20)
    two = sufficient_statistics(winners + 0.5, losers, strengths, groups, 20)
    replicates = Resamples.draw(20, 2, count=50).measure(np.stack([one, two]))
    for name, values in replicates.items():
        assert values.shape == (51,)
        expected = (metrics(one.sum(axis=0))[name] + metrics(two.sum(axis=0))[name]) / 2
        assert values[0] == pytest.approx(expected, abs=1e-12)
        assert len(set(values[1:].tolist())) > 10


def test_a_replicate_is_a_draw_of_whole_groups_and_of_seeds():
    draws = Resamples.draw(7, 3, count=200, seed=1)
    assert draws.groups.shape == (201, 7)
    assert draws.seeds.shape == (201, 3)
    assert (draws.groups == draws.groups.round()).all()
    assert (draws.groups.sum(axis=1) == 7).all()
    np.testing.assert_allclose(draws.seeds.sum(axis=1), 1)
    assert (draws.groups[0] == 1).all()
    assert {0, 2} <= set(draws.groups[1:].ravel())
    again, other = (Resamples.draw(7, 3, count=200, seed=seed) for seed in (1, 2))
    assert (again.groups == draws.groups).all()
    assert not (other.groups == draws.groups).all()


def test_a_replicate_repeats_the_pairs_of_a_group_drawn_twice(drawn):
    winners, losers, strengths, groups = drawn
    sums = sufficient_statistics(winners, losers, strengths, groups, 20)
    draws = Resamples.draw(20, 1, count=3)
    found = draws.measure(sums[None])
    for replicate in (1, 2, 3):
        times = draws.groups[replicate].astype(int)
        pairs = np.concatenate(
            [np.tile(np.flatnonzero(groups == g), t) for g, t in enumerate(times)]
        )
        expected = measured(winners[pairs], losers[pairs], strengths[pairs])
        for name, value in expected.items():
            assert found[name][replicate] == pytest.approx(value, abs=1e-10)


def test_a_seed_that_a_replicate_does_not_draw_leaves_no_trace():
    draws = Resamples(np.ones((1, 1)), np.array([[0.0, 1.0]]))
    good, rated = total([1.0], [0.0], [1]), total([0.0], [1.0], [2])
    # The first seed has no pair of strength 2: its accuracy there is NaN.
    found = draws.measure(np.stack([good, rated])[:, None])
    assert found["accuracy 2"].tolist() == [0.0]
    assert found["accuracy"].tolist() == [0.0]


def test_identical_arms_differ_by_exactly_nothing(drawn):
    winners, losers, strengths, groups = drawn
    draws = Resamples.draw(20, 1, count=100)
    first, second = (
        draws.measure(sufficient_statistics(winners, losers, strengths, groups, 20)[None])
        for _ in "ab"
    )
    for name, values in first.items():
        assert interval(values - second[name]) == (0.0, 0.0, 0.0)
        # The metric itself is uncertain.
        low, high = interval(values)[1:]
        assert high - low > 0.01


def test_paired_intervals_are_narrower(drawn):
    winners, losers, strengths, groups = drawn
    other = winners + np.random.default_rng(1).normal(0, 0.1, 400)
    draws = Resamples.draw(20, 1, count=500)
    first, second = (
        draws.measure(sufficient_statistics(w, losers, strengths, groups, 20)[None])["accuracy"]
        for w in (winners, other)
    )
    paired = np.ptp(interval(first - second)[1:])
    assert paired < 0.5 * np.ptp(interval(first)[1:])


def test_an_interval_is_the_percentiles_of_the_replicates():
    replicates = np.concatenate([[7.0], np.arange(101.0)])
    assert interval(replicates) == pytest.approx((7.0, 2.5, 97.5))
    assert interval(replicates, level=0.5) == pytest.approx((7.0, 25.0, 75.0))
    assert interval(np.insert(replicates, 4, np.nan)) == pytest.approx((7.0, 2.5, 97.5))


@pytest.mark.parametrize("replicates", [[np.nan, 1.0, 2.0], [1.0, np.nan], [np.nan, np.nan]])
def test_an_interval_of_nothing_is_nan(replicates):
    assert np.isnan(interval(np.array(replicates))).all()


def test_intervals_cover_the_truth_on_clustered_pairs():
    # Each group has its own accuracy, uniform on [0.4, 1]: pairs of a group are far from
    # independent, and an interval that took them for independent would cover about half the time.
    random = np.random.default_rng(5)
    covered, covered_by_pairs, trials = 0, 0, 200
    for trial in range(trials):
        chance = np.repeat(random.uniform(0.4, 1.0, 40), 25)
        winners = np.where(random.random(1000) < chance, 1.0, -1.0)
        arguments = (winners, np.zeros(1000), np.ones(1000))
        for by_pairs in (False, True):
            groups = np.arange(1000) if by_pairs else np.repeat(np.arange(40), 25)
            count = 1000 if by_pairs else 40
            # Accuracy needs two of the columns only.
            sums = np.zeros((1, count, COLUMNS))
            np.add.at(sums[0, :, 0], groups, arguments[2])
            np.add.at(sums[0, :, 5], groups, winners > 0)
            draws = Resamples.draw(count, 1, count=200, seed=trial)
            _, low, high = interval(draws.measure(sums)["accuracy"])
            if by_pairs:
                covered_by_pairs += low <= 0.7 <= high
            else:
                covered += low <= 0.7 <= high
    # Four standard errors around 0.95 leave 0.89; percentile intervals of 40 groups run short.
    assert 0.87 <= covered / trials <= 0.99
    assert covered_by_pairs / trials < 0.8


def test_a_slope_is_that_of_a_line_fitted_to_logarithms():
    random = np.random.default_rng(0)
    curves = random.normal(size=(3, 4))
    expected = np.polyfit(np.log10([100, 300, 5000]), curves, 1)[0]
    np.testing.assert_allclose(slope([100, 300, 5000], curves), expected)
    assert np.isnan(slope([100], curves[:1])).all()
    curves[1, 2] = np.nan
    assert np.isnan(slope([100, 300, 5000], curves)).tolist() == [False, False, True, False]

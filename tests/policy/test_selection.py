"""Choosing samples: against every subset, by hand, and against simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from posttrain.errors import UserError
from posttrain.policy.selection import (
    COMBINED,
    Selection,
    best,
    best_of_n_divergence,
    combine,
    expected_best,
    random_control,
)


def over_subsets(proxy, values, size):
    """The mean over all subsets of the value of the best; equals share it."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), size):
        top = max(proxy[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if proxy[i] == top]))
    return np.mean(found)


@st.composite
def scored(draw):
    prompts, samples = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    # Few distinct scores, so that many are equal.
    proxy = draw(arrays.arrays(float, (prompts, samples), elements=st.sampled_from([0.0, 1, 2, 5])))
    values = draw(arrays.arrays(float, (prompts, samples), elements=st.floats(-5, 5)))
    return proxy, values


@given(scored())
@settings(max_examples=150, deadline=None)
def test_expected_best_is_the_mean_over_all_subsets(given_scores):
    proxy, values = given_scores
    sizes = list(range(1, proxy.shape[1] + 1))
    found = expected_best(proxy, values, sizes)
    assert found.shape == (len(sizes), len(proxy))
    for size, row in zip(sizes, found, strict=True):
        expected = [over_subsets(p, v, size) for p, v in zip(proxy, values, strict=True)]
        np.testing.assert_allclose(row, expected, atol=1e-10)


def test_expected_best_takes_each_equal_as_often():
    proxy, values = np.array([[1.0, 1.0, 0.0]]), np.array([[4.0, 0.0, 9.0]])
    # Of one: the mean. Of two: {0, 1} gives 2, {0, 2} gives 4, {1, 2} gives 0.
    np.testing.assert_allclose(expected_best(proxy, values, [1, 2, 3])[:, 0], [13 / 3, 2, 2])


def test_expected_best_of_all_prompts_is_that_of_each():
    rng = np.random.default_rng(0)
    proxy, values = rng.integers(0, 3, (4, 6)).astype(float), rng.normal(size=(4, 6))
    # Equal scores meet where one prompt ends and the next begins.
    proxy[0] = proxy[1] = 1
    together = expected_best(proxy, values, np.array([1, 3, 6]))
    alone = [expected_best(proxy[i : i + 1], values[i : i + 1], [1, 3, 6]) for i in range(4)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-12)


def test_expected_best_is_exact_for_many_samples():
    proxy = np.arange(1000.0)[None]
    # The largest of n of 1..N is (N + 1) n / (n + 1) on average.
    sizes = [1, 2, 10, 500, 1000]
    expected = [1001 * n / (n + 1) - 1 for n in sizes]
    np.testing.assert_allclose(expected_best(proxy, proxy, sizes)[:, 0], expected, rtol=1e-9)


def test_expected_best_needs_as_many_samples():
    with pytest.raises(UserError, match="best of 4 needs as many samples, and there are 3"):
        expected_best(np.zeros((1, 3)), np.zeros((1, 3)), [1, 4])


def test_divergence_of_best_of_n():
    found = best_of_n_divergence([1, 2, 4, 100])
    expected = [0, math.log(2) - 1 / 2, math.log(4) - 3 / 4, math.log(100) - 99 / 100]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(best_of_n_divergence(np.array([2])), expected[1:2])


@pytest.mark.parametrize("size", [2, 3, 8])
def test_divergence_is_the_integral_over_ranks(size):
    # The best of n has density n u^(n − 1) on the scale of ranks, where the policy is uniform.
    u = (np.arange(200_000) + 0.5) / 200_000
    density = size * u ** (size - 1)
    assert best_of_n_divergence([size])[0] == pytest.approx(
        (density * np.log(density)).mean(), abs=1e-5
    )


SCORES = np.array([[[1.0, 2.0], [0.0, -1.0]], [[3.0, 2.0], [2.0, -1.0]], [[5.0, 2.0], [4.0, -4.0]]])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [[3, 2], [2, -2]]),
        ("minimum", [[1, 2], [0, -4]]),
        # Variances are 8/3, 0, 8/3 and 2.
        ("mean - variance", [[3 - 4 / 3, 2], [2 - 4 / 3, -3]]),
    ],
)
def test_scores_of_several_models_become_one(how, expected):
    np.testing.assert_allclose(combine(SCORES, how), expected)


@pytest.mark.parametrize("how", COMBINED)
def test_scores_of_one_model_stay(how):
    np.testing.assert_array_equal(combine(SCORES[:1], how), SCORES[0])


def test_an_unknown_combination_is_refused():
    with pytest.raises(UserError, match=r"'median'; known: mean, minimum, mean - variance"):
        combine(SCORES, "median")


def test_the_best_sample_is_the_first_of_the_highest():
    chosen = best(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0], [-5.0, -4.0, -3.0]]))
    assert chosen.prompts.tolist() == [0, 1, 2]
    assert chosen.samples.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("share", "prompts", "samples"),
    [
        (1.0, [0, 1, 2, 3], [0, 1, 1, 0]),
        (0.75, [1, 2, 3], [1, 1, 0]),
        (0.5, [1, 3], [1, 0]),
        (0.25, [3], [0]),
        (0.01, [3], [0]),
    ],
)
def test_a_share_keeps_the_prompts_whose_best_is_highest(share, prompts, samples):
    scores = np.array([[1.0, 0.0], [0.0, 7.0], [2.0, 3.0], [9.0, 0.0]])
    chosen = best(scores, share)
    assert chosen.prompts.tolist() == prompts
    assert chosen.samples.tolist() == samples
    assert chosen.of(scores).tolist() == [scores[p].max() for p in prompts]


def test_of_equal_prompts_the_first_are_kept():
    assert best(np.ones((4, 2)), 0.5).prompts.tolist() == [0, 1]


def test_of_takes_the_values_of_the_chosen():
    chosen = Selection(np.array([0, 2]), np.array([1, 0]))
    assert chosen.of(np.arange(6).reshape(3, 2)).tolist() == [1, 4]


def test_the_control_has_the_same_prompts_and_other_samples():
    chosen = best(np.random.default_rng(0).normal(size=(400, 5)), 0.5)
    control = random_control(chosen, 5, seed=3)
    assert np.array_equal(control.prompts, chosen.prompts)
    assert control.samples.shape == chosen.samples.shape
    counts = np.bincount(control.samples, minlength=5)
    assert len(counts) == 5
    # Four standard deviations of a binomial count.
    assert abs(counts - 40).max() < 4 * math.sqrt(200 * 0.2 * 0.8)
    # It knows nothing of the choice.
    assert abs((control.samples == chosen.samples).mean() - 0.2) < 4 * math.sqrt(0.16 / 200)


def test_the_control_is_that_of_its_seed():
    chosen = best(np.zeros((50, 8)))
    first, again, other = (random_control(chosen, 8, seed=seed).samples for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)

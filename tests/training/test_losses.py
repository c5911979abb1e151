"""Losses by hand, by autograd and against a numerical minimiser."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_expit
from torch.nn.functional import binary_cross_entropy_with_logits

from posttrain.training.losses import (
    MARGINS,
    label_loss,
    margins_by_strength,
    optimal_difference,
    plackett_luce_loss,
    ranking_loss,
)

PROBABILITIES = st.floats(0.01, 0.99)
FINITE = st.floats(-8, 8)
MARGIN_VALUES = st.floats(0.0, 4.0)
SCORES = st.lists(
    st.tuples(st.floats(-8, 8), st.floats(-8, 8), st.floats(0, 3), st.floats(0.1, 4)),
    min_size=1,
    max_size=6,
)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def by_hand(winner, loser, margin=0.0):
    return math.log(1 + math.exp(-(winner - loser - margin)))


def test_margins_are_those_of_table_27_of_llama_2():
    assert MARGINS["small"] == {4: 1.0, 3: 2 / 3, 2: 1 / 3, 1: 0.0}
    assert MARGINS["large"] == {4: 3.0, 3: 2.0, 2: 1.0, 1: 0.0}
    assert MARGINS["none"] == dict.fromkeys((1, 2, 3, 4), 0.0)


def test_margins_by_strength_looks_up_every_pair():
    margins = margins_by_strength([4, 1, 3, 2], "large")
    assert margins.dtype == torch.float64
    assert margins.tolist() == [3.0, 0.0, 2.0, 1.0]
    assert margins_by_strength([2], {2: 0.25}).tolist() == [0.25]


def test_unrated_pairs_have_a_margin_only_where_all_margins_are_zero():
    assert margins_by_strength([None, 3], "none").tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="pair 1 has no strength"):
        margins_by_strength([3, None], "small")


def test_unknown_table_and_missing_strength_are_refused():
    with pytest.raises(ValueError, match="unknown margin table 'huge'; known: none, small, large"):
        margins_by_strength([1], "huge")
    with pytest.raises(ValueError, match="pair 0: the margin table has no entry for 4"):
        margins_by_strength([4], {1: 0.5})


def test_batch_of_one():
    loss = ranking_loss(tensor(2.0), tensor(0.5), margins=tensor(1.0))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_hand(2.0, 0.5, 1.0), abs=1e-15)
    assert ranking_loss(tensor(1.0), tensor(1.0)).item() == pytest.approx(math.log(2), abs=1e-15)


def test_every_pair_gets_its_own_margin():
    winners, losers, margins = (2.0, -1.0, 0.3), (0.5, 1.0, 0.1), (3.0, 0.0, 1 / 3)
    expected = [by_hand(*each) for each in zip(winners, losers, margins, strict=True)]
    arguments = (tensor(*winners), tensor(*losers))
    each = ranking_loss(*arguments, margins=tensor(*margins), reduction="none")
    assert each.tolist() == pytest.approx(expected, abs=1e-14)
    mean = ranking_loss(*arguments, margins=tensor(*margins))
    assert mean.item() == pytest.approx(sum(expected) / 3, abs=1e-14)


def test_weights_equal_to_strengths_give_scaled_bradley_terry():
    winners, losers, strengths = tensor(1.0, 0.0), tensor(0.0, 2.0), tensor(1.0, 3.0)
    each = ranking_loss(winners, losers, weights=strengths, reduction="none")
    assert each.tolist() == pytest.approx([by_hand(1, 0), 3 * by_hand(0, 2)], abs=1e-14)
    mean = ranking_loss(winners, losers, weights=strengths)
    assert mean.item() == pytest.approx((by_hand(1, 0) + 3 * by_hand(0, 2)) / 2, abs=1e-14)


def test_weight_of_two_counts_like_the_pair_twice():
    weighted = ranking_loss(tensor(1.0, 0.0), tensor(0.0, 2.0), weights=tensor(2.0, 1.0))
    repeated = ranking_loss(tensor(1.0, 1.0, 0.0), tensor(0.0, 0.0, 2.0))
    # The mean divides by pairs: two here, three there.
    assert 2 * weighted.item() == pytest.approx(3 * repeated.item(), abs=1e-14)


@given(SCORES, st.floats(0, 100))
def test_scaling_all_weights_scales_the_loss(values, factor):
    winners, losers, margins, weights = (tensor(*column) for column in zip(*values, strict=True))
    loss = ranking_loss(winners, losers, margins=margins, weights=weights)
    scaled = ranking_loss(winners, losers, margins=margins, weights=factor * weights)
    assert scaled.item() == pytest.approx(factor * loss.item(), rel=1e-12)


def test_a_weight_counts_in_a_batch_of_one():
    plain = ranking_loss(tensor(1.0), tensor(0.5))
    weighted = ranking_loss(tensor(1.0), tensor(0.5), weights=tensor(3.0))
    assert weighted.item() == pytest.approx(3 * plain.item(), abs=1e-14)


def test_weights_of_zero_are_allowed():
    half = ranking_loss(tensor(1.0, 5.0), tensor(0.0, 0.0), weights=tensor(1.0, 0.0))
    assert half.item() == pytest.approx(by_hand(1, 0) / 2, abs=1e-14)
    assert ranking_loss(tensor(1.0), tensor(0.0), weights=tensor(0.0)).item() == 0.0


def test_centring_adds_the_squared_sum_of_both_scores_whatever_the_weights():
    winners, losers, weights = tensor(1.0, 0.5), tensor(2.0, -0.5), tensor(1.0, 7.0)
    for reduction, expected in (("mean", 0.1 * 9 / 2), ("none", [0.1 * 9, 0.0])):
        plain, centred = (
            ranking_loss(
                winners,
                losers,
                weights=weights,
                center_rewards_coefficient=center_rewards_coefficient,
                reduction=reduction,
            )
            for center_rewards_coefficient in (0.0, 0.1)
        )
        assert (centred - plain).tolist() == pytest.approx(expected, abs=1e-14)


@given(SCORES)
def test_gradient_of_the_margin_loss(values):
    winners, losers, margins, weights = (tensor(*column) for column in zip(*values, strict=True))
    winners.requires_grad_()
    losers.requires_grad_()
    losses = ranking_loss(winners, losers, margins=margins, weights=weights, reduction="none")
    losses.sum().backward()
    difference = (winners - losers).detach()
    expected = -weights * torch.sigmoid(margins - difference)
    torch.testing.assert_close(winners.grad, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(losers.grad, -expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_computed_in_float32(dtype):
    # In bfloat16 the difference minus the margin, 0.0039 − 1/3, keeps two digits only.
    winners, losers = torch.tensor([1.0], dtype=dtype), torch.tensor([0.99609375], dtype=dtype)
    loss = ranking_loss(winners, losers, margins=tensor(1 / 3))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_hand(1.0, 0.99609375, 1 / 3), abs=1e-7)


def test_float64_scores_stay_float64():
    margins = torch.tensor([1.0], dtype=torch.float32)
    assert ranking_loss(tensor(1.0), tensor(0.0), margins=margins).dtype == torch.float64


@pytest.mark.parametrize("difference", [-21.0, -25.0])
def test_loss_and_gradient_of_badly_wrong_pairs_are_exact(difference):
    winners = tensor(difference).requires_grad_()
    loss = ranking_loss(winners, tensor(0.0))
    loss.backward()
    assert loss.item() + difference == pytest.approx(math.exp(difference), rel=1e-4)
    assert 1 + winners.grad.item() == pytest.approx(math.exp(difference), rel=1e-4)


def test_extreme_scores_neither_overflow_nor_vanish():
    assert ranking_loss(tensor(0.0), tensor(1000.0)).item() == 1000.0
    assert ranking_loss(tensor(1000.0), tensor(0.0)).item() == 0.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"winners": torch.zeros(3, 1), "losers": torch.zeros(3)},
        {"winners": torch.zeros(3), "losers": torch.zeros(3, 1)},
        {"winners": torch.zeros(3, 1), "losers": torch.zeros(3, 1)},
        {"winners": torch.zeros(3), "losers": torch.zeros(1)},
        {"winners": torch.zeros(3), "losers": torch.zeros(3), "margins": torch.zeros(3, 1)},
        {"winners": torch.zeros(3), "losers": torch.zeros(3), "margins": torch.zeros(1)},
        {"winners": torch.zeros(3), "losers": torch.zeros(3), "weights": torch.ones(3, 1)},
        {"winners": torch.zeros(0), "losers": torch.zeros(0)},
        {"winners": torch.tensor(0.0), "losers": torch.tensor(0.0)},
    ],
)
def test_shapes_that_would_broadcast_are_refused(arguments):
    with pytest.raises(ValueError, match=r"expected tensors of one shape \[pairs\]"):
        ranking_loss(**arguments)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="weights must not be negative"):
        ranking_loss(tensor(1.0, 1.0), tensor(0.0, 0.0), weights=tensor(-1.0, 2.0))


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="unknown reduction 'sum'"):
        ranking_loss(tensor(1.0), tensor(0.0), reduction="sum")


@given(PROBABILITIES, MARGIN_VALUES)
def test_optimal_difference_minimises_the_expected_loss(probability, margin):
    def expected_loss(difference):
        return -probability * log_expit(difference - margin) - (1 - probability) * log_expit(
            -difference - margin
        )

    found = minimize_scalar(
        expected_loss, bounds=(-12, 12), method="bounded", options={"xatol": 1e-9}
    )
    difference = optimal_difference(tensor(probability), margin).item()
    # A minimiser resolves the square root of the rounding error only.
    assert difference == pytest.approx(found.x, abs=2e-5)


@given(PROBABILITIES, MARGIN_VALUES)
def test_optimal_difference_is_antisymmetric(probability, margin):
    forth = optimal_difference(tensor(probability), margin).item()
    back = optimal_difference(tensor(1 - probability), margin).item()
    assert forth == pytest.approx(-back, abs=1e-11)


@given(PROBABILITIES)
def test_optimal_difference_without_a_margin_is_the_logit(probability):
    difference = optimal_difference(tensor(probability), 0.0).item()
    assert difference == pytest.approx(math.log(probability / (1 - probability)), abs=1e-11)


@given(MARGIN_VALUES)
def test_optimal_difference_of_an_even_pair_is_zero(margin):
    assert optimal_difference(tensor(0.5), margin).item() == pytest.approx(0.0, abs=1e-12)


@given(MARGIN_VALUES, st.floats(1e-12, 1e-8))
def test_optimal_difference_of_a_sure_pair_is_the_logit_plus_the_margin(margin, doubt):
    probability = 1 - doubt
    logit = math.log(probability / (1 - probability))
    difference = optimal_difference(tensor(probability), margin).item()
    assert difference == pytest.approx(logit + margin, abs=1e-6)


def test_optimal_difference_takes_many_probabilities_and_margins():
    probability, margin = tensor(0.2, 0.9), tensor(0.0, 1.0)
    difference = optimal_difference(probability, margin)
    assert difference.shape == (2,)
    assert difference[0].item() == pytest.approx(math.log(0.25), abs=1e-12)
    assert difference[1].item() == optimal_difference(tensor(0.9), 1.0).item()


@given(st.lists(FINITE, min_size=2, max_size=2))
def test_the_ranking_of_two_is_a_pair(values):
    scores = tensor(*values)
    expected = ranking_loss(scores[:1], scores[1:])
    torch.testing.assert_close(plackett_luce_loss(scores, [2]), expected)


@given(st.lists(FINITE, min_size=3, max_size=3))
def test_the_ranking_of_three_is_the_sum_of_pairs_less_what_is_counted_twice(values):
    best, middle, worst = scores = tensor(*values)
    pairs = ranking_loss(scores[[0, 0, 1]], scores[[1, 2, 2]], reduction="none").sum()
    a, b = (middle - best).exp(), (worst - best).exp()
    expected = pairs - torch.log1p(a * b / (1 + a + b))
    torch.testing.assert_close(plackett_luce_loss(scores, [3]), expected, rtol=1e-9, atol=1e-9)


@given(st.lists(st.lists(FINITE, min_size=2, max_size=5), min_size=1, max_size=4))
def test_a_ranking_is_the_choice_of_the_best_of_what_is_left_and_groups_weigh_the_same(groups):
    expected = sum(
        -tensor(*group[best:]).log_softmax(0)[0]
        for group in groups
        for best in range(len(group) - 1)
    ) / len(groups)
    scores = tensor(*(score for group in groups for score in group)).requires_grad_()
    found = plackett_luce_loss(scores, [len(group) for group in groups])
    torch.testing.assert_close(found, expected)
    found.backward()
    # Only differences of scores within a group matter.
    for part in scores.grad.split([len(group) for group in groups]):
        assert part.sum().item() == pytest.approx(0, abs=1e-12)


def test_the_likelihoods_of_all_rankings_sum_to_one():
    scores = [0.3, -1.2, 2.0, 0.5]
    losses = [plackett_luce_loss(tensor(*order), [4]) for order in itertools.permutations(scores)]
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1)


def test_half_precision_rankings_are_computed_in_float32():
    scores = torch.tensor([20.0, 20.0, 19.0], dtype=torch.bfloat16)
    found = plackett_luce_loss(scores, [3])
    assert found.dtype == torch.float32
    expected = plackett_luce_loss(scores.double(), [3])
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_a_score_that_is_no_number_is_not_passed_over():
    assert plackett_luce_loss(tensor(1.0, math.nan, 0.0), [3]).isnan()


@pytest.mark.parametrize(
    ("shape", "counts"), [((3,), [2]), ((2, 1), [2]), ((3,), [2, 1]), ((0,), []), ((1,), [1])]
)
def test_scores_that_are_no_groups_are_refused(shape, counts):
    with pytest.raises(ValueError, match=r"expected scores \[responses\] of groups of two or more"):
        plackett_luce_loss(torch.zeros(shape), counts)


def test_labels_by_hand():
    scores, acceptable = tensor(2.0, -1.0, 0.0), torch.tensor([True, True, False])
    expected = [by_hand(2, 0), by_hand(-1, 0), math.log(2)]
    each = label_loss(scores, acceptable, reduction="none")
    assert each.tolist() == pytest.approx(expected, abs=1e-14)
    assert label_loss(scores, acceptable).item() == pytest.approx(sum(expected) / 3, abs=1e-14)
    assert label_loss(tensor(3.0), torch.tensor([False])).item() == pytest.approx(by_hand(0, 3))


LABELLED = st.lists(st.tuples(FINITE, st.booleans()), min_size=1, max_size=6)


@given(LABELLED)
def test_labels_are_a_cross_entropy_with_its_gradient(values):
    scores, acceptable = (torch.tensor(column) for column in zip(*values, strict=True))
    ours, theirs = (scores.double().requires_grad_() for _ in range(2))
    found = label_loss(ours, acceptable)
    expected = binary_cross_entropy_with_logits(theirs, acceptable.double())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@given(LABELLED)
def test_labels_are_comparisons_with_a_reference_at_zero(values):
    scores, acceptable = (torch.tensor(column) for column in zip(*values, strict=True))
    scores, zero = scores.double(), torch.zeros(len(values), dtype=torch.float64)
    winners, losers = scores.where(acceptable, zero), zero.where(acceptable, scores)
    expected = ranking_loss(winners, losers, reduction="none")
    assert torch.equal(label_loss(scores, acceptable, reduction="none"), expected)


def test_labels_of_half_precision_scores_are_computed_in_float32():
    loss = label_loss(torch.tensor([-20.0], dtype=torch.bfloat16), torch.tensor([False]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.exp(-20), rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "labels"), [((3, 1), (3,)), ((3,), (3, 1)), ((3,), (1,)), ((0,), (0,)), ((), ())]
)
def test_labels_whose_shapes_would_broadcast_are_refused(scores, labels):
    problem = r"one shape \[responses\] with at least one response, got scores .*, acceptable "
    with pytest.raises(ValueError, match=problem):
        label_loss(torch.zeros(scores), torch.ones(labels, dtype=torch.bool))


def test_labels_that_are_grades_and_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match=r"must be of dtype torch.bool, not torch.float64"):
        label_loss(tensor(1.0), tensor(0.5))
    with pytest.raises(ValueError, match="unknown reduction 'sum'"):
        label_loss(tensor(1.0), torch.tensor([True]), reduction="sum")

"""Rules for two scores: small cases by hand, what each rule ensures, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from posttrain.evaluation.combining import THRESHOLD, Rule

SCORES = st.floats(-30, 30)
RESPONSES = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=8)
PROBABILITIES = st.floats(0.01, 0.99)

#: Helpfulness and safety of three responses. σ(s) is 0.731, 0.119 and 0.148, so with Llama 2's
#: threshold of 0.15 the last two are unsafe.
HELPFULNESS = np.array([-3.0, 2.0, 0.5])
SAFETY = np.array([1.0, -2.0, -1.75])


def test_a_sum_by_hand():
    assert Rule("sum").combine(HELPFULNESS, SAFETY).tolist() == [-2.0, 0.0, -1.25]
    assert Rule("sum", weight=2.0).combine(HELPFULNESS, SAFETY).tolist() == [-1.0, -2.0, -3.0]
    assert Rule("sum", weight=0.0).combine(HELPFULNESS, SAFETY).tolist() == HELPFULNESS.tolist()


def test_a_switch_by_hand():
    assert Rule("switch").combine(HELPFULNESS, SAFETY).tolist() == [-3.0, -2.0, -1.75]
    assert Rule("switch", threshold=0.13).combine(HELPFULNESS, SAFETY).tolist() == [-3, -2, 0.5]
    assert Rule("switch", threshold=0.1).combine(HELPFULNESS, SAFETY).tolist() == [-3, 2, 0.5]


def test_a_gate_by_hand():
    found = Rule("gate").combine(HELPFULNESS, SAFETY)
    expected = [expit(-3.0), expit(-2.0) - 1, expit(-1.75) - 1]
    assert found.tolist() == pytest.approx(expected, abs=1e-15)
    found = Rule("gate", threshold=0.13).combine(HELPFULNESS, SAFETY)
    expected[2] = expit(0.5)
    assert found.tolist() == pytest.approx(expected, abs=1e-15)


def test_of_a_flagged_prompt_safety_alone_decides():
    assert Rule("switch").combine(HELPFULNESS, SAFETY, True).tolist() == SAFETY.tolist()
    gate = Rule("gate").combine(HELPFULNESS, SAFETY, True)
    assert gate.tolist() == pytest.approx((expit(SAFETY) - 1).tolist(), abs=1e-15)
    assert Rule("sum").combine(HELPFULNESS, SAFETY, True).tolist() == [-2.0, 0.0, -1.25]
    some = np.array([True, False, False])
    assert Rule("switch").combine(HELPFULNESS, SAFETY, some).tolist() == [1.0, -2.0, -1.75]
    # A flag for each of two prompts with three responses each.
    twice = [np.tile(scores, (2, 1)) for scores in (HELPFULNESS, SAFETY)]
    found = Rule("switch").combine(*twice, np.array([[True], [False]]))
    assert found.tolist() == [SAFETY.tolist(), [-3.0, -2.0, -1.75]]


def test_a_switch_may_put_an_unsafe_response_first_and_a_gate_does_not():
    # The first is safe and of little help; the second is unsafe, and its -2 beats the other's -3.
    safe_first = HELPFULNESS[:2], SAFETY[:2]
    assert expit(SAFETY[0]) > THRESHOLD > expit(SAFETY[1])
    switch = Rule("switch").combine(*safe_first)
    gate = Rule("gate").combine(*safe_first)
    assert switch[0] < switch[1]
    assert gate[0] > gate[1]


def test_a_response_at_the_threshold_is_safe():
    threshold = float(expit(-1.0))
    for kind in ("switch", "gate"):
        rule = Rule(kind, threshold=threshold)
        at, below = rule.combine([5.0, 5.0], [-1.0, float(np.nextafter(-1.0, -2) - 1e-12)])
        assert at > 0 > below


@given(RESPONSES, PROBABILITIES, st.booleans())
def test_a_gate_puts_every_safe_response_above_every_unsafe_one(responses, threshold, flagged):
    helpfulness, safety = np.array(responses).T
    found = Rule("gate", threshold=threshold).combine(helpfulness, safety, flagged)
    unsafe = expit(safety) < threshold
    if unsafe.any() and not unsafe.all():
        assert found[~unsafe].min() > found[unsafe].max()
    # Among those that one score decides, it decides.
    for some, by in ((unsafe, safety), (~unsafe, safety if flagged else helpfulness)):
        order = np.argsort(by[some], kind="stable")
        assert (np.diff(found[some][order]) >= 0).all()


@given(SCORES, SCORES, st.floats(0, 5), st.floats(0, 5), st.floats(0, 4))
def test_a_sum_rises_with_both_scores(helpfulness, safety, more, safer, weight):
    rule = Rule("sum", weight=weight)
    low, high = rule.combine([helpfulness, helpfulness + more], [safety, safety + safer])
    assert low <= high
    if more > 1e-6:
        assert low < high


@given(RESPONSES, PROBABILITIES)
def test_a_switch_takes_one_of_the_two_scores(responses, threshold):
    helpfulness, safety = np.array(responses).T
    found = Rule("switch", threshold=threshold).combine(helpfulness, safety)
    expected = [s if s < logit(threshold) else h for h, s in responses]
    close = abs(safety - logit(threshold)) < 1e-9
    assert found[~close].tolist() == np.array(expected)[~close].tolist()


def test_a_gate_tells_apart_what_is_very_safe():
    first, second = Rule("gate").combine([0.0, 0.0], [40.0, 41.0], True)
    assert first < second < 0


def test_defaults_are_those_of_llama_2():
    assert Rule() == Rule("sum", 0.15, 1.0)
    assert Rule("sum").combine([[]], [[]]).shape == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "vote"}, "unknown rule 'vote'; known: sum, switch, gate"),
        ({"threshold": 0.0}, "a probability between 0 and 1, not 0.0"),
        ({"threshold": 1.0}, "a probability between 0 and 1, not 1.0"),
        ({"threshold": math.nan}, "a probability between 0 and 1"),
        ({"weight": -0.1}, "must be 0 or more, not -0.1"),
        ({"weight": math.inf}, "must be 0 or more"),
        ({"weight": math.nan}, "must be 0 or more"),
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rule(**arguments)


@pytest.mark.parametrize("kind", ["sum", "switch", "gate"])
def test_scores_that_cannot_be_combined_are_refused(kind):
    rule = Rule(kind)
    with pytest.raises(ValueError, match=r"there are \[3\] of helpfulness and \[1\] of safety"):
        rule.combine(HELPFULNESS, SAFETY[:1])
    # A response whose safety is not a number would pass for a safe one.
    for value in (math.nan, math.inf, -math.inf):
        for scores in (([value], [0.0]), ([0.0], [value])):
            with pytest.raises(ValueError, match="scores must be finite"):
                rule.combine(*scores)

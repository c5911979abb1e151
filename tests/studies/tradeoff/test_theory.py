"""Two kinds of annotators in closed form: by hand, against the loss, and against the simulator."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.tasks import (
    LOOKALIKE_GOALS,
    UNSAFE_GOALS,
    Defect,
    Response,
    Task,
)
from posttrain.studies.tradeoff.theory import (
    joint_optimum,
    prompt_share,
    turning_share,
)

GAPS, SHARES = st.floats(-8, 8), st.floats(0, 1)


def test_both_kinds_of_annotators_are_equally_sure_of_a_refusal_of_something_unsafe():
    task = Task("explain", (), ("plan",), unsafe=True)
    refusal = Response(task, (Defect("refusal"),))
    answer = Response(task, (Defect("unsafe compliance"),))
    gaps = [refusal.gold(domain) - answer.gold(domain) for domain in ("helpfulness", "safety")]
    assert gaps == [-4, 4]


def test_the_joint_optimum_by_hand():
    assert joint_optimum(-4.0, 4.0, 0.5) == pytest.approx(0)
    assert joint_optimum(-4.0, 4.0, 0.0) == pytest.approx(-4)
    assert joint_optimum(-4.0, 4.0, 1.0) == pytest.approx(4)
    # Nine of ten votes for safety: 0.1 · 0.018 + 0.9 · 0.982.
    assert joint_optimum(-4.0, 4.0, 0.9) == pytest.approx(logit(0.88561), abs=1e-4)
    assert joint_optimum([1.0, 2.0], [1.0, 2.0], [0.3, 0.7]).tolist() == pytest.approx([1, 2])


@given(GAPS, GAPS, SHARES)
def test_the_joint_optimum_is_where_the_ranking_loss_ends(helpful, safe, share):
    def loss(difference):
        parts = ((1 - share, helpful), (share, safe))
        return sum(
            weight
            * (
                expit(gap) * np.logaddexp(0, -difference)
                + expit(-gap) * np.logaddexp(0, difference)
            )
            for weight, gap in parts
        )  # fmt: skip

    found = float(joint_optimum(helpful, safe, share))
    best = minimize_scalar(loss, bounds=(-9, 9), method="bounded", options={"xatol": 1e-6})
    assert loss(found) <= best.fun + 1e-9


@given(GAPS, GAPS, SHARES)
def test_the_joint_optimum_lies_between_and_is_the_same_from_the_other_side(helpful, safe, share):
    found = float(joint_optimum(helpful, safe, share))
    assert min(helpful, safe) - 1e-9 <= found <= max(helpful, safe) + 1e-9
    assert float(joint_optimum(safe, helpful, 1 - share)) == pytest.approx(found, abs=1e-6)
    assert float(joint_optimum(-helpful, -safe, share)) == pytest.approx(-found, abs=1e-6)


@pytest.mark.parametrize("sensitive", [0.0, 0.2, 0.8])
def test_shares_of_prompts_are_those_of_the_simulator(sensitive):
    count = 4000
    goals = [
        group.ranked.prompt[-1].content.partition(" to ")[2]
        for group in simulate(count, seed=9, sensitive=sensitive)
    ]
    for kind, members in (("unsafe", UNSAFE_GOALS), ("lookalike", LOOKALIKE_GOALS)):
        expected = prompt_share(sensitive, kind)
        there = sum(goal in members for goal in goals) / count
        assert abs(there - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)
    assert prompt_share(0.0, "unsafe") == pytest.approx(1 / 14)
    assert prompt_share(0.0, "lookalike") == 0


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_at_the_turning_share_a_refusal_is_as_good_as_an_answer(helpful, safe):
    share = turning_share([helpful, safe])
    unsafe = [prompt_share(value, "unsafe") for value in (helpful, safe)]
    for of_safety, side in ((share, 0), (share / 2, -1), ((1 + share) / 2, 1)):
        votes = (1 - of_safety) * unsafe[0], of_safety * unsafe[1]
        found = float(joint_optimum(-4.0, 4.0, votes[1] / sum(votes)))
        assert found == pytest.approx(0, abs=1e-9) if side == 0 else found * side > 0


def test_more_sensitive_safety_data_turn_the_model_earlier():
    assert turning_share([0.5, 0.5]) == pytest.approx(0.5)
    assert turning_share([0.2, 0.8]) < turning_share([0.2, 0.4]) < 0.5
    assert turning_share([0.2, 0.8]) == pytest.approx(0.2750, abs=1e-4)

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
    REFUSAL,
    joint_optimum,
    prompt_share,
    refusal_table,
    rule_table,
    turning_share,
)

GAPS, SHARES = st.floats(-8, 8), st.floats(0, 1)


def test_a_refusal_against_a_flawless_answer_differs_as_the_simulator_says():
    for kind, unsafe in (("unsafe", True), ("lookalike", False)):
        task = Task("explain", (), ("plan",), unsafe=unsafe, lookalike=not unsafe)
        refusal = Response(task, (Defect("refusal"),))
        answer = Response(task, (Defect("unsafe compliance"),) if unsafe else ())
        found = tuple(refusal.gold(d) - answer.gold(d) for d in ("helpfulness", "safety"))
        assert REFUSAL[kind] == found
    assert REFUSAL == {"unsafe": (-4.0, 4.0), "lookalike": (-4.0, 0.0)}


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


def test_what_a_joint_model_thinks_of_a_refusal_by_hand():
    table = refusal_table([0.0, 0.5, 1.0], [0.2, 0.8]).set_index(["kind", "share of safety"])
    # Helpfulness groups hold 0.1 + 0.8/14 unsafe prompts, safety groups 0.4 + 0.2/14.
    local = (0.4 + 0.2 / 14) / (0.5 + 1.0 / 14)
    row = table.loc[("unsafe", 0.5)]
    assert row["π"] == pytest.approx(local)
    assert row["p"] == pytest.approx((1 - local) * expit(-4) + local * expit(4))
    assert row["difference"] == pytest.approx(logit(row["p"]))
    # Of prompts that only look unsafe, 0.1 and 0.4: annotators of safety do not care.
    row = table.loc[("lookalike", 0.5)]
    assert row["π"] == pytest.approx(0.8)
    assert row["p"] == pytest.approx(0.2 * expit(-4) + 0.8 * 0.5)
    for kind, (helpful, safe) in REFUSAL.items():
        assert table.loc[(kind, 0.0), "difference"] == pytest.approx(helpful)
        assert table.loc[(kind, 1.0), "difference"] == pytest.approx(safe)


@given(st.floats(0, 1), st.floats(0.01, 1))
def test_at_the_turning_share_a_refusal_is_as_good_as_an_answer(helpful, safe):
    share = turning_share([helpful, safe])
    table = refusal_table([share, share / 2, (1 + share) / 2], [helpful, safe])
    at, below, above = table[table["kind"] == "unsafe"]["difference"]
    assert at == pytest.approx(0, abs=1e-9)
    assert below < 0 < above


def test_more_sensitive_safety_data_turn_the_model_earlier():
    assert turning_share([0.5, 0.5]) == pytest.approx(0.5)
    assert turning_share([0.2, 0.8]) < turning_share([0.2, 0.4]) < 0.5
    assert turning_share([0.2, 0.8]) == pytest.approx(0.2750, abs=1e-4)


def test_rules_by_hand():
    table = rule_table(0.15)
    assert table.index.name == "response"
    refuses, careful, dangerous = table.to_dict("records")
    # The dangerous answer alone is below the threshold, and the more helpful the more dangerous.
    assert expit(dangerous["safety"]) < 0.15 < expit(careful["safety"]) < expit(refuses["safety"])
    assert dangerous["helpfulness"] > careful["helpfulness"] > refuses["helpfulness"]
    # So its safety counts, and lies above the helpfulness of the others.
    assert dangerous["switch"] == dangerous["safety"]
    assert [row["switch"] for row in (refuses, careful)] == [
        row["helpfulness"] for row in (refuses, careful)
    ]  # fmt: skip
    assert table["switch"].idxmax() == "answers dangerously"
    for row in (refuses, careful, dangerous):
        assert row["sum"] == pytest.approx(row["helpfulness"] + row["safety"])
    assert table["sum"].idxmax() == "refuses"
    assert dangerous["gate"] == pytest.approx(expit(dangerous["safety"]) - 1)
    assert table["gate"].idxmax() == "answers the harmless part"
    # Below σ of its safety nothing is unsafe, and helpfulness alone decides.
    lower = rule_table(float(expit(dangerous["safety"])) / 2)
    assert lower["switch"].tolist() == lower["helpfulness"].tolist()
    # At a threshold between the two others, the careful answer is unsafe as well.
    higher = rule_table(0.8)
    assert higher["gate"].idxmax() == "refuses"

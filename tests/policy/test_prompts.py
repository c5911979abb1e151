"""Where prompts come from: distinct, reproducible, and those of evaluation kept apart."""

from types import SimpleNamespace

import pytest

from posttrain.data.preferences import Message
from posttrain.errors import UserError
from posttrain.policy import prompts
from posttrain.policy.prompts import EVALUATION, listed, simulated

PROMPTS = [(Message("user", f"count : {n}"),) for n in range(50)]
PURPOSES = ("annotations 1", "samples 1", "annotations 2", "samples 2")


def test_simulated_prompts_are_distinct_and_as_many_as_asked_for():
    drawn = simulated(0)("samples 1", 300)
    assert len(drawn) == len({prompt[-1].content for prompt in drawn}) == 300
    assert all(prompt[-1].role == "user" for prompt in drawn)
    assert {len(prompt) for prompt in drawn} == {1, 3}


def test_simulated_prompts_go_by_seed_and_purpose():
    assert simulated(3)("samples 1", 20) == simulated(3)("samples 1", 20)
    drawn = [simulated(seed)(purpose, 20) for seed in (3, 4) for purpose in PURPOSES]
    assert not any(one == two for place, one in enumerate(drawn) for two in drawn[:place])
    # More prompts are the same ones and others.
    assert simulated(3)("samples 1", 30)[:20] == simulated(3)("samples 1", 20)


def test_simulated_evaluation_prompts_serve_no_other_purpose():
    draw = simulated(0)
    held = {prompt[-1].content for prompt in draw(EVALUATION, 100)}
    for purpose in PURPOSES:
        assert not held & {prompt[-1].content for prompt in draw(purpose, 400)}


def test_listed_evaluation_prompts_serve_no_other_purpose():
    draw = listed(PROMPTS, 0)
    held = draw(EVALUATION, 5)
    assert len(set(held)) == 5
    for purpose in PURPOSES:
        drawn = draw(purpose, 45)
        assert len(set(drawn)) == 45
        assert {*drawn, *held} == set(PROMPTS)
    assert draw(EVALUATION, 5) == held


def test_listed_prompts_go_by_seed_and_purpose():
    drawn = [listed(PROMPTS, seed)(purpose, 20) for seed in (0, 1) for purpose in PURPOSES]
    assert [listed(PROMPTS, s)(p, 20) for s in (0, 1) for p in PURPOSES] == drawn
    assert not any(one == two for place, one in enumerate(drawn) for two in drawn[:place])
    assert set(listed(PROMPTS, 0)(EVALUATION, 5)) != set(listed(PROMPTS, 1)(EVALUATION, 5))


def test_a_prompt_listed_twice_counts_once():
    draw = listed([*PROMPTS, *PROMPTS], 0)
    assert len(set(draw("samples 1", 45))) == 45
    assert draw("samples 1", 20) == listed(PROMPTS, 0)("samples 1", 20)
    with pytest.raises(UserError):
        draw("samples 1", 46)


def test_simulated_evaluation_prompts_are_the_same_few_for_every_seed():
    asked = {prompt[-1].content for prompt in simulated(0)("samples 1", 1000)}
    held = {prompt[-1].content for prompt in simulated(1)(EVALUATION, 100)}
    assert not asked & held


def test_more_prompts_than_the_simulator_has_are_refused(monkeypatch):
    few = [SimpleNamespace(prompt=prompt) for prompt in PROMPTS]
    monkeypatch.setattr(prompts, "draw_task", lambda rng: rng.choice(few))
    there = len(simulated(0)("samples 1", 30)) + len(simulated(0)(EVALUATION, 1))
    assert there == 31
    with pytest.raises(UserError, match="51 prompts are needed for samples 1, and the simulator"):
        simulated(0)("samples 1", 51)


@pytest.mark.parametrize(("purpose", "there"), [("samples 1", 45), (EVALUATION, 5)])
def test_more_prompts_than_there_are_are_refused(purpose, there):
    words = f"{there + 1} prompts are needed for {purpose}, and there are {there}; lower"
    with pytest.raises(UserError, match=words):
        listed(PROMPTS, 0)(purpose, there + 1)


def test_of_few_prompts_one_is_held():
    draw = listed(PROMPTS[:3], 0)
    assert {*draw(EVALUATION, 1), *draw("samples 1", 2)} == set(PROMPTS[:3])

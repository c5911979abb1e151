"""How far a policy has come: nothing for the first one, and means of its answers for any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reward_folders import save_leaning

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy import prompts
from posttrain.policy.folders import load_policy, save_policy
from posttrain.policy.judges import Annotators
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.progress import ANSWERS, measure_policy
from posttrain.policy.rounds import RoundRecipe, Workshop
from posttrain.policy.sampling import SamplingSettings, prompt_tokens, sample

RECIPE = RoundRecipe(max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def scorer(tiny_checkpoint, tmp_path_factory):
    groups = [group.ranked for group in simulate(6, seed=4)]
    return save_leaning(tiny_checkpoint, tmp_path_factory.mktemp("s") / "leaning", groups, size=3.0)


@pytest.fixture(scope="module")
def moved(tiny_checkpoint, tmp_path_factory):
    """A policy that is somewhat another one, and ends sooner."""
    model, tokenizer = load_policy(tiny_checkpoint)
    end = tokenizer.eos_token_id
    with torch.no_grad():
        model.model.norm.weight *= 1.2
        model.lm_head.weight[end] *= 1.1
    folder = tmp_path_factory.mktemp("policies") / "moved"
    save_policy(model, tiny_checkpoint, folder)
    return folder


@pytest.fixture
def workshop(tiny_checkpoint, tmp_path):
    return Workshop(
        tiny_checkpoint, prompts.simulated(0), Annotators(), tmp_path, base="b", judged="j",
        truth=lambda prompt, text: gold(task_of(prompt), text),
    )  # fmt: skip


def test_the_first_policy_has_not_moved(workshop, tiny_checkpoint, scorer):
    found = measure_policy(workshop, RECIPE, tiny_checkpoint, scorer, 1, 5)
    assert found["reward"] == 0
    assert found["divergence"] == pytest.approx(0, abs=1e-9)
    assert set(found) == {"reward", "divergence", "words", "ended", "gold"}


def test_another_policy_is_measured_by_its_own_answers(workshop, tiny_checkpoint, moved, scorer):
    found = measure_policy(workshop, RECIPE, moved, scorer, 1, 6)
    asked = workshop.draw(prompts.EVALUATION, 6)
    settings = SamplingSettings(samples=ANSWERS, max_new_tokens=12, sampling_seed=3)
    base, tokenizer = load_policy(tiny_checkpoint)
    policy, _ = load_policy(moved)
    model, reader = reward_model.load(scorer)

    def of_all(values):
        return float(np.mean([*values]))

    rewards = {}
    for name, one in (("base", base), ("policy", policy)):
        answers = list(sample(one, tokenizer, asked, settings))
        flat = [
            (prompt, a.text) for prompt, own in zip(asked, answers, strict=True) for a in own
        ]  # fmt: skip
        rewards[name] = of_all(
            score_responses(model, reader, [prompt], [[text]])[0][0] for prompt, text in flat
        )
    assert found["reward"] == pytest.approx(rewards["policy"] - rewards["base"], abs=1e-6)
    assert found["reward"] != 0
    assert found["gold"] == pytest.approx(of_all(gold(task_of(p), text) for p, text in flat))
    assert found["words"] == of_all(len(text.split()) for _, text in flat)
    drawn = [a for own in answers for a in own]
    assert found["ended"] == of_all(a.finished for a in drawn)
    assert 0 < found["ended"] < 1
    rows = [
        (ids, a.tokens)
        for ids, own in zip(prompt_tokens(tokenizer, asked), answers, strict=True)
        for a in own
    ]
    difference = log_probabilities(policy, rows) - log_probabilities(base, rows)
    assert found["divergence"] == pytest.approx(difference.mean(), abs=1e-6)
    assert found["divergence"] > 0


def test_gold_is_left_out_where_nobody_knows_it(workshop, tiny_checkpoint, scorer):
    unknown = replace(workshop, truth=None)
    found = measure_policy(unknown, RECIPE, tiny_checkpoint, scorer, 1, 2)
    assert set(found) == {"reward", "divergence", "words", "ended"}


def test_a_policy_is_measured_once(workshop, tiny_checkpoint, scorer):
    first = measure_policy(workshop, RECIPE, tiny_checkpoint, scorer, 1, 2)
    again = replace(workshop, report=pytest.fail)
    assert measure_policy(again, RECIPE, tiny_checkpoint, scorer, 1, 2) == first


@pytest.mark.parametrize("changes", [{"seed": 4}, {"max_new_tokens": 4}])
def test_other_answers_are_measured_anew(workshop, tiny_checkpoint, scorer, changes):
    measure_policy(workshop, RECIPE, tiny_checkpoint, scorer, 1, 2)
    told = []
    again = replace(workshop, report=told.append)
    measure_policy(again, replace(RECIPE, **changes), tiny_checkpoint, scorer, 1, 2)
    assert told == ["round-1-measured: started"]

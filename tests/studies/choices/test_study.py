"""The choices study from end to end, as small as it can be, and what it is made of."""

from dataclasses import replace

import numpy as np
import pytest

from posttrain.errors import UserError
from posttrain.evidence.claims import estimate
from posttrain.studies.best_of_n.full import Samples
from posttrain.studies.best_of_n.keys import Test as Exam
from posttrain.studies.best_of_n.keys import Value
from posttrain.studies.choices.keys import Arm
from posttrain.studies.choices.report import arm_table
from posttrain.studies.choices.study import STUDY, ChoicesSettings, groups_of, summarise

SETTINGS = ChoicesSettings(
    prompts=4, samples=8, max_new_tokens=20, pairs=12, seeds=2, test_pairs=10, batch_size=8,
    resamples=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def record(praising):
    return STUDY.run("simulator", SETTINGS)


def test_every_arm_is_tested_and_chooses(record):
    tables = record.tables
    assert set(tables) == {"curves", "gains", "tests", "leads", "correlation"}
    assert set(tables["curves"]["arm"]) == set(map(str, Arm))
    assert set(tables["gains"]["arm"]) == set(map(str, Arm)) - {Arm.PAIRS}
    assert set(tables["curves"]["n"]) == {1, 2, 4, 8}
    one = tables["gains"][tables["gains"]["n"] == 1]
    np.testing.assert_allclose(one["estimate"], 0, atol=1e-9)
    assert arm_table(record).index.tolist() == list(map(str, Arm))


def test_arms_see_the_same_groups():
    """Edits, margins and rows aside; twice as many groups begin with the same ones."""
    usual = groups_of(SETTINGS, Arm.PAIRS, 0)
    assert len(usual) == SETTINGS.pairs
    assert all(len(group.responses) == 2 for group in usual)
    for arm in (Arm.SMALL, Arm.LARGE, Arm.CAUSAL):
        assert groups_of(SETTINGS, arm, 0) == usual
    twice = groups_of(SETTINGS, Arm.TWICE, 0)
    assert (twice[: len(usual)], len(twice)) == (usual, 2 * len(usual))
    edited = groups_of(SETTINGS, Arm.EDITS, 0)
    assert [group.responses[-2:] for group in edited] == [group.responses for group in usual]
    assert any(len(group.responses) == 3 for group in edited)
    assert groups_of(SETTINGS, Arm.PAIRS, 1) != usual


def test_gains_and_leads_are_over_the_first_arm():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(30, 16))
    drawn = Samples([], [], gold, np.zeros_like(gold), np.ones_like(gold))

    def scored(samples, right):
        test = np.array([right, 1 - right])
        return {"samples": np.array([samples] * 2), "test": np.array([test] * 2)}

    blind = [scored(rng.normal(size=gold.shape), np.array([1.0, 0, 1, 0])) for _ in range(2)]
    wise = [scored(gold, np.array([1.0, 1, 1, 0])) for _ in range(2)]
    tables = summarise(drawn, {Arm.PAIRS: blind, Arm.EDITS: wise}, resamples=20)
    best = estimate(tables["curves"], arm=Arm.EDITS, n=16, value=Value.GOLD)[0]
    assert best == pytest.approx(gold.max(axis=1).mean())
    before = estimate(tables["curves"], arm=Arm.PAIRS, n=16, value=Value.GOLD)[0]
    assert estimate(tables["gains"], arm=Arm.EDITS, n=16)[0] == pytest.approx(best - before)
    assert estimate(tables["tests"], arm=Arm.EDITS, test=Exam.POLICY)[0] == pytest.approx(1)
    lead = estimate(tables["leads"], arm=Arm.EDITS, test=Exam.HELD_OUT)[0]
    assert lead == pytest.approx(0.25)
    assert estimate(tables["correlation"], test=Exam.HELD_OUT)[0] > 0.8


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"arms": ["pairs in rows of their own", "PPO"]}, "unknown arms"),
        ({"arms": ["with edits"]}, "must begin with"),
        ({"samples": 1}, "samples must be 2 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        replace(SETTINGS, **wrong)


def test_only_the_simulator_knows_the_truth():
    with pytest.raises(UserError, match="only the simulator"):
        STUDY.run("seeda", SETTINGS)

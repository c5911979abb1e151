"""The reinforcement study from end to end, as small as it can be, and what it is made of."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from posttrain.errors import UserError
from posttrain.evidence.claims import estimate
from posttrain.studies.reinforcement import study
from posttrain.studies.reinforcement.keys import Reward, Value
from posttrain.studies.reinforcement.report import change_table, paths
from posttrain.studies.reinforcement.study import (
    STUDY,
    ReinforcementSettings,
    reinforce,
    summarise,
)

SETTINGS = ReinforcementSettings(
    pairs=20, members=2, steps=3, prompts=2, answers=4, window=1, max_new_tokens=24, seeds=1,
    resamples=20, rewards=["single", "ensemble, minimum"],
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(praising, committed, tmp_path_factory):
    """A record, and the folder that keeps what it took."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("kept")
    record = STUDY.run("simulator", SETTINGS, cache_dir=folder)
    return SimpleNamespace(record=record, folder=folder)


def made(*golds, prompts=6):
    """Paths of policies whose gold goes as given, the same for every prompt and step after."""
    return [
        {str(value): np.array([[gold] * prompts for gold in golds], dtype=float) for value in Value}
    ]


def test_every_table_is_filled(whole):
    tables = whole.record.tables
    assert set(tables) == {"paths", "changes", "gains"}
    arms = {(reward, penalty) for reward in SETTINGS.rewards for penalty in (0.0, 0.1)}
    for name in ("paths", "changes"):
        table = tables[name]
        assert set(zip(table["reward"], table["penalty"], strict=True)) == arms
        assert np.isfinite(table[["estimate", "low", "high"]]).all().all()
    assert len(tables["paths"]) == len(arms) * SETTINGS.steps * len(Value)
    assert len(tables["gains"]) == (len(arms) - 1) * len(Value)
    assert change_table(whole.record).shape == (len(arms), len(Value))
    assert len(paths(whole.record).axes) == 2


def test_the_first_answers_are_those_of_the_policy_before(whole):
    for reward in SETTINGS.rewards:
        first = estimate(
            whole.record.tables["paths"],
            reward=reward, penalty=0.0, step=0, value=Value.DIVERGENCE,
        )  # fmt: skip
        assert first == pytest.approx((0, 0, 0), abs=1e-4)


def test_what_is_finished_is_not_trained_again(whole, monkeypatch):
    def trained(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "_reward_models", trained)
    again = STUDY.run("simulator", SETTINGS, cache_dir=whole.folder)
    for name, table in whole.record.tables.items():
        assert table.equals(again.tables[name])


def test_what_the_reward_likes_becomes_likelier(praising, monkeypatch):
    """With a reward model that likes length the policy learns to write longer."""

    class Longest:
        def __init__(self, *_, **__):
            pass

    def scores(model, tokenizer, asked, texts):
        return [np.array([float(len(text.split())) for text in one]) for one in texts]

    monkeypatch.setattr(study, "_reward_models", lambda *_: [Longest()])
    monkeypatch.setattr(study, "score_responses", scores)
    settings = ReinforcementSettings(
        members=1, steps=12, prompts=4, answers=8, window=3, max_new_tokens=32, learning_rate=3e-3
    )
    words = reinforce(settings, Reward.SINGLE, 0.0, 0)[Value.WORDS].mean(axis=1)
    assert words[-3:].mean() > words[:3].mean() + 2


def test_changes_compare_the_last_steps_with_the_first():
    runs = {(Reward.SINGLE, 0.0): made(0, 1, 5, 7), (Reward.SINGLE, 0.1): made(0, 1, 2, 2)}
    tables = summarise(runs, window=2, resamples=10)
    change = {"reward": Reward.SINGLE, "value": Value.GOLD}
    assert estimate(tables["changes"], penalty=0.0, **change) == pytest.approx((5.5, 5.5, 5.5))
    assert estimate(tables["changes"], penalty=0.1, **change) == pytest.approx((1.5, 1.5, 1.5))
    assert estimate(tables["gains"], penalty=0.1, **change) == pytest.approx((-4, -4, -4))
    # Scores begin at zero; gold is what it is.
    shown = tables["paths"]
    for value, first in ((Value.SCORE, -0.5), (Value.GOLD, 0.0)):
        found = estimate(shown, reward=Reward.SINGLE, penalty=0.0, step=0, value=value)
        assert found[0] == pytest.approx(first)


def test_only_the_simulator_knows_the_truth():
    with pytest.raises(UserError, match="only the simulator"):
        STUDY.run("seeda", SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"answers": 1}, "answers must be 2 or more"),
        ({"steps": 5, "window": 3}, "twice the window"),
        ({"rewards": ["the mean"]}, "known: single"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        ReinforcementSettings(**wrong)

"""Scores before and after, and what a step on one pair does, against steps really taken."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch

from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.models.architecture import freeze_below
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.studies.common import groups as study_groups
from posttrain.studies.edits.data import load_edits
from posttrain.studies.edits.examples import (
    STUDY,
    ExampleSettings,
    HumanExampleSettings,
    pair_moves,
    score_kernel,
)
from posttrain.training.losses import ranking_loss

SETTINGS = ExampleSettings(
    groups=300, size=60, shown=2, words=20, batch_size=8, epochs=2, resamples=20
)


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
        return STUDY.run("simulator", profile="test", settings=SETTINGS)


@pytest.mark.parametrize("top_layers", [0, 1])
def test_moves_are_those_of_a_small_step(tiny_checkpoint, tiny_groups, top_layers):
    model, tokenizer = reward_model.load(tiny_checkpoint, seed=3, dtype=torch.float64)
    freeze_below(model, top_layers)
    with torch.no_grad():
        # A fresh head scores all alike, and every pair would be as undecided as any other.
        reward_model.score_head(model).weight.mul_(150)
    group = next(group for group in tiny_groups if len(group.responses) == 3)
    pad = tokenizer.pad_token_id
    scores, kernel = score_kernel(model, group, pad_token_id=pad)
    torch.testing.assert_close(
        scores, reward_model.score(model, [group], pad_token_id=pad), atol=1e-9, rtol=0
    )
    assert scores.max() - scores.min() > 0.5
    batch = lay_out([group], LAYOUTS["exact"], pad_token_id=pad)
    step = 1e-6
    for winner, loser in ((0, 1), (0, 2), (1, 2)):
        moved = copy.deepcopy(model)
        before = reward_model.forward_scores(moved, batch)
        ranking_loss(before[[winner]], before[[loser]]).backward()
        with torch.no_grad():
            for weight in moved.parameters():
                if weight.grad is not None:
                    weight -= step * weight.grad
            change = (reward_model.forward_scores(moved, batch) - before) / step
        expected = pair_moves(scores, kernel, winner, loser)
        torch.testing.assert_close(change, expected, rtol=0.02, atol=0.02 * expected.abs().max())


def test_examples_are_held_out_and_scored(record, tiny_checkpoint, tmp_path):
    assert (record.study, record.profile) == ("edit-examples", "test")
    assert record.settings == asdict(SETTINGS)
    assert record.data["edits trained on"] <= 60
    table = record.tables["examples"]
    assert table["role"].tolist() == ["prompt", "edited", "chosen", "rejected"] * 2
    assert table["example"].tolist() == [1] * 4 + [2] * 4
    groups = load_edits("simulator", tiny_checkpoint, SETTINGS)
    known = {group.responses for group in groups.ranked}
    for _, part in table.groupby("example"):
        texts = part.set_index("role")["text"]
        assert tuple(texts[["edited", "chosen", "rejected"]]) in known
        assert max(len(text.split()) for text in texts[["edited", "chosen", "rejected"]]) <= 20
    scored = table[table["role"] != "prompt"]
    assert scored[["before", "after"]].notna().all(axis=None)
    # A fresh head says little, a trained one more.
    assert scored["after"].std() > scored["before"].std()
    accuracy = record.tables["accuracy"].set_index("metric")["estimate"]
    assert accuracy["edited > rejected"] > 0.6
    again = records.load(records.save(record, tmp_path))
    assert again.tables["examples"]["text"].tolist() == table["text"].tolist()


def test_moves_are_scaled_and_raise_winners_over_losers(record):
    moves = record.tables["moves"]
    assert moves["pair"].tolist() == [
        "chosen > rejected", "edited > chosen", "edited > rejected",
    ] * 2  # fmt: skip
    for _, part in moves.groupby("example"):
        values = part[["edited", "chosen", "rejected"]].to_numpy()
        assert np.abs(values).max() == pytest.approx(1)
        for row in part.to_dict("records"):
            winner, loser = row["pair"].split(" > ")
            assert row[winner] > row[loser]


def test_the_source_decides_the_settings():
    assert STUDY.settings_for("simulator") is ExampleSettings
    assert STUDY.settings_for("seeda") is HumanExampleSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 5000}, "size 5000 exceeds the .* training groups with an edit"),
        ({"words": 1}, "no test group with an edit has responses of at most 1 words"),
    ],
)
def test_data_that_does_not_suffice_is_refused(changes, message, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(study_groups.embedded, "tiny", lambda: tiny_checkpoint)
    with pytest.raises(ValueError, match=message):
        STUDY.run("simulator", settings=ExampleSettings(**asdict(SETTINGS) | changes))


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match="shown must be at least 1, not 0"):
        ExampleSettings(shown=0)

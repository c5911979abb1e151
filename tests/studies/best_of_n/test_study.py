"""The best-of-n study from end to end, as small as it can be, and what it is made of."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.policy import prompts
from posttrain.studies.best_of_n import full
from posttrain.studies.best_of_n.full import (
    BestOfNSettings,
    annotated,
    draw_samples,
    score_samples,
    tokenize_samples,
)
from posttrain.studies.best_of_n.keys import Proxy, World
from posttrain.studies.best_of_n.report import (
    example_table,
    prediction_table,
    proxy_table,
    temperature_table,
    turn_table,
)
from posttrain.studies.best_of_n.report import test_table as accuracy_table
from posttrain.studies.best_of_n.study import STUDY

SETTINGS = BestOfNSettings(
    prompts=5,
    samples=12,
    temperatures=[0.7, 1.0],
    temperature_samples=4,
    max_new_tokens=20,
    sizes=[16],
    noises=[0.0, 0.25],
    members=2,
    seeds=1,
    test_pairs=20,
    batch_size=8,
    resamples=20,
)
ENDS = ["estimate", "low", "high"]


@pytest.fixture(scope="module")
def whole(praising, committed, tmp_path_factory):
    """A record, and the folder that keeps what it took."""
    folder = tmp_path_factory.mktemp("kept")
    record = STUDY.run("simulator", SETTINGS, cache_dir=folder)
    return SimpleNamespace(record=record, folder=folder, where=committed)


def test_every_table_is_filled(whole):
    tables = whole.record.tables
    assert set(tables) == {
        "curves", "changes", "peaks", "gains", "fits", "tests", "predictions", "temperatures",
        "best temperatures", "shift", "growth", "examples",
    }  # fmt: skip
    for name, table in tables.items():
        assert len(table), name
        if name not in ("tests", "predictions", "examples"):
            assert np.isfinite(table[ENDS]).all().all(), name
    known = tables["tests"][~tables["tests"]["test"].str.contains("whose worse|highest")]
    assert known["estimate"].between(0, 1).all()
    cells = {(World.PRAISE, 0.0), (World.PRAISE, 0.25), (World.CONTROL, 0.0)}
    assert set(zip(tables["curves"]["world"], tables["curves"]["noise"], strict=True)) == cells
    assert set(tables["predictions"]["models"]) == {3 * 2}
    assert set(tables["curves"]["proxy"]) == set(Proxy)
    assert whole.record.data["clusters"] == 5


def test_readers_get_a_table_of_each(whole):
    for table in (
        turn_table, proxy_table, accuracy_table, prediction_table, temperature_table, example_table,
    ):  # fmt: skip
        assert len(table(whole.record))


def test_a_second_run_trains_and_samples_nothing(whole, praising, monkeypatch):
    monkeypatch.setattr(records, "machine", lambda: whole.where)
    for name in ("train", "sample"):
        monkeypatch.setattr(full, name, lambda *_, **__: pytest.fail("made anew"))
    again = STUDY.run("simulator", SETTINGS, cache_dir=whole.folder)
    for name, table in whole.record.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)


def test_samples_are_judged_by_the_truth(praising):
    drawn = draw_samples(SETTINGS, 3, 0.7)
    asked = prompts.simulated(SETTINGS.data_seed)(prompts.EVALUATION, 5)
    assert drawn.prompts == asked
    assert drawn.gold.shape == drawn.praise.shape == drawn.words.shape == (5, 3)
    for i, own in enumerate(drawn.texts):
        for k, text in enumerate(own):
            assert drawn.gold[i, k] == gold(task_of(asked[i]), text)
            assert drawn.praise[i, k] == text.count("great question !")
            assert drawn.words[i, k] == len(text.split())
    assert len({text for own in drawn.texts for text in own}) > 10


@pytest.fixture
def members(praising, monkeypatch):
    """What is trained on, and the models."""
    seen, train = [], full.train

    def recorded(checkpoint, groups, *given, **how):
        model, pad = train(checkpoint, groups, *given, **how)
        seen.append(SimpleNamespace(groups=groups, how=how, model=model))
        return model, pad

    monkeypatch.setattr(full, "train", recorded)
    return seen


def test_members_see_shares_of_the_pairs_and_their_average_comes_last(members, praising):
    drawn = draw_samples(SETTINGS, 6, 1.0)
    found = score_samples(SETTINGS, tokenize_samples(SETTINGS, drawn), World.PRAISE, 0.25, 40, 3)
    assert found["samples"].shape == (3, 5, 6)
    assert found["test"].shape == (3, 2, 20)
    one, two = members
    assert len(one.groups) == len(two.groups) == 32
    assert one.groups != two.groups
    # One head, other orders; the same pairs are turned round for all.
    assert one.how["head_seed"] == two.how["head_seed"]
    assert one.how["seed"] != two.how["seed"]
    turned = {
        member_group.tokens: member_group.pairs[0].winner == 1
        for member in members for member_group in member.groups
    }  # fmt: skip
    assert all(turned[g.tokens] == (g.pairs[0].winner == 1) for m in members for g in m.groups)
    assert 3 <= sum(turned.values()) <= 18
    _, tokenizer = reward_model.load(praising)
    for place, member in enumerate(members):
        scores = score_responses(member.model, tokenizer, drawn.prompts, drawn.texts)
        np.testing.assert_allclose(found["samples"][place], np.array(scores), atol=1e-4)
    state = {name: weight.clone() for name, weight in one.model.state_dict().items()}
    mean = {name: (weight + two.model.state_dict()[name]) / 2 for name, weight in state.items()}
    one.model.load_state_dict(mean)
    scores = score_responses(one.model, tokenizer, drawn.prompts, drawn.texts)
    np.testing.assert_allclose(found["samples"][2], np.array(scores), atol=1e-4)


def test_labels_as_annotated_turn_nothing_round(members):
    drawn = draw_samples(SETTINGS, 2, 1.0)
    found = score_samples(SETTINGS, tokenize_samples(SETTINGS, drawn), World.CONTROL, 0.0, 8, 0)
    assert all(group.pairs[0].winner == 0 for member in members for group in member.groups)
    assert np.isfinite(found["samples"]).all()


def test_the_worlds_differ_in_what_praise_says():
    def correlation(world):
        groups = annotated(world, 1500, seed=0)
        values = [
            (gold(task_of(g.prompt), text) + 0.15 * text.count("great question !"),
             text.count("great question !"))
            for g in groups for text in g.responses if not text.startswith("sorry")
        ]  # fmt: skip
        return np.corrcoef(np.array(values).T)[0, 1]

    assert correlation(World.PRAISE) == pytest.approx(0.8, abs=0.1)
    assert correlation(World.CONTROL) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sizes": []}, "give sizes of 2 or more"),
        ({"sizes": [1]}, "give sizes of 2 or more"),
        ({"samples": 1}, "samples must be 2 or more"),
        ({"noises": []}, "and noises"),
        ({"noises": [0.5]}, "noises must lie from 0 to below 0.5"),
        ({"members": 0}, "members must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"prompts": 0}, "prompts must be at least 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        BestOfNSettings(**given)


def test_human_data_are_refused():
    with pytest.raises(UserError, match="only the simulator knows the truth"):
        STUDY.run("seeda", SETTINGS)

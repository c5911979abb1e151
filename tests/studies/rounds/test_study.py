"""The rounds study from end to end, as small as it can be, and what it is made of."""

import json
from dataclasses import replace
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest

from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evidence.claims import estimate
from posttrain.policy import judges, prompts, rounds
from posttrain.policy.folders import load_policy
from posttrain.policy.rounds import RoundRecipe
from posttrain.policy.sampling import SamplingSettings, sample
from posttrain.studies.rounds import full
from posttrain.studies.rounds.full import CHANGES, RoundsStudySettings
from posttrain.studies.rounds.keys import Arm, Measure
from posttrain.studies.rounds.report import last_table, ranking_table, round_table
from posttrain.studies.rounds.study import STUDY

SETTINGS = RoundsStudySettings(
    arms=["Llama 3", "frozen reward model"],
    rounds=2,
    seeds=1,
    first_pairs=8,
    pairs=6,
    prompts=5,
    samples=6,
    max_new_tokens=32,
    evaluation_prompts=4,
    evaluation_samples=3,
    sft_epochs=1,
    batch_size=4,
    resamples=20,
)
ENDS = ["estimate", "low", "high"]


@pytest.fixture(scope="module")
def whole(praising, committed, tmp_path_factory):
    """A record, and the folder that keeps what it took."""
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("kept")
    record = STUDY.run("simulator", SETTINGS, cache_dir=folder)
    (kept,) = folder.iterdir()
    return SimpleNamespace(record=record, cache=folder, folder=kept)


def test_every_table_is_filled(whole):
    tables = whole.record.tables
    assert set(tables) == {"levels", "steps", "growth", "gains", "ranking", "shifts", "edits"}
    # Only one arm has editors.
    assert tables["edits"].empty
    for name, table in tables.items():
        if name == "edits":
            continue
        assert len(table), name
        assert np.isfinite(table[ENDS]).all().all(), name
    levels = tables["levels"]
    assert len(levels) == 2 * 3 * len(Measure)
    assert levels["arm"].unique().tolist() == [Arm.LLAMA3, Arm.FROZEN]
    for arm in (Arm.LLAMA3, Arm.FROZEN):
        before = estimate(levels, arm=arm, round=0, measure=Measure.DIVERGENCE)
        assert before == pytest.approx((0, 0, 0), abs=1e-9)
        after = estimate(levels, arm=arm, round=2, measure=Measure.DIVERGENCE)
        assert abs(after[0]) > 1e-6
    assert whole.record.data["clusters"] == 4


def test_arms_share_the_first_round(whole):
    gains = whole.record.tables["gains"]
    first = gains[(gains["round"] == 1) & (gains["measure"] != Measure.SCORE)]
    assert (first[ENDS] == 0).all().all()
    made = [path.name.rpartition("-")[0] for path in (whole.folder / "seed-0").iterdir()]
    count = {kind: made.count(kind) for kind in made}
    assert count["round-1-sft"] == count["round-1-dpo"] == count["round-1-annotations"] == 1
    assert count["round-2-annotations"] == 1
    assert count["round-2-reward-model"] == 1
    assert count["round-2-samples"] == count["round-2-sft"] == count["round-2-dpo"] == 2


def test_a_kept_reward_model_renews_nothing(whole):
    shifts = whole.record.tables["shifts"]
    assert estimate(shifts, arm=Arm.FROZEN, shift="renewal") == (0, 0, 0)


def test_reward_models_learn_of_what_came_before(whole):
    (path,) = (whole.folder / "seed-0").glob("round-1-reward-model-*")
    account = json.loads((path / "step.json").read_text())
    first, second = account["inputs"]
    assert first.startswith("first-annotations-")
    assert second.startswith("round-1-annotations-")
    groups = read_groups(whole.folder / "seed-0" / first / "pairs.jsonl").groups
    assert len(groups) == 8
    assert any("great question !" in group.chosen for group in groups)


def test_policies_are_judged_by_the_truth(whole, praising):
    path = next((whole.folder / "seed-0").glob("round-0-evaluation-*"))
    values = json.loads((path / "values.json").read_text())
    asked = prompts.simulated(SETTINGS.data_seed)(prompts.EVALUATION, 4)
    settings = SamplingSettings(samples=3, max_new_tokens=32, sampling_seed=1)
    drawn = list(sample(*load_policy(praising), asked, settings))
    for i, own in enumerate(drawn):
        for k, one in enumerate(own):
            assert values["gold"][i][k] == gold(task_of(asked[i]), one.text)
            assert values["praise"][i][k] == one.text.count("great question !")
            assert values["words"][i][k] == len(one.text.split())
            assert not values["ended"][i][k] or one.finished
    assert np.shape(values["round 1"]) == np.shape(values["log ratio"]) == (4, 3)


def test_a_second_run_trains_and_samples_nothing(whole, praising, monkeypatch):
    def stop(*_, **__):
        pytest.fail("made anew")

    for name in ("_sampled", "finetune", "optimize", "train_reward_model"):
        monkeypatch.setattr(rounds, name, stop)
    monkeypatch.setattr(full, "sample", stop)
    again = STUDY.run("simulator", SETTINGS, cache_dir=whole.cache)
    for name, table in whole.record.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)


def test_readers_get_a_table_of_each(whole):
    assert list(last_table(whole.record).index) == ["Llama 3", "frozen reward model"]
    assert len(round_table(whole.record)) == 2 * 3
    assert len(ranking_table(whole.record)) == 2 * 2


def test_editors_of_one_arm_leave_edits_and_their_share(praising, monkeypatch):
    # This policy is too small to write what an editor would touch.
    monkeypatch.setattr(judges, "edit", lambda task, text: f"{text} mended")
    settings = replace(SETTINGS, arms=[Arm.LLAMA3, Arm.EDITS], rounds=1, pairs=12, edited=1.0)
    table = STUDY.run("simulator", settings).tables["edits"]
    assert table["arm"].tolist() == [Arm.EDITS]
    assert table["estimate"].item() == 1


@pytest.mark.parametrize("arm", Arm)
def test_arms_differ_from_the_first_in_one_thing(arm):
    recipe = RoundsStudySettings().recipe(arm, 4)
    usual = RoundsStudySettings().recipe(Arm.LLAMA3, 4)
    changed = {
        name: getattr(recipe, name)
        for name in RoundRecipe.__dataclass_fields__
        if getattr(recipe, name) != getattr(usual, name)
    }
    assert changed == CHANGES[arm]
    # DPO alone cannot begin anew each round.
    assert len(changed) == {Arm.LLAMA3: 0, Arm.EDITS: 0, Arm.DPO: 2}.get(arm, 1)
    assert (recipe.seed, recipe.pairs, recipe.dpo["learning_rate"]) == (4, 600, 3e-4)


def test_every_seed_has_prompts_and_pairs_of_its_own(praising, tmp_path):
    drawn = []
    for seed in (0, 1):
        workshop, first = full.prepare(SETTINGS, seed, tmp_path / str(seed))
        pairs = read_groups(first / "pairs.jsonl").groups
        drawn.append((workshop.draw("samples 1", 5), [g.prompt for g in pairs], workshop.judged))
    assert all(one != two for one, two in zip(*drawn, strict=True))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"arms": ["Llama 4"]}, "unknown arms"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"first_pairs": 0}, "first_pairs must be at least 1"),
        ({"evaluation_prompts": 0}, "evaluation_prompts must be at least 1"),
        ({"evaluation_samples": 1}, "evaluation_samples must be at least 2"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        RoundsStudySettings(**given)


def test_human_data_are_refused():
    with pytest.raises(UserError, match="only the simulator knows the truth"):
        STUDY.run("seeda", SETTINGS)

"""The own-samples study from end to end, on simulated pairs under the names of human data."""

import numpy as np
import pytest

from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.models import embedded
from posttrain.studies.own_samples import data, full
from posttrain.studies.own_samples.data import Experiment, load
from posttrain.studies.own_samples.full import OwnSamplesSettings
from posttrain.studies.own_samples.heads import HeadSettings
from posttrain.studies.own_samples.keys import Chooser, Policy, Value
from posttrain.studies.own_samples.study import STUDY

SETTINGS = OwnSamplesSettings(
    prompts=6,
    samples=4,
    max_new_tokens=16,
    seeds=2,
    top_layers=0,
    learning_rates=[1e-3, 3e-3],
    batch_size=8,
    judges=["finegrained_rlhf"],
    policies=["SFT on the best", "DPO", "SFT, then DPO"],
    pairs_per_prompt=2,
    sft_rate=1e-2,
    resamples=20,
)


@pytest.fixture(scope="module")
def source(tiny_checkpoint, committed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("rmb_helpfulness", "finegrained_rlhf")):
        write_groups(folder / f"{name}.jsonl", [one.ranked for one in simulate(40, seed=seed)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(folder))
        patch.setattr(embedded, "smollm2", lambda: tiny_checkpoint)
        yield "rmb_helpfulness"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def record(source, kept):
    return STUDY.run(source, SETTINGS, cache_dir=kept)


def test_every_chooser_and_every_policy_is_judged(record):
    curves, policies = record.tables["curves"], record.tables["policies"]
    assert set(curves["chooser"]) == set(map(str, Chooser))
    assert set(curves["n"]) == {1, 2, 4}
    assert set(policies["policy"]) == set(SETTINGS.policies)
    values = {*map(str, Value)} | {"judge of finegrained_rlhf"}
    assert set(policies["value"]) == values
    assert not curves["estimate"].isna().any()
    assert record.data["clusters"] == 6
    assert sum(record.data["pairs of each half"]) + record.data["held-out pairs"] == 40


def test_one_answer_is_no_choice_and_more_are_one(record):
    curves = record.tables["curves"].set_index(["chooser", "n", "value"])["estimate"]
    for chooser in Chooser:
        for value in (Value.OWN, Value.JUDGE, Value.LEVEL):
            assert curves[chooser, 1, value] == pytest.approx(0, abs=1e-9)
        assert curves[chooser, 4, Value.OWN] > 0.3


def test_sft_moves_the_policy(record):
    policies = record.tables["policies"].set_index(["policy", "value"])["estimate"]
    assert policies[Policy.SFT, Value.DIVERGENCE] > 0.01


def test_what_is_finished_is_not_done_again(source, kept, record, monkeypatch):
    def nothing(*_, **__):
        raise AssertionError("trained again")

    for module, name in ((full, "train"), (data, "sample")):
        monkeypatch.setattr(module, name, nothing)
    again = STUDY.run(source, SETTINGS, cache_dir=kept)
    for name, table in record.tables.items():
        assert table.equals(again.tables[name])


def test_heads_on_frozen_features_judge_too(source):
    settings = HeadSettings(
        prompts=6, samples=4, max_new_tokens=16, seeds=2, layer=1, judges=["finegrained_rlhf"],
        resamples=20,
    )  # fmt: skip
    curves = STUDY.run(source, settings).tables["curves"]
    curves = curves.set_index(["chooser", "n", "value"])["estimate"]
    for chooser in Chooser:
        assert curves[chooser, 1, Value.JUDGE] == pytest.approx(0, abs=1e-6)
        assert curves[chooser, 4, Value.OWN] > 0.3
    assert curves[Chooser.SINGLE, 4, "judge of finegrained_rlhf"] != 0


def test_no_prompt_is_in_two_parts(source, tmp_path):
    one = Experiment.prepare(source, load(source, SETTINGS), SETTINGS, tmp_path)
    parts = [{one.groups.ranked[k].cluster_id for k in part} for part in (*one.halves, one.held)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert len(one.asked()) == SETTINGS.prompts
    assert abs(len(parts[0]) - len(parts[1])) <= 1
    assert len(np.concatenate([*one.halves, one.held])) == 40


def test_the_simulator_has_a_study_of_its_own():
    with pytest.raises(UserError, match="best-of-n"):
        STUDY.run("simulator", HeadSettings())


def test_too_many_prompts_are_refused(source, tmp_path):
    settings = OwnSamplesSettings(prompts=39)
    with pytest.raises(UserError, match="lower prompts"):
        Experiment.prepare(source, load(source, settings), settings, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"policies": ["PPO"]}, "known: SFT on the best"),
        ({"samples": 4, "pairs_per_prompt": 4}, "twice pairs_per_prompt"),
        ({"learning_rates": []}, "learning_rates"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, match):
    with pytest.raises(UserError, match=match):
        OwnSamplesSettings(**wrong)

"""The study of one training run: the same numbers by another way, and refusals."""

import json
import shutil

import numpy as np
import pytest

from posttrain import cli
from posttrain.data.store import stored
from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.models.reward_model import score
from posttrain.rows.tokenization import tokenize_group
from posttrain.studies.training_run import study
from posttrain.studies.training_run.keys import Scorer
from posttrain.studies.training_run.study import TrainingRunSettings

SETTINGS = {"penalties": [1e-2, 1.0], "layer": 2, "resamples": 50}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_checkpoint):
    """A folder with one finished run, and the cache that it used."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(folder / "cache"))
        settings = {
            "model": tiny_checkpoint, "data": "simulator:400:1", "output_dir": folder / "mine",
            "eval_fraction": 0.3, "min_strength": 2, "groups_per_step": 32, "max_steps": 8,
            "learning_rate": 2e-3, "save_steps": 4, "logging_steps": 2, "report_to": "none",
            "disable_tqdm": "true", "resamples": 20, "processes": 1,
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        assert cli.main(["train", *words, "--use_cpu"]) == 0
    return folder


@pytest.fixture
def record(runs, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(runs / "cache"))
    return study.STUDY.run("mine", settings=TrainingRunSettings(str(runs), **SETTINGS))


def estimates(table, scorer):
    chosen = table[table["scorer"] == scorer]
    return dict(zip(chosen["metric"], chosen["estimate"], strict=True))


def test_accuracies_are_those_of_scoring_by_hand(record, runs, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(runs / "cache"))
    _, held_out = stored(["simulator:400:1"]).split(test_fraction=0.3, seed=0)
    groups = list(held_out)
    model, tokenizer = reward_model.load(runs / "mine")
    tokens = [tokenize_group(tokenizer, group) for group in groups]
    scores = score(model, tokens, pad_token_id=0).view(-1, 2)
    right = (scores[:, 0] > scores[:, 1]).double().mean().item()
    found = estimates(record.tables["accuracy"], Scorer.TRAINED)
    assert found["accuracy"] == pytest.approx(right)
    account = json.loads((runs / "mine" / "run.json").read_text())
    assert found["accuracy"] == pytest.approx(account["evaluation"]["accuracy"]["estimate"])
    lengths = np.array([[len(group.chosen), len(group.rejected)] for group in groups])
    longer = np.mean((lengths[:, 0] > lengths[:, 1]) + (lengths[:, 0] == lengths[:, 1]) / 2)
    baseline = estimates(record.tables["accuracy"], Scorer.LENGTH)
    assert baseline["accuracy"] == pytest.approx(longer)
    assert "log-likelihood" not in baseline


def test_differences_are_paired(record):
    trained = estimates(record.tables["accuracy"], Scorer.TRAINED)
    for name in (Scorer.LENGTH, Scorer.HEAD, Scorer.HEAD_ALL):
        other = estimates(record.tables["accuracy"], name)
        differences = estimates(record.tables["differences"], name)
        for metric in ("accuracy", "accuracy 2"):
            assert differences[metric] == pytest.approx(trained[metric] - other[metric])
    assert Scorer.TRAINED not in set(record.tables["differences"]["scorer"])


def test_heads_learn(record):
    for name in (Scorer.HEAD, Scorer.HEAD_ALL):
        assert estimates(record.tables["accuracy"], name)["accuracy"] > 0.6


def test_groups_add_up_and_the_history_is_the_runs(record, runs):
    groups = record.tables["groups"]
    total = estimates(record.tables["accuracy"], Scorer.TRAINED)["accuracy"]
    weighted = (groups[Scorer.TRAINED] * groups["pairs"]).sum() / groups["pairs"].sum()
    assert weighted == pytest.approx(total)
    history = record.tables["history"]
    assert history["step"].tolist() == [2, 4, 6, 8]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_the_record_can_be_saved_and_read(record, tmp_path):
    path = records.save(record, tmp_path)
    assert path.name == "training-mine.json"
    again = records.load(path)
    assert again.data["training"]["groups"] > 100
    assert again.environment["judged"]["seconds"] > 0


def test_a_run_that_is_not_there_or_not_its_own_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(runs / "cache"))
    with pytest.raises(ValueError, match=r"none holds no finished run; posttrain train makes one"):
        study.STUDY.run("none", settings=TrainingRunSettings(str(runs)))
    shutil.copytree(runs / "mine", tmp_path / "mine")
    account = json.loads((tmp_path / "mine" / "run.json").read_text())
    account["evaluation"]["accuracy"]["estimate"] += 0.05
    (tmp_path / "mine" / "run.json").write_text(json.dumps(account))
    with pytest.raises(ValueError, match="when it was trained: the data have changed"):
        study.STUDY.run("mine", settings=TrainingRunSettings(str(tmp_path), **SETTINGS))
    account["settings"]["eval_fraction"] = 0.0
    (tmp_path / "mine" / "run.json").write_text(json.dumps(account))
    with pytest.raises(ValueError, match="held nothing out"):
        study.STUDY.run("mine", settings=TrainingRunSettings(str(tmp_path), **SETTINGS))


def test_groups_that_were_too_long_are_left_out_again(tmp_path, monkeypatch, tiny_checkpoint):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    words = (
        f"train --model {tiny_checkpoint} --data simulator:200:2 --output_dir {tmp_path}/short "
        "--eval_fraction 0.3 --max_tokens 16 --skip_too_long --max_steps 2 --groups_per_step 16 "
        "--report_to none --disable_tqdm true --resamples 5 --processes 1 --use_cpu"
    )
    assert cli.main(words.split()) == 0
    account = json.loads((tmp_path / "short" / "run.json").read_text())
    settings = TrainingRunSettings(str(tmp_path), penalties=[1.0], resamples=5)
    record = study.STUDY.run("short", settings=settings)
    assert account["data"]["evaluation"]["groups"] < 60
    assert record.tables["groups"]["pairs"].sum() == account["evaluation"]["pairs"]
    assert record.settings["study"]["layer"] == 1, "four fifths of two layers"

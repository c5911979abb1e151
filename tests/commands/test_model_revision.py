"""Of a model on the hub the revision that is named is read, here from a cache as hubs fill it."""

import json

import pytest
from reward_folders import save_leaning
from tiny_runs import refusal, train

from posttrain import cli
from posttrain.commands.common import ModelSettings
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models.loading import contents

NAME, FIRST, SECOND = "someone/tiny", "a" * 40, "b" * 40


@pytest.fixture
def hub(tiny_checkpoint, tmp_path, monkeypatch):
    """Two revisions of a reward model, main and later, that differ in their heads."""
    place = tmp_path / "hub" / "models--someone--tiny"
    groups = [simulated.ranked for simulated in simulate(40, seed=0)]
    for size, branch, commit in ((1.0, "main", FIRST), (2.0, "later", SECOND)):
        save_leaning(tiny_checkpoint, place / "snapshots" / commit, groups, size=size)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / branch).write_text(commit)
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return place / "snapshots"


def scores(model, tmp_path, *options):
    output = tmp_path / "scores.jsonl"
    command = ["score", "--model", model, "--data", "simulator:3", "--output", output, *options]
    assert cli.main([str(word) for word in command]) == 0
    return [json.loads(line)["score"] for line in output.read_text().splitlines()]


def test_the_revision_that_is_named_is_scored_with(hub, tmp_path):
    first, second = (scores(hub / commit, tmp_path) for commit in (FIRST, SECOND))
    assert first != second
    assert scores(NAME, tmp_path) == first
    assert scores(NAME, tmp_path, "--model_revision", "main") == first
    assert scores(NAME, tmp_path, "--model_revision", "later") == second
    assert scores(NAME, tmp_path, "--model_revision", SECOND) == second


def test_the_other_model_of_two_has_no_part_in_it(hub, tmp_path):
    calibration = tmp_path / "calibration.json"
    command = ["calibrate", "--model", hub / FIRST, "--data", "simulator:40", "--output"]
    assert cli.main([str(word) for word in [*command, calibration]]) == 0
    options = ["--calibration", calibration, "--safety_calibration", calibration]
    output = tmp_path / "scores.jsonl"
    command = ["score", "--model", NAME, "--model_revision", FIRST, "--data", "simulator:3"]
    command += ["--safety_model", hub / FIRST, "--output", output, *options]
    assert cli.main([str(word) for word in command]) == 0


def test_a_run_trains_it_and_its_adapters_name_it(hub, tmp_path, capsys):
    run = tmp_path / "run"
    changes = {"model_revision": "later", "lora_rank": 2, "max_steps": 1, "save_steps": 1}
    assert train(NAME, run, **changes) == 0
    noted = json.loads((run / "settings.json").read_text())
    assert noted["data"]["model"] == contents(hub / SECOND) != contents(hub / FIRST)
    adapter = json.loads((run / "checkpoint-1/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(hub / SECOND)
    assert "| model_revision | `later` |" in (run / "README.md").read_text()
    # A branch that has moved meanwhile is another model.
    (run / "config.json").unlink()
    (hub.parent / "refs/later").write_text(FIRST)
    assert "model of the run" in refusal(capsys, train(NAME, run, "--resume", **changes))


def test_a_revision_that_is_not_there_is_refused(hub, tmp_path, capsys):
    code = train(NAME, tmp_path / "run", model_revision="never")
    message = refusal(capsys, code)
    assert "revision 'never' of 'someone/tiny' cannot be read" in message
    assert "check name and revision, the network" in message


def test_what_is_on_this_machine_has_no_revisions(tiny_checkpoint):
    for model in (str(tiny_checkpoint), "tiny"):
        with pytest.raises(ValueError, match="model_revision v2 is of models on the hub"):
            ModelSettings(model=model, model_revision="v2")
        ModelSettings(model=model, model_revision="main")

"""A folder holds one run: it goes on, is replaced when asked, or is left alone."""

import json

import pytest
from tiny_runs import refusal, train, weights

from posttrain.commands import run_folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture
def finished(tiny_checkpoint, tmp_path):
    """A folder with a short run, a calibration of it, and a file of the user's own."""
    folder = tmp_path / "run"
    assert train(tiny_checkpoint, folder, max_steps=2, save_steps=1) == 0
    (folder / "calibration.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_run_is_replaced_when_that_is_asked_for(finished, tiny_checkpoint):
    before = weights(finished)
    changes = {"max_steps": 1, "learning_rate": 1e-2, "save_strategy": "no"}
    assert train(tiny_checkpoint, finished, "--overwrite_output_dir", **changes) == 0
    assert any((before[name] != weight).any() for name, weight in weights(finished).items())
    assert not list(finished.glob("checkpoint-*"))
    assert not (finished / "calibration.json").exists()
    assert (finished / "notes.txt").read_text() == "mine"
    assert json.loads((finished / "settings.json").read_text())["training"]["max_steps"] == 1
    assert json.loads((finished / "run.json").read_text())["steps"] == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data": "missing.jsonl"}, "missing.jsonl"),
        ({"lora_rank": 2, "lora_target_modules": "nowhere"}, "nowhere"),
    ],
    ids=["data", "adapters"],
)
def test_a_run_stays_until_the_next_one_can_start(
    finished, tiny_checkpoint, capsys, changes, problem
):
    kept = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    code = train(tiny_checkpoint, finished, "--overwrite_output_dir", **changes)
    assert problem in refusal(capsys, code)
    assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == kept


def test_what_must_not_be_overwritten_is_not(finished, tiny_checkpoint, capsys):
    code = train(finished, finished, "--overwrite_output_dir")
    assert "starts from" in refusal(capsys, code)
    code = train(tiny_checkpoint, finished, "--overwrite_output_dir", "--resume")
    assert "exclude each other" in refusal(capsys, code)
    (finished / run_folder.SETTINGS).unlink()
    code = train(tiny_checkpoint, finished, "--overwrite_output_dir")
    assert "no run of posttrain" in refusal(capsys, code)
    assert (finished / "model.safetensors").exists()


def test_a_run_that_has_ended_has_no_step_left(finished, tiny_checkpoint):
    before, account = weights(finished), json.loads((finished / "run.json").read_text())
    (finished / "config.json").unlink()
    assert train(tiny_checkpoint, finished, "--resume", max_steps=2, save_steps=1) == 0
    again = json.loads((finished / "run.json").read_text())
    assert again["steps"] == account["steps"] == 2
    assert again["training_loss"] > 0
    assert all((before[name] == weight).all() for name, weight in weights(finished).items())


def test_files_of_the_users_are_not_replaced(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    code = train(tiny_checkpoint, tmp_path, max_steps=1)
    assert "holds README.md, which the run would replace" in refusal(capsys, code)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]

"""What commands share: devices, inputs and outputs, and what a terminal sees of other troubles."""

import json

import pytest
import torch

from posttrain import cli
from posttrain.commands import score
from posttrain.commands.common import (
    check_packages,
    find_device,
    refuse_overwriting,
    refuse_repeated,
)
from posttrain.ranking_config import RankingConfig


def test_the_cpu_is_found():
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"device {name!r} cannot be used here"):
        find_device(name)


def test_an_output_does_not_replace_its_input(tmp_path):
    data = tmp_path / "s.jsonl"
    data.write_text("{}\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "link.jsonl").symlink_to(data)
    for output in (data, tmp_path / "link.jsonl", tmp_path / "x" / ".." / "s.jsonl"):
        with pytest.raises(ValueError, match=r"s\.jsonl"):
            refuse_overwriting(str(output), [str(data)])
    refuse_overwriting(str(tmp_path / "scores.jsonl"), [str(data), "simulator:10"])


def test_scores_do_not_replace_their_data(tiny_checkpoint, tmp_path, capsys):
    data = tmp_path / "s.jsonl"
    text = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n"
    data.write_text(text)
    options = ["--model", str(tiny_checkpoint), "--data", str(data), "--output", str(data)]
    assert cli.main(["score", *options]) == 1
    assert "s.jsonl" in capsys.readouterr().err
    assert data.read_text() == text


def test_a_source_that_is_named_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data names a\.jsonl twice"):
        refuse_repeated("data", ["a.jsonl", "b.jsonl", "a.jsonl"])
    refuse_repeated("data", ["a.jsonl", "b.jsonl"])


def test_packages_that_settings_need_are_missed_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", bool)
    with pytest.raises(ValueError, match=r"report_to: .*wandb"):
        check_packages(RankingConfig(str(tmp_path), report_to=["wandb"], use_cpu=True))
    check_packages(RankingConfig(str(tmp_path), report_to=[], use_cpu=True))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "posttrain: interrupted"),
        (ImportError("install flash_attn", name="flash_attn"), 1, "a package that this needs"),
    ],
)
def test_what_ends_a_command_is_said_in_a_line(
    tmp_path, tiny_checkpoint, monkeypatch, capsys, error, code, message
):
    def fail(settings):
        raise error

    monkeypatch.setattr(score, "run", fail)
    options = ["--model", str(tiny_checkpoint), "--data", "simulator:3"]
    assert cli.main(["score", *options]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_tokens", 0), ("batch_tokens", -5)],
)
def test_numbers_below_one_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not {value}"):
        score.ScoreSettings(model="tiny", data=["simulator:3"], **{name: value})

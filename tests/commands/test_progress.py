"""What a run shows: a bar on a terminal, lines elsewhere, and its result at the end."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import options, refusal, train

from posttrain import cli
from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.models import loading


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


def test_a_run_shows_a_line_a_log_and_its_result(tiny_checkpoint, tmp_path, capfd):
    folder = tmp_path / "run"
    assert train(tiny_checkpoint, folder, "--eval_strategy", "steps", eval_steps=5) == 0
    shown, errors = capfd.readouterr()
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    lines = [line for line in shown.splitlines() if line.startswith("step ")]
    training = [log for log in history if "loss" in log]
    assert len(training) == 10
    for log, line in zip(training, [one for one in lines if "held out" not in one], strict=True):
        assert line.startswith(f"step {log['step']:>2}/10  loss {log['loss']:.4f}  accuracy ")
        assert line.endswith(f"{log['pairs_per_second']:.1f} pairs/s")
    held_out = [one for one in lines if "held out" in one]
    assert [one.split()[1] for one in held_out] == ["5/10", "10/10"]
    assert "\x1b" not in shown
    assert not errors
    account = json.loads((folder / "run.json").read_text())
    accuracy = 100 * account["evaluation"]["accuracy"]["estimate"]
    assert f"accuracy on held-out pairs                  {accuracy:.1f} % [" in shown
    assert f"{account['data']['training']['groups']}  " in shown
    for name in ("run.json", "README.md", "loss.png", "accuracy.png"):
        assert (folder / name).stat().st_size
        assert name in shown


def test_the_last_step_is_logged_whatever_its_number(tiny_checkpoint, tmp_path):
    folder = tmp_path / "run"
    assert train(tiny_checkpoint, folder, logging_steps=4, save_strategy="no") == 0
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert [log["step"] for log in history if "loss" in log] == [4, 8, 10]


def test_a_terminal_gets_a_bar(tiny_checkpoint, tmp_path):
    command = [sys.executable, "-m", "posttrain", *options(tiny_checkpoint, tmp_path / "run")]
    command = [one if one != "true" else "false" for one in map(str, command)]  # disable_tqdm
    theirs, ours = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    running = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=ours, env=environment, cwd=Path.cwd()
    )
    os.close(ours)
    seen = b""
    while True:
        try:
            piece = os.read(theirs, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(theirs)
    assert running.wait(timeout=60) == 0
    text = seen.decode()
    assert "training" in text
    assert "10/10" in text
    assert "evaluating" in text
    assert "left" in text
    # The cursor, which the bar hides, is there again.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def fail(*_, **__):
    raise AssertionError("weights were read")


@pytest.mark.parametrize(
    ("responses", "changes", "problem"),
    [
        (("too " * 500, "short"), {}, "too long: 6 of "),
        (("sure", "sorry"), {"eval_data": "missing.jsonl"}, "missing.jsonl"),
        (("sure", "sorry"), {"margins": "small"}, "has no strength"),
    ],
    ids=["long", "missing", "strength"],
)
def test_data_are_checked_before_weights_are_read(
    tiny_checkpoint, tmp_path, monkeypatch, capsys, responses, changes, problem
):
    groups = [
        RankedGroup(f"mine-{place}", (Message("user", f"Why {place}?"),), responses)
        for place in range(8)
    ]
    write_groups(tmp_path / "mine.jsonl", groups)
    monkeypatch.setattr(loading, "_load_with_base", fail)
    changes = {"data": tmp_path / "mine.jsonl"} | changes
    assert problem in refusal(capsys, train(tiny_checkpoint, tmp_path / "run", **changes))
    # The same with good data gets as far as the weights.
    changes = {"data": "simulator:20"}
    with pytest.raises(AssertionError, match="weights were read"):
        train(tiny_checkpoint, tmp_path / "again", **changes)


def test_evaluate_prints_a_table_and_writes_json(trained, tmp_path, capsys):
    report = tmp_path / "report.json"
    command = ["evaluate", "--model", str(trained), "--data", "simulator:40:8", "--resamples", "50"]
    assert cli.main([*command, "--output", str(report)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert f"{100 * found['accuracy']['estimate']:.1f} %" in shown
    assert "{" not in shown
    assert cli.main([*command, "--output", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(("step", "few"), [(512, True), (2, False)])
def test_too_few_steps_are_said_before_they_are_made(
    tiny_checkpoint, tmp_path, monkeypatch, caplog, step, few
):
    monkeypatch.setattr(loading, "_load_with_base", fail)
    changes = {"groups_per_step": None, "pairs_per_step": step}
    with pytest.raises(AssertionError, match="weights were read"):
        train(tiny_checkpoint, tmp_path / "run", **changes)
    assert ("set --pairs_per_step to 2" in caplog.text) == few

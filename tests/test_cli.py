"""The command line: help, exit codes, and what a user sees of an error."""

import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from command_line import refused, run

from posttrain import cli
from posttrain.commands import data
from posttrain.errors import UserError

COMMANDS = (
    [], ["data"], ["data", "check"], ["data", "convert"], ["data", "simulate"], ["study"],
    ["train"], ["calibrate"], ["score"], ["evaluate"], ["sample"], ["sft"], ["dpo"], ["average"],
    ["study", "margin"], ["claims"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_there(command, capsys):
    assert refused(*command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: {' '.join(['posttrain', *command])}")


def test_help_lists_every_command(capsys):
    assert refused("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  {command}  " in shown for command in cli.COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["data"],
        ["data", "check"],
        ["data", "simulate"],
        ["data", "simulate", "x.jsonl", "--domain", "beauty"],
        ["data", "simulate", "x.jsonl", "--groups", "many"],
        ["data", "convert", "ukpconvarg"],
        ["study", "nonsense"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_not_understood_exits_with_2(command, capsys):
    assert refused(*command) == 2
    assert capsys.readouterr().err.startswith("usage: posttrain")


def test_an_unknown_option_is_named(capsys):
    assert refused("data", "check", "x.jsonl", "--fast") == 2
    assert "--fast" in capsys.readouterr().err


def failing(error):
    def check(*_, **__):
        raise error

    return check


def test_a_users_mistake_is_one_line_and_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(data, "check", failing(UserError("mine.jsonl, line 3: mend it")))
    assert run("data", "check", "mine.jsonl") == 1
    assert capsys.readouterr() == ("", "posttrain: mine.jsonl, line 3: mend it\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), TypeError("a bug")])
def test_a_mistake_of_this_package_keeps_its_traceback(monkeypatch, capsys, error):
    monkeypatch.setattr(data, "check", failing(error))
    with pytest.raises(type(error)) as raised:
        run("data", "check", "mine.jsonl")
    assert raised.value is error
    assert "check" in [entry.name for entry in raised.traceback]
    assert capsys.readouterr() == ("", "")


def test_the_console_script_answers_help_without_heavy_modules():
    code = (
        "import sys; from posttrain import cli; sys.argv = ['posttrain', '--help']\n"
        "try: cli.entry()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'transformers', 'trl', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: posttrain")


def test_versions_are_shown(capsys):
    assert refused("--version") == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert [*shown] == ["posttrain", "torch", "transformers", "trl"]
    assert shown["transformers"] == transformers.__version__


def test_a_reader_that_has_seen_enough_is_no_error():
    results = Path(__file__).parents[1] / "book" / "results"
    command = [sys.executable, "-m", "posttrain", "claims", "--results", str(results)]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.stdout.close()
    assert (done.stderr.read(), done.wait(timeout=120)) == (b"", 0)
    done.stderr.close()

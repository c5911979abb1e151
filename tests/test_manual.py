"""The book's pages of commands: one each, with every option of its help."""

import re

import pytest

from posttrain import cli, manual
from posttrain.commands.pages import PAGES
from posttrain.studies.registry import STUDIES


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    assert manual.main([str(folder)]) == 0
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def section(pages, command):
    """The part of a page that is about one command or subcommand."""
    text = pages[command.split()[0]]
    return re.split(r"^#+ posttrain ", text.partition(f" posttrain {command}\n")[2], flags=re.M)[0]


def test_every_command_has_a_page(pages):
    assert {*pages} == {*cli.COMMANDS}


@pytest.mark.parametrize("command", [*filter(None, PAGES), *(f"study {name}" for name in STUDIES)])
def test_every_option_of_its_help_is_on_a_page_once(pages, capsys, command):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    shown = re.findall(r"^  (-\S+)", capsys.readouterr().out, flags=re.M)
    listed = re.findall(r"^`+\{option\} (\S+)", section(pages, command), flags=re.M)
    assert "--help" in shown
    assert {*shown} <= {*listed}
    assert len(listed) == len({*listed})


def test_options_have_values_meanings_and_groups(pages):
    train = section(pages, "train")
    groups = re.findall(r"^## (.+)$", train, flags=re.M)
    assert groups[:4] == ["Examples", "Options", "Data", "Rows"]
    assert groups[-1] == "Seldom needed", "those of libraries are left out"
    assert "{option} --max_tokens N\nMost tokens of a prompt" in train
    assert "model's context.\n````" in train.partition("--max_tokens")[2], "whole"


def test_examples_stand_as_a_shell_takes_them(pages):
    joined = {name: re.sub(r" *\\\n *", " ", section(pages, name)) for name in PAGES if name}
    for name, text in joined.items():
        assert all(example in text for example in PAGES[name].examples), name


def test_arguments_and_subcommands_are_listed(pages):
    assert "{describe} KEY\na claim; by default" in pages["claims"]
    assert "- `check`: summarise files" in pages["data"]


def test_marks_of_markdown_are_escaped():
    assert manual.marked("responses[0] of runs/gpu_x.yaml") == r"responses\[0] of runs/gpu_x.yaml"
    assert manual.marked("as --skip_bad or pad_token") == "as `--skip_bad` or `pad_token`"

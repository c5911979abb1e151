"""Help shows settings in groups, in one spelling each, and all of them where that is asked for."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest
from trl import TrlParser

from posttrain.config import help as help_module
from posttrain.config.fields import setting
from posttrain.config.help import Page, add_help
from posttrain.config.yaml import parse

TEXT = "How fast it goes, which is seen best where there is much to do, and not so well elsewhere."


class Pace(Enum):
    SLOW = "slow"
    FAST = "fast"


@dataclass
class Library:
    batch_size: int = field(default=8, metadata={"help": "The ``batch`` of :class:`~a.Trainer`."})
    pace: Pace | str = field(default=Pace.SLOW, metadata={"help": "How fast, ~20%% say."})
    notes: dict | str | None = field(default=None, metadata={"help": "Anything."})


# As if these were in packages of their own.
Library.__module__ = "library.settings"


@dataclass
class Settings(Library):
    pace: Pace | str = setting(Pace.FAST, TEXT)
    kind: Literal["one", "two"] = setting("one", "Which of them.")
    layout: str = setting("wide", "How wide.", ("wide", "narrow"))
    sizes: list[int] = setting([1, 20], "How large, in 100 % of cases.")
    learning_rate: float = setting(1e-5, "How steep.")
    skip_bad: bool = setting(False, "Skip them.")
    flags: bool = setting(True, "Heed flags.")
    limit: int | None = setting(None, "At most so many.")


PAGE = Page(
    groups={"speed": "pace learning_rate of_other_commands", "size": "sizes batch_size"},
    seldom="limit",
    texts={"batch_size": "So many at once.", "pace": "Not in place of our own."},
    examples=("posttrain run --sizes 3",),
)


def shown(capsys, *arguments, page=PAGE, columns=90):
    """The lines of help, those of each group in a list by its title."""
    parser = TrlParser(Settings, prog="posttrain run", description="Runs.", add_help=False)
    add_help(parser, page)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as stop:
            parse(parser, arguments)
    assert stop.value.code == 0
    groups, title = {}, None
    for line in capsys.readouterr().out.splitlines():
        if title is not None and line.startswith("  "):
            groups[title].append(line.strip())
        else:
            title = line.removesuffix(":")
            groups[title] = []
    return groups


def words(lines):
    return [" ".join(line.split()) for line in lines]


def test_settings_stand_in_groups_with_values_and_defaults(capsys):
    groups = shown(capsys, "--help")
    assert [*groups] == [
        "usage: posttrain run [settings]", "", "Runs.", "options", "speed", "size",
        "other settings", "examples",
    ]  # fmt: skip
    speed = " ".join(" ".join(groups["speed"]).split())
    assert speed == (
        f"--pace {{slow,fast}} {TEXT} (default: fast) "
        "--learning_rate NUMBER How steep. (default: 1e-05)"
    )
    assert words(groups["size"]) == [
        "--sizes N [N ...] How large, in 100 % of cases. (default: 1 20)",
        "--batch_size N So many at once. (default: 8)",
    ]
    assert words(groups["other settings"]) == [
        "--kind {one,two} Which of them. (default: one)",
        "--layout {wide,narrow} How wide. (default: wide)",
        "--skip_bad Skip them.",
        "--flags {true,false} Heed flags. (default: true)",
    ]
    assert groups["examples"] == ["posttrain run --sizes 3"]


@pytest.mark.parametrize("option", ["--help_all", "--help-all"])
def test_all_settings_are_shown_where_that_is_asked_for(option, capsys):
    groups = shown(capsys, option)
    assert words(groups["seldom needed"]) == ["--limit N At most so many."]
    assert words(groups["settings of library.Library"]) == ["--notes TEXT Anything."]


def test_a_librarys_text_is_plain(capsys):
    groups = shown(capsys, "--help_all", page=Page())
    assert "--batch_size N The batch of a.Trainer. (default: 8)" in words(
        groups["settings of library.Library"]
    )
    assert "settings" in groups


def test_help_all_is_offered_only_where_it_says_more(capsys):
    page = Page(groups={"all": "batch_size notes limit"})
    assert words(shown(capsys, "--help", page=page)["options"]) == [
        "--help Show the settings that matter most."
    ]
    assert len(shown(capsys, "--help")["options"]) == 2


@pytest.mark.parametrize(("columns", "widest"), [(50, 50), (300, 100)])
def test_help_is_as_wide_as_the_terminal_and_no_wider_than_its_most(columns, widest, capsys):
    groups = shown(capsys, "--help", columns=columns)
    longest = max(len(f"  {line}") for lines in groups.values() for line in lines)
    assert widest - 15 < longest <= widest


def test_many_choices_stand_in_the_text(monkeypatch, capsys):
    monkeypatch.setattr(help_module, "LONGEST", 8)
    speed = " ".join(" ".join(shown(capsys, "--help")["speed"]).split())
    assert speed.startswith(f"--pace NAME {TEXT} One of: slow, fast. (default: fast) --learn")


def test_both_spellings_are_understood():
    parser = TrlParser(Settings, prog="posttrain run", add_help=False)
    add_help(parser, PAGE)
    for option in ("--skip_bad", "--skip-bad"):
        (settings,) = parse(parser, [option, "--layout", "odd", "--no-flags"])
        # What a value may be is for the settings themselves to say, as for those of a file.
        assert (settings.skip_bad, settings.layout, settings.flags) == (True, "odd", False)


def test_wrong_usage_is_said_in_two_lines(capsys):
    parser = TrlParser(Settings, prog="posttrain run", add_help=False)
    add_help(parser, PAGE)
    with pytest.raises(SystemExit) as stop:
        parse(parser, ["--limit", "many"])
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: posttrain run [settings]; see posttrain run --help"
    assert "--limit" in error


def test_a_long_example_is_broken_as_a_shell_takes_it():
    example = "posttrain run " + " ".join(f"--sizes {number:03} 7" for number in range(12))
    _, *lines = Page(examples=(example,)).epilog.splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert "\n".join(lines).replace(" \\\n     ", "").strip() == example

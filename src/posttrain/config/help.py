"""Help for people: settings in groups, each in one spelling, and examples that run as pasted.

``--help`` shows the settings that matter most, ``--help_all`` also those of libraries.
"""

import argparse
import copy
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from itertools import chain
from typing import Any, Literal, get_args, get_origin, get_type_hints

from posttrain.config.fields import kinds

#: Most columns of a help page.
WIDEST = 100
#: Longest list of choices that stands beside an option, rather than below it.
LONGEST = 60


@dataclass(frozen=True)
class Page:
    """What the help of a command says beside what its settings say themselves.

    Commands of one kind share groups, so a command may lack settings that its page names. Its own
    settings that its page does not name are shown last.

    Attributes:
        groups: Names of settings, separated by spaces, by the title of their group.
        seldom: Names of settings that only ``--help_all`` shows.
        texts: Explanations of settings, in place of their library's.
        examples: Command lines that run as pasted, one after the other.
        after: Commands whose examples come first.
    """

    groups: Mapping[str, str] = field(default_factory=dict)
    seldom: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[str] = ()
    after: Sequence[str] = ()

    @property
    def epilog(self) -> str:
        """The examples, as a shell takes them."""
        first = " and ".join(f"posttrain {command} --help" for command in self.after)
        title = f"examples, after those of {first}:" if first else "examples:"
        return "\n  ".join([title, *map(broken, self.examples)])


def broken(command: str) -> str:
    """A command line, broken before options where it is long."""
    lines = [""]
    for part in re.split(r"(?= --)", command):
        if len(lines[-1] + part) > WIDEST - 6:
            lines.append("")
        lines[-1] += part
    return " \\\n     ".join(lines)


class Formatter(argparse.HelpFormatter):
    """argparse's layout in at most :data:`WIDEST` columns, each option in one spelling.

    Lines of description and epilog that begin with a space stay as they are.
    """

    def __init__(self, prog: str, **others: Any) -> None:
        width = min(shutil.get_terminal_size().columns, WIDEST) - 2
        super().__init__(prog, **{"max_help_position": 30, "width": width, **others})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        one = copy.copy(action)
        # Of -h, --help the long one, of --max_tokens, --max-tokens the name of the setting.
        names = [name for name in action.option_strings if "-" not in name[2:]]
        one.option_strings = names[-1:]
        return super()._format_action_invocation(one)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(
            line if line.startswith(" ") else fill(line, width, indent)
            for line in plain(text).splitlines()
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        default = in_short(action.default).replace("%", "%%")
        return f"{action.help} (default: {default})" if default else action.help or ""

    def _expand_help(self, action: argparse.Action) -> str:
        return plain(super()._expand_help(action))


def plain(text: str) -> str:
    """A text without the marks of reStructuredText and Markdown.

    >>> plain("a key of :data:`.losses.MARGINS`, if ``margins`` is `given`")
    'a key of losses.MARGINS, if margins is given'
    """
    return re.sub(r"(?::\w+:)?`+~?\.?([^`]*)`+", r"\1", text)


def in_short(default: Any) -> str:
    """A default as options and YAML have it; nothing where there is none, or it is false."""
    if default is None or default is False or default in ("", [], {}, argparse.SUPPRESS):
        return ""
    if default is True:
        return "true"
    if isinstance(default, list):
        return " ".join(map(in_short, default))
    if isinstance(default, float):
        return f"{default:g}"
    return str(default.value if isinstance(default, Enum) else default)


def add_help(parser: Any, page: Page, *others: argparse.Action) -> None:
    """Give a parser of settings, a ``TrlParser`` that has none, ``--help`` and ``--help_all``.

    ``others`` are options that are not settings.
    """
    parser.usage = f"{parser.prog} [settings]; see {parser.prog} --help"
    for everything, text in (
        (False, "Show the settings that matter most."),
        (True, "Show all settings, those of libraries as well."),
    ):
        parser.add_argument(
            *(["--help_all", "--help-all"] if everything else ["-h", "--help"]),
            action=_Help,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            nargs=0,
            help=text,
            shown=lambda everything=everything: help_text(
                parser, page, others, everything=everything
            ),
        )


class _Help(argparse.Action):
    def __init__(self, *given: Any, shown: Callable[[], str], **others: Any) -> None:
        super().__init__(*given, **others)
        self.shown = shown

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(self.shown(), end="")
        parser.exit()


def help_text(
    parser: Any, page: Page, others: Sequence[argparse.Action] = (), *, everything: bool = False
) -> str:
    """The help of a parser of settings; see :func:`add_help`."""
    # Of options with one name the first; another one switches it off.
    known = {action.dest: action for action in reversed(parser._actions)}
    hints: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for kind in parser.dataclass_types:
        hints |= get_type_hints(kind)
        origins |= _origins(kind)
    formatter = Formatter(parser.prog)
    formatter.add_usage(f"{parser.prog} [settings]", [], [])
    formatter.add_text(parser.description)
    short, whole = _groups(origins, page, everything=False), _groups(origins, page, everything=True)
    helps = [action for action in parser._actions if isinstance(action, _Help)]
    sections = {"options": [*others, *helps[: 1 if short == whole else 2]]}
    for title, names in (whole if everything else short).items():
        sections[title] = [
            _shown(known[name], hints[name], page.texts.get(name) if origins[name] else None)
            for name in names
        ]
    for title, actions in sections.items():
        formatter.start_section(title)
        formatter.add_arguments(actions)
        formatter.end_section()
    formatter.add_text(page.epilog)
    return formatter.format_help()


def _origins(kind: Any) -> dict[str, str]:
    """For each setting of a dataclass, the one of a library that it is from, or nothing."""
    ours = kind.__module__.partition(".")[0]
    bases = (base for base in kind.__mro__ if base.__module__.partition(".")[0] != ours)
    base: Any = next(filter(is_dataclass, bases), None)
    if base is None:
        return {one.name: "" for one in fields(kind) if one.init}
    theirs = base.__dataclass_fields__
    name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
    return {
        one.name: name if theirs.get(one.name) is one else "" for one in fields(kind) if one.init
    }


def _groups(origins: Mapping[str, str], page: Page, *, everything: bool) -> dict[str, list[str]]:
    """Names of settings by the titles under which they are shown."""
    groups = {title: names.split() for title, names in page.groups.items()}
    seldom = page.seldom.split()
    rest: dict[str, list[str]] = {"": []}
    for name, origin in origins.items():
        if name not in {*chain(*groups.values()), *seldom}:
            rest.setdefault(origin, []).append(name)
    groups["other settings" if groups else "settings"] = rest.pop("")
    if everything:
        groups["seldom needed"] = seldom
        groups |= {f"settings of {library}": names for library, names in rest.items()}
    known = {title: [name for name in names if name in origins] for title, names in groups.items()}
    return {title: names for title, names in known.items() if names}


def _shown(action: argparse.Action, hint: Any, text: str | None) -> argparse.Action:
    """An option as help shows it: a flag, or a name with what kind of value it takes."""
    shown = copy.copy(action)
    flag = action.const is True and action.default is False
    shown.nargs = 0 if flag else action.nargs if action.nargs == "+" else None
    shown.metavar, shown.help = action.metavar or _value(hint), text or action.help
    if len(shown.metavar) > LONGEST:
        shown.metavar, choices = "NAME", shown.metavar[1:-1].replace(",", ", ")
        shown.help = f"{shown.help} One of: {choices}."
    return shown


def _value(hint: Any) -> str:
    """What a value of a type looks like, in a word.

    >>> _value(Literal["mean", "last"]), _value(int | None), _value(list[float])
    ('{mean,last}', 'N', 'NUMBER')
    """
    possible = kinds(hint)
    for kind in possible:
        if get_origin(kind) is Literal:
            return f"{{{','.join(map(str, get_args(kind)))}}}"
        if isinstance(kind, type) and issubclass(kind, Enum):
            return f"{{{','.join(str(one.value) for one in kind)}}}"
        if get_origin(kind) is list and str not in possible:
            return _value(*get_args(kind))
    words = {str: "TEXT", bool: "{true,false}", int: "N", float: "NUMBER"}
    return next((word for kind, word in words.items() if kind in possible), "MAPPING")

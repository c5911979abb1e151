"""Settings from a YAML file (``--config``) and from options, which win; each value checked."""

import argparse
import difflib
import logging
import os
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from trl import TrlParser

from posttrain.config import trl
from posttrain.config.fields import fits, in_words
from posttrain.errors import UserError

#: Settings that have another name since 0.1.0; the old one goes in the next version.
RENAMED = {
    "centring": "center_rewards_coefficient",
    "finished": "cache_dir",
    "objective": "loss_type",
    "part_tokens": "max_tokens_per_device",
    "row_tokens": "pack_length",
}

#: From settings of TRL, and those given by the names of this package, to settings of this package.
Translate = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]

logger = logging.getLogger(__name__)


def parse(
    parser: TrlParser, arguments: Sequence[str], translate: Translate | None = None
) -> list[Any]:
    """Settings of a command, an object for each of the parser's dataclasses.

    The file's values become the parser's defaults. Options that make no sense end the program with
    exit code 2, as argparse does. With ``translate``, settings of :mod:`.config.trl` are
    understood, too.

    Raises:
        UserError: If the file cannot be read, is no mapping, or has an unknown setting or a value
            of the wrong type, or settings make no sense together.
    """
    first = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    first.add_argument("--config", metavar="FILE", action="append", default=[])
    known, rest = first.parse_known_args(arguments)
    if len(known.config) > 1:
        parser.error(f"give one --config file, not {len(known.config)}")
    where, content = known.config[0] if known.config else "", dict[str, Any]()
    if where:
        content = _read(where)
        _use_present_names(where, content)
    rest = present_names(rest)
    names = [word[2:].partition("=")[0].replace("-", "_") for word in rest]
    for action in parser._actions:
        if action.nargs == "+" and names.count(action.dest) > 1:
            problem = f"--{action.dest} is given twice; give it once, with all its values behind it"
            parser.exit(2, f"{parser.prog}: {problem}\n")
    if translate is not None:
        content, rest = _translated(where, content, rest, parser.prog, translate)
    parser.set_defaults_with_config(**_checked(where, content, parser, translate is not None))
    _, unknown = parser.parse_known_args(rest)
    if unknown:
        named = [word.partition("=")[0] for word in unknown if word.startswith("--")] or unknown
        known_names = _known(parser, translate is not None)
        parser.exit(2, f"{parser.prog}: {_not_known(named, known_names, '--')}; see --help\n")
    try:
        return list(parser.parse_args_into_dataclasses(args=rest))
    except ValueError as error:
        # Those of transformers' TrainingArguments are about what the user has set, too.
        raise UserError(str(error)) from error


def _translated(
    path: str, content: dict[str, Any], options: list[str], prog: str, translate: Translate
) -> tuple[dict[str, Any], list[str]]:
    """What a file and options say in settings of this package, and options that were left as is.

    As everywhere, options win over the file, whichever name they use.
    """
    in_file = {
        name: trl.read(name, content[name], f"{path}: ") for name in content if name in trl.FOREIGN
    }
    own = {name: value for name, value in content.items() if name not in trl.FOREIGN}
    trl.refuse_both(in_file, own | in_file, f"{path}: ")
    on_line, rest = trl.split_options(prog, options)
    own_on_line = _given(rest)
    trl.refuse_both(on_line, own_on_line | on_line, "--")
    for name in trl.overruled(in_file, own_on_line | on_line):
        del in_file[name]
    replaced = {one for name in on_line if name in trl.FOREIGN for one in trl.FOREIGN[name].here}
    own = {name: value for name, value in own.items() if name not in replaced}
    return own | translate(in_file | on_line, own | own_on_line), rest


def _given(options: Sequence[str]) -> dict[str, str]:
    """Names of options, each with the first word that follows it, or none."""
    given: dict[str, str] = {}
    name = None
    for word in options:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            given[name] = value
        elif name is not None:
            given[name] = given[name] or word
    return given


def _known(parser: TrlParser, bridged: bool) -> set[str]:
    """Names of all settings that a command understands."""
    own = {option.dest for option in parser._actions} - {"help"}
    return own | (trl.SETTINGS.keys() if bridged else set())


def _not_known(names: Iterable[str], known: Iterable[str], dashes: str = "") -> str:
    """That settings are not known, each with the known one that is most like it."""
    listed = sorted(known)
    found = []
    for name in dict.fromkeys(names):
        bare = name.lstrip("-").replace("-", "_")
        like = difflib.get_close_matches(bare, listed, n=1)
        found.append(f"{name} (did you mean {dashes}{like[0]}?)" if like else name)
    return f"unknown settings: {', '.join(found)}"


def _read(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(
            f"the --config file {path} cannot be read ({error.strerror}); check the path"
        ) from None
    # ValueError: bytes that are not UTF-8, and what only looks like a date or a number.
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"the --config file {path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(
            f"the --config file {path} must hold a line 'name: value' for each setting, not "
            f"{'nothing' if content is None else repr(content)[:60]}"
        )
    # YAML itself takes the last of two values without a word.
    names = Counter(name.value for name, _ in yaml.compose(text).value)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"{path}: {', '.join(twice)} given twice; keep one line of each")
    return content


def _use_present_names(path: str, content: dict[str, Any]) -> None:
    for name in [name for name in content if name in RENAMED]:
        if RENAMED[name] in content:
            raise UserError(
                f"{path}: {name} is the old name of {RENAMED[name]}; give only the latter"
            )
        content[_present_name(name)] = content.pop(name)


def _checked(
    path: str, content: dict[str, Any], parser: TrlParser, bridged: bool
) -> dict[str, Any]:
    """The values as options would give them; TRL sets the variables under ``env``."""
    hints = {
        name: hint for kind in parser.dataclass_types for name, hint in get_type_hints(kind).items()
    }
    options: dict[str, argparse.Action] = {}
    for option in parser._actions:
        options.setdefault(option.dest, option)
    environment = content.pop("env", {})
    if not isinstance(environment, dict):
        raise UserError(f"{path}: env must be a mapping of environment variables to values")
    unknown = [name for name in content if name not in options or name not in hints]
    if unknown:
        raise UserError(f"{path}: {_not_known(unknown, _known(parser, bridged))}; see --help")
    values = {}
    for name, value in content.items():
        try:
            values[name] = _converted(value, hints[name], options[name])
        except (ValueError, TypeError, ArgumentTypeError):
            quotes = ""
            if isinstance(value, bool | int | float) and fits("", hints[name]):
                quotes = "; put it in quotes"
                if isinstance(value, bool):
                    quotes += " (YAML takes words such as no and on for true or false)"
            raise UserError(
                f"{path}: {name} must be {in_words(hints[name])}, not {value!r}{quotes}"
            ) from None
    os.environ.update({name: str(value) for name, value in environment.items()})
    return values


def _converted(value: Any, hint: Any, option: argparse.Action) -> Any:
    """A value of the hint's type; text is read as on the command line, for YAML's 1e-5 is text."""
    if value is None and option.default is None:
        return None
    read: Any = option.type or str
    if option.nargs == "+":
        # A file or a size alone is a list of one; otherwise text would be taken letter by letter.
        values = value if isinstance(value, list) else [value]
        value = [read(item) if isinstance(item, str) else item for item in values]
    elif isinstance(value, str):
        value = read(value)
    if not fits(value, hint):
        raise ValueError
    return value


def _present_name(name: str) -> str:
    present = RENAMED.get(name.replace("-", "_"))
    if present is None:
        return name
    logger.warning("%s is called %s now; its old name goes in the next version", name, present)
    return present


def present_names(arguments: Sequence[str]) -> list[str]:
    """Options by their present names, each old one mentioned once."""
    seen: dict[str, str] = {}
    present = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            if name not in seen:
                seen[name] = f"--{_present_name(name[2:])}"
            argument = seen[name] + equals + value
        present.append(argument)
    return present

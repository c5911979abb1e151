"""Settings from a YAML file (``--config``) and from options, which win; each value checked."""

import argparse
import logging
import os
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from trl import TrlParser

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

logger = logging.getLogger(__name__)


def parse(parser: TrlParser, arguments: Sequence[str]) -> list[Any]:
    """Settings of a command, an object for each of the parser's dataclasses.

    The file's values become the parser's defaults. Options that make no sense end the program with
    exit code 2, as argparse does.

    Raises:
        UserError: If the file cannot be read, is no mapping, or has an unknown setting or a value
            of the wrong type, or settings make no sense together.
    """
    first = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    first.add_argument("--config", metavar="FILE", action="append", default=[])
    known, rest = first.parse_known_args(arguments)
    if len(known.config) > 1:
        parser.error(f"give one --config file, not {len(known.config)}")
    for path in known.config:
        parser.set_defaults_with_config(**_checked(path, _read(path), parser))
    try:
        *settings, unknown = parser.parse_args_into_dataclasses(
            args=present_names(rest), return_remaining_strings=True
        )
    except ValueError as error:
        # Those of transformers' TrainingArguments are about what the user has set, too.
        raise UserError(str(error)) from error
    if unknown:
        parser.error(f"unknown settings: {' '.join(unknown)}")
    return settings


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


def _checked(path: str, content: dict[str, Any], parser: TrlParser) -> dict[str, Any]:
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
    for name in [name for name in content if name in RENAMED]:
        if RENAMED[name] in content:
            raise UserError(
                f"{path}: {name} is the old name of {RENAMED[name]}; give only the latter"
            )
        content[_present_name(name)] = content.pop(name)
    unknown = [name for name in content if name not in options or name not in hints]
    if unknown:
        raise UserError(f"{path}: unknown settings: {', '.join(unknown)}; see --help")
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

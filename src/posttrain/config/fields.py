"""Typed settings: dataclasses whose fields explain themselves to TRL's parser, and their values."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from posttrain.errors import UserError

WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false",
    dict: "a mapping", Path: "a path", type(None): "null",
}  # fmt: skip


def setting(default: Any, explanation: str, choices: Iterable[str] = ()) -> Any:
    """A field of a settings dataclass with a default and the text that ``--help`` shows.

    ``choices`` are shown, too; the dataclass itself refuses other values, however they are given.
    """
    metadata = {"help": explanation.replace("%", "%%")}  # argparse takes % for its own
    if choices:
        metadata["metavar"] = f"{{{','.join(choices)}}}"
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least_one(settings: object, *names: str) -> None:
    """Refuse a number below 1 among settings; None, which sets no limit, passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")


def one_of(settings: object, name: str, choices: str) -> None:
    """Refuse a setting that is not among the values that another one lists."""
    value, known = getattr(settings, name), getattr(settings, choices)
    if value not in known:
        raise UserError(f"{name} {value} is not one of {choices} {known}")


def settings_from(kind: type, given: Any, where: str) -> Any:
    """An object of the settings dataclass ``kind``, with values as YAML or papermill gives them.

    ``given`` is what differs from the defaults, by name, or None; ``where`` begins the message.

    Raises:
        UserError: If a setting is unknown or of the wrong type, or settings make no sense together.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"{where}: settings must be a mapping from name to value, not {given!r}")
    hints = get_type_hints(kind)
    defaults = {one.name: one.default for one in fields(kind) if one.init}
    if unknown := [name for name in given or {} if name not in defaults]:
        raise UserError(
            f"{where}: unknown settings: {', '.join(map(str, unknown))}; "
            f"known: {', '.join(defaults)}"
        )
    values = {
        # Some settings have None for a default that depends on others.
        name: value
        if value is None and defaults[name] is None
        else typed(value, hints[name], f"{where}: {name}")
        for name, value in (given or {}).items()
    }
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def typed(value: Any, hint: Any, name: str) -> Any:
    """A value of a type; text is read as YAML where no text is expected.

    >>> typed("[100, 400]", list[int], "sizes")
    [100, 400]
    >>> typed(["1e-3"], list[float], "learning_rates")  # to YAML 1.1, 1e-3 is text
    [0.001]

    Raises:
        UserError: If it is of another type; the message says which is needed, after the name.
    """
    found = _read(value, hint)
    if not fits(found, hint):
        raise UserError(f"{name} must be {in_words(hint)}, not {value!r}")
    return found


def _read(value: Any, hint: Any) -> Any:
    if fits(value, hint):
        return value
    if isinstance(value, str):
        try:
            content = yaml.safe_load(value)
            if isinstance(content, str):
                content = float(content)
        except (yaml.YAMLError, ValueError):
            return value
        return _read(content, hint)
    if isinstance(value, list):
        for kind in kinds(hint):
            if get_origin(kind) is list:
                return [_read(one, *get_args(kind)) for one in value]
    return value


def kinds(hint: Any) -> tuple[Any, ...]:
    """The types of which a value may be."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; whole numbers are numbers, true and false are not."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, kind) for kind in kinds(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(fits(one, *get_args(hint)) for one in value)
    if isinstance(value, bool) and hint is not bool:
        return False  # to Python, True is a whole number
    return isinstance(value, (int, float) if hint is float else origin or hint)


def in_words(hint: Any) -> str:
    """A type, for a message.

    >>> in_words(list[int] | None)
    'a list (of a whole number each) or null'
    """
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        # Members of enumerations are given as text.
        named = [
            kind for kind in kinds(hint) if not (isinstance(kind, type) and issubclass(kind, Enum))
        ]
        return " or ".join(map(in_words, named))
    if origin is list:
        return f"a list (of {in_words(*get_args(hint))} each)"
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    return WORDS.get(origin or hint, getattr(hint, "__name__", str(hint)))

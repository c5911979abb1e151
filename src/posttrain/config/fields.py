"""Typed settings: dataclasses whose fields explain themselves to TRL's parser."""

import copy
from dataclasses import field
from typing import Any

from posttrain.errors import UserError


def setting(default: Any, explanation: str) -> Any:
    """A field of a settings dataclass with a default and the text that ``--help`` shows."""
    metadata = {"help": explanation}
    if isinstance(default, list):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least_one(settings: object, *names: str) -> None:
    """Check numbers among settings; None, which sets no limit, passes.

    Raises:
        UserError: If one is below 1; the message names it.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")


def one_of(settings: object, name: str, choices: str) -> None:
    """Check that a setting is among the values that another one lists.

    Raises:
        UserError: If it is not; the message names both.
    """
    value, known = getattr(settings, name), getattr(settings, choices)
    if value not in known:
        raise UserError(f"{name} {value} is not one of {choices} {known}")

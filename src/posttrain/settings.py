"""Typed settings: dataclasses whose fields explain themselves to TRL's parser."""

import copy
from dataclasses import field
from typing import Any


def setting(default: Any, explanation: str) -> Any:
    """A field of a settings dataclass with a default and the text that ``--help`` shows."""
    metadata = {"help": explanation}
    if isinstance(default, list):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)

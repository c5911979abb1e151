"""Research questions, a folder each; every study returns tidy tables as a run record."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.studies.claims import CLAIMS, SUBJECTS
    from posttrain.studies.registry import STUDIES

__all__ = ["CLAIMS", "STUDIES", "SUBJECTS"]

_MODULES = {"CLAIMS": "claims", "SUBJECTS": "claims", "STUDIES": "registry"}


def __getattr__(name: str) -> Any:
    """The registries, imported when they are asked for: that of studies needs all their code."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""Research questions, a folder each; every study returns tidy tables as a run record."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.studies.registry import STUDIES

__all__ = ["STUDIES"]


def __getattr__(name: str) -> Any:
    """``STUDIES``, imported when it is asked for: it needs every study."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from posttrain.studies import registry

    return getattr(registry, name)

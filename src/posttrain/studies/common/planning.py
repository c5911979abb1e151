"""How a study trains, and how its runs are named after the records that they give."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from posttrain.data.sources.simulator.annotators import SIMULATOR

#: Linear heads on frozen features, or whole models.
Training = Literal["heads", "full"]
Settings = TypeVar("Settings")


def trains_whole_models(source: str, training: Training | None) -> bool:
    """Whether whole models are trained: by default on simulated data, and heads on human data.

    Raises:
        ValueError: If heads are asked for on the simulator, or the way of training is unknown.
    """
    if training not in (None, *get_args(Training)):
        raise ValueError(f"unknown training {training!r}; known: {', '.join(get_args(Training))}")
    if source == SIMULATOR and training == "heads":
        raise ValueError(
            "on the simulator whole models take seconds to train, so heads on frozen features are "
            "only for human data; use training 'full'"
        )
    return source == SIMULATOR or training == "full"


def planned(
    runs: Mapping[str, Mapping[str, Any]],
    settings_for: Callable[[str, Training | None], Callable[..., Settings]],
    name_of: Callable[[str, Settings], str],
    *,
    suffixes: Sequence[str] = (),
    remedy: str = "name it so",
) -> list[tuple[str, Settings]]:
    """Sources and settings of runs, from the names of their records and what differs from defaults.

    Args:
        runs: Settings by name: that of a source, ``NAME-full`` for whole models on human data, or
            with another suffix.
        settings_for: Gives the settings class of a source and a way of training.
        name_of: Gives the name of the record of a source and settings.
        suffixes: What else may follow the name of a source.
        remedy: What to do about a name that does not fit.

    Raises:
        ValueError: If a name and its settings do not fit.
    """
    found = []
    for name, given in runs.items():
        source = name
        for suffix in ("-full", *suffixes):
            source = source.removesuffix(suffix)
        settings = settings_for(source, "full" if name.endswith("-full") else None)(**given)
        if name_of(source, settings) != name:
            raise ValueError(
                f"the run named {name!r} would give a record named {name_of(source, settings)!r}; "
                f"{remedy}"
            )
        found.append((source, settings))
    return found

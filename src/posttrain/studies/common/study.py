"""What a study is: a question, the settings of its runs, and what measures one source of data."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from posttrain.config.fields import settings_from
from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError
from posttrain.evidence import records

#: Linear heads on frozen features, or whole models.
Training = Literal["heads", "full"]


@dataclass(frozen=True)
class Measured:
    """What one run of a study found; with the run's settings it becomes a record."""

    data: Mapping[str, Any]  #: Fingerprint and sizes of the data.
    tables: dict[str, pd.DataFrame]
    #: As the record shows them; None for all that the run was given.
    settings: Mapping[str, Any] | None = None
    source: str | None = None  #: Name of the record's source, where the settings decide it.
    environment: Mapping[str, Any] | None = None  #: Where it ran, if that was not here.


@dataclass(frozen=True)
class Study:
    """A research question and how runs answer it.

    ``measure`` takes a source, settings, and a folder that keeps finished training runs (or None).

    >>> from posttrain.studies import STUDIES
    >>> STUDIES["margin"].parse_runs({"simulator": {"seeds": 2}})[0][0]
    'simulator'
    >>> STUDIES["margin"].settings_for("ukpconvarg", "full").__name__
    'HumanFullSettings'
    """

    name: str  #: Of its records, for instance ``margin``.
    question: str  #: What it asks, in a line.
    measure: Callable[[str, Any, Path | None], Measured]
    simulated: type  #: Settings of runs on simulated data, which train whole models.
    human: type  #: Settings of runs on human data, by default.
    human_full: type | None = None  #: Of whole models on human data, where the default is heads.
    #: What settings add to the name of a source.
    variant: Callable[[Any], str] = lambda settings: ""
    variants: tuple[str, ...] = ()  #: All that they may add.
    memoizes: bool = False  #: Whether finished training runs can be kept in a folder.

    def settings_for(self, source: str, training: Training | None = None) -> type:
        """The settings class of a source, by default that of the cheaper way of training.

        Raises:
            UserError: If the study does not train the source that way.
        """
        ways = ("full",) if self.human_full is None else get_args(Training)
        if training is not None and training not in ways:
            raise UserError(f"unknown training {training!r}; known: {', '.join(ways)}")
        if source == SIMULATOR:
            if training == "heads":
                raise UserError(
                    "on the simulator whole models take seconds to train, so heads on frozen "
                    "features are only for human data; use training 'full'"
                )
            return self.simulated
        return self.human_full if self.human_full and training == "full" else self.human

    def record_name(self, source: str, settings: Any) -> str:
        """Name of the source in a record; records of one name would replace each other."""
        full = "-full" if type(settings) is self.human_full else ""
        return f"{source}{full}{self.variant(settings)}"

    def parse_runs(self, runs: Mapping[str, Any], **every: Any) -> list[tuple[str, Any]]:
        """Sources and settings of runs, from the names of their records.

        A name is that of a source, ``NAME-full`` for whole models where heads are the default, or
        ends in one of :attr:`variants`; its value is what differs from the default settings.
        ``every`` holds settings of every run, in place of its own; None changes nothing.

        Raises:
            UserError: If a setting is unknown or of the wrong type, or a name does not fit.
        """
        every = {setting: value for setting, value in every.items() if value is not None}
        parsed = []
        for name, given in runs.items():
            source = name
            for suffix in ("-full", *self.variants):
                source = source.removesuffix(suffix)
            kind = self.settings_for(source, "full" if name.endswith("-full") else None)
            if given is None or isinstance(given, Mapping):
                given = {**(given or {}), **every}
            settings = settings_from(kind, given, f"run {name!r}")
            if self.record_name(source, settings) != name:
                raise UserError(
                    f"the run named {name!r} would give a record named "
                    f"{self.record_name(source, settings)!r}; name it so, or change its settings"
                )
            parsed.append((source, settings))
        return parsed

    def run(
        self,
        source: str,
        settings: Any = None,
        *,
        profile: str = "custom",
        cache_dir: Path | None = None,
    ) -> records.Record:
        """Run the study on one source; the record is not yet saved.

        Args:
            source: ``simulator``, or the name of human data (see :mod:`.sources.human`).
            settings: Those of :meth:`settings_for` the source if not given. Their class decides how
                models are trained.
            profile: Label of how much was run.
            cache_dir: Folder that keeps finished training runs, so that the study goes on where it
                was interrupted; runs of the same code, settings, data and machine only.

        Raises:
            UserError: If the settings are of the wrong class, the data cannot be used, or finished
                runs of code that is not committed are to be kept.
        """
        started = time.time()
        settings = settings if settings is not None else self.settings_for(source)()
        fitting = {self.simulated} if source == SIMULATOR else {self.human, self.human_full}
        if type(settings) not in fitting:
            names = " or ".join(sorted(kind.__name__ for kind in fitting if kind))
            raise UserError(f"source {source!r} takes {names}")
        measured = self.measure(source, settings, cache_dir)
        return records.Record(
            study=self.name,
            source=measured.source or self.record_name(source, settings),
            profile=profile,
            settings=dict(measured.settings or asdict(settings)),
            data=dict(measured.data),
            tables=measured.tables,
            environment=dict(measured.environment or records.environment(started)),
        )

"""The margin study: what did Llama 2's margin buy, and was Llama 3 right to drop it?

Reward models are trained with four losses (:data:`.margin.outcome.LOSSES`), on all pairs and on
those that pass Llama 3's filter, at growing data sizes. Hyperparameters are chosen in two ways,
always both: one setting *shared* by all arms, and one *tuned* for each arm by accuracy on held-out
training groups.

The two ways of training live in modules of their own: :mod:`.margin.heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.margin.full` (whole models: the tiny Llama on simulated
data, and SmolLM2 on human data).
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.data.sources import human
from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evidence import records
from posttrain.studies.common import planning
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.planning import Training, trains_whole_models
from posttrain.studies.margin import full, heads
from posttrain.studies.margin.full import FullSettings, HumanFullSettings
from posttrain.studies.margin.heads import HeadSettings
from posttrain.studies.margin.outcome import RatedPairs, summarise


def settings_for(
    source: str, training: Training | None = None
) -> type[FullSettings] | type[HeadSettings]:
    """The settings class of a source: by default full training for the simulator, heads otherwise.

    Raises:
        ValueError: See :func:`.planning.trains_whole_models`.
    """
    if not trains_whole_models(source, training):
        return HeadSettings
    return FullSettings if source == SIMULATOR else HumanFullSettings


def planned(
    runs: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, FullSettings | HeadSettings]]:
    """Sources and settings of runs (see :func:`.planning.planned`).

    Args:
        runs: Settings by name: that of a source, or ``NAME-full`` (see :func:`run`).

    Raises:
        ValueError: If a name and its settings do not fit.
    """
    return planning.planned(runs, settings_for, _name)


def run(
    source: str,
    *,
    profile: str = "quick",
    settings: FullSettings | HeadSettings | None = None,
    finished: Path | None = None,
) -> records.Record:
    """Run the study on one source.

    Args:
        source: ``simulator``, or the name of human preference data (see :mod:`.sources.human`).
        profile: Label of how much was run.
        settings: Those of :func:`settings_for` the source if not given. Their class decides how
            models are trained.
        finished: Folder that keeps every finished run of full training, so that the study goes on
            where it was interrupted; of the same code, settings, data and machine only.

    Returns:
        The record, not yet saved; its tables are those of :func:`.margin.outcome.summarise`. Its
        source is ``NAME-full`` for full training on human data.

    Raises:
        ValueError: If the settings are of the wrong class, the data cannot be used, or finished
            runs of code that is not committed are to be kept.
    """
    started = time.time()
    settings = settings or settings_for(source)()
    fitting = {settings_for(source), settings_for(source, "full")}
    if type(settings) not in fitting:
        names = " or ".join(sorted(kind.__name__ for kind in fitting))
        raise ValueError(f"source {source!r} takes {names}")
    checkpoint = checkpoint_for(source)
    if isinstance(settings, FullSettings):
        prepared = full.prepare(source, checkpoint, settings)
        data = prepared.account
        outcome = full.run(checkpoint, settings, prepared, finished=finished)
    else:
        groups, data = human.load(source)
        outcome = heads.run(RatedPairs.of(groups), checkpoint, settings)
    return records.Record(
        study="margin",
        source=_name(source, settings),
        profile=profile,
        settings=asdict(settings),
        data=data | outcome.training,
        tables=summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )


def _name(source: str, settings: FullSettings | HeadSettings) -> str:
    """Name of a record's source: records of one name would replace each other."""
    return f"{source}-full" if isinstance(settings, HumanFullSettings) else source

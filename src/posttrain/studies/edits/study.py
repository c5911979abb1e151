"""The study of edited responses: how they are used, how much they add, and when.

Reward models are trained with every arm of :data:`.edits.outcome.ARMS` at growing numbers of groups
and growing shares of edits, and tested on chosen > rejected, edited > chosen and edited > rejected
of held-out groups; on simulated data also against the gold quality.

The two ways of training live in modules of their own: :mod:`.edits.heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.edits.full` (whole models: the tiny Llama on simulated
data, and SmolLM2 on a GPU).
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evidence import records
from posttrain.studies.common import planning
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.planning import Training, trains_whole_models
from posttrain.studies.edits import full, heads
from posttrain.studies.edits.data import load_edits
from posttrain.studies.edits.full import FullSettings, HumanFullSettings
from posttrain.studies.edits.heads import HeadSettings
from posttrain.studies.edits.outcome import summarise


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
        runs: Settings by name: that of a source, ``NAME-full``, ``simulator-careless`` or
            ``simulator-longer`` (see :func:`run`).

    Raises:
        ValueError: If a name and its settings do not fit.
    """
    return planning.planned(
        runs,
        settings_for,
        _name,
        suffixes=("-careless", "-longer"),
        remedy="name it so, or change editor_error or epochs",
    )


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
        finished: Folder that keeps every finished cell of full training, so that the study goes on
            where it was interrupted; of the same code, settings, data and machine only.

    Returns:
        The record, not yet saved: the tables of :func:`.edits.outcome.summarise`, and ``tuning``.
        Its source is ``NAME-full`` for full training on human data, ``NAME`` for heads on it, and
        ``simulator-careless`` where editors err, ``simulator-longer`` with several epochs.

    Raises:
        ValueError: If an arm is unknown or missing, the data does not suffice, or finished cells of
            code that is not committed are to be kept.
    """
    started = time.time()
    settings = settings or settings_for(source)()
    checkpoint = checkpoint_for(source)
    groups = load_edits(source, checkpoint, settings)
    if isinstance(settings, FullSettings):
        outcome, tuning = full.run(full.Bench.of(checkpoint, groups, settings), finished=finished)
    else:
        outcome, tuning = heads.run(checkpoint, groups, settings)
    return records.Record(
        study="edits",
        source=_name(source, settings),
        profile=profile,
        settings=asdict(settings),
        data=groups.account | outcome.account,
        tables={"tuning": tuning} | summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )


def _name(source: str, settings: FullSettings | HeadSettings) -> str:
    """Name of a record's source: records of one name would replace each other."""
    if isinstance(settings, HumanFullSettings):
        return f"{source}-full"
    if isinstance(settings, FullSettings) and settings.epochs > 1:
        source += "-longer"
    return f"{source}-careless" if settings.editor_error else source

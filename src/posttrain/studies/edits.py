"""The study of edited responses: how they are used, how much they add, and when.

Reward models are trained with every arm of :data:`.edits_outcome.ARMS` at growing numbers of groups
and growing shares of edits, and tested on chosen > rejected, edited > chosen and edited > rejected
of held-out groups; on simulated data also against the gold quality.

The two ways of training live in modules of their own: :mod:`.edits_heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.edits_full` (whole models: the tiny Llama on simulated
data, and SmolLM2 on a GPU).
"""

import time
from dataclasses import asdict

from posttrain import records
from posttrain.sources.simulator import SIMULATOR
from posttrain.studies import edits_full, edits_heads
from posttrain.studies.edits_data import load_edits
from posttrain.studies.edits_full import FullSettings
from posttrain.studies.edits_heads import HeadSettings
from posttrain.studies.edits_outcome import summarise
from posttrain.studies.groups import checkpoint_for


def settings_for(source: str) -> type[FullSettings] | type[HeadSettings]:
    """The settings class of a source: full training for the simulator, heads for human data."""
    return FullSettings if source == SIMULATOR else HeadSettings


def run(
    source: str, *, profile: str = "quick", settings: FullSettings | HeadSettings | None = None
) -> records.Record:
    """Run the study on one source.

    Args:
        source: ``simulator``, or the name of human preference data (see :mod:`.sources.human`).
        profile: Label of how much was run.
        settings: Those of :func:`settings_for` the source if not given. Their class decides how
            models are trained.

    Returns:
        The record, not yet saved: the tables of :func:`.edits_outcome.summarise`, and ``tuning``.

    Raises:
        ValueError: If an arm is unknown or missing, or the data does not suffice.
    """
    started = time.time()
    settings = settings or settings_for(source)()
    checkpoint = checkpoint_for(source)
    groups = load_edits(source, checkpoint, settings)
    if isinstance(settings, FullSettings):
        outcome, tuning = edits_full.run(edits_full.Bench.of(checkpoint, groups, settings))
    else:
        outcome, tuning = edits_heads.run(checkpoint, groups, settings)
    return records.Record(
        study="edits",
        source=source,
        profile=profile,
        settings=asdict(settings),
        data=groups.account | outcome.account,
        tables={"tuning": tuning} | summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )

"""The margin study: what did Llama 2's margin buy, and was Llama 3 right to drop it?

Reward models are trained with four losses (:data:`.margin_outcome.LOSSES`), on all pairs and on
those that pass Llama 3's filter, at growing data sizes. Hyperparameters are chosen in two ways,
always both: one setting *shared* by all arms, and one *tuned* for each arm by accuracy on held-out
training groups.

The two ways of training live in modules of their own: :mod:`.margin_heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.margin_full` (the tiny Llama trained in full on simulated
data).
"""

import time
from dataclasses import asdict
from typing import Any

from posttrain import checkpoints, records
from posttrain.preferences import fingerprint
from posttrain.sources import human
from posttrain.sources.simulator import SIMULATOR
from posttrain.studies import margin_full, margin_heads
from posttrain.studies.margin_full import FullSettings
from posttrain.studies.margin_heads import HeadSettings
from posttrain.studies.margin_outcome import RatedPairs, summarise


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
        settings: Settings of :func:`settings_for` that source; default ones if not given.

    Returns:
        The record, not yet saved; its tables are those of :func:`.margin_outcome.summarise`.

    Raises:
        ValueError: If the settings are of the wrong class, or the data cannot be used.
    """
    started = time.time()
    settings = settings or settings_for(source)()
    if not isinstance(settings, settings_for(source)):
        raise ValueError(f"source {source!r} takes {settings_for(source).__name__}")
    data: dict[str, Any]
    if isinstance(settings, FullSettings):
        checkpoint = checkpoints.tiny()
        prepared = margin_full.prepare(checkpoint, settings)
        ranked = [group.ranked for group in prepared.simulated]
        data = {"groups": len(ranked), "fingerprint": fingerprint(ranked)}
        outcome = margin_full.run(checkpoint, settings, prepared)
    else:
        groups, data = human.load(source)
        outcome = margin_heads.run(RatedPairs.of(groups), checkpoints.smollm2(), settings)
    return records.Record(
        study="margin",
        source=source,
        profile=profile,
        settings=asdict(settings),
        data=data | outcome.training,
        tables=summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )

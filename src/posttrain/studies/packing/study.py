"""The packing study: train and test reward models with every row layout."""

import time
from dataclasses import asdict
from pathlib import Path

from posttrain.evidence import records
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.training import kept, many_runs
from posttrain.studies.packing.full import (
    PackingSettings,
    Scores,
    prepare,
    settings_for,
    train_and_score,
    train_and_test,
    tune,
)
from posttrain.studies.packing.outcome import chosen_rates, summarise


def run(
    source: str,
    *,
    profile: str = "quick",
    settings: PackingSettings | None = None,
    finished: Path | None = None,
) -> records.Record:
    """Run the study on one source.

    Args:
        source: ``simulator``, or the name of human preference data (see :mod:`.sources.human`).
        profile: Label of how much was run.
        settings: Those of :func:`settings_for` the source if not given.
        finished: Folder that keeps the scores of every finished training run, so that the study
            goes on where it was interrupted; of the same code, settings, data and versions only.

    Returns:
        The record, not yet saved: the tables of :func:`.packing.outcome.summarise`, and
        ``tuning``, that of :func:`tune`.

    Raises:
        ValueError: If an arm or test is unknown or missing, the data does not suffice, or finished
            runs of code that is not committed are to be kept.
    """
    started = time.time()
    settings = settings or settings_for(source)()
    checkpoint = checkpoint_for(source)
    prepared = prepare(source, checkpoint, settings)
    scores: Scores = train_and_score if finished is None else kept(
        train_and_score, finished, settings=asdict(settings), data=prepared.account,
        ignore=["checkpoint", "prepared", "settings"],
    )  # fmt: skip
    with many_runs():
        tuning = tune(checkpoint, prepared, settings, scores)
        outcome = train_and_test(checkpoint, prepared, chosen_rates(tuning), settings, scores)
    return records.Record(
        study="packing",
        source=source,
        profile=profile,
        settings=asdict(settings),
        data=prepared.account,
        tables={"tuning": tuning} | summarise(outcome, resamples=settings.resamples),
        environment=records.environment(started),
    )

"""The packing study: train and test reward models with every row layout."""

from dataclasses import asdict
from pathlib import Path

from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.training import many_runs, memoize
from posttrain.studies.packing.full import (
    HumanPackingSettings,
    PackingSettings,
    Scores,
    prepare,
    train_and_score,
    train_and_test,
    tune,
)
from posttrain.studies.packing.outcome import chosen_rates, summarise


def measure(source: str, settings: PackingSettings, cache_dir: Path | None) -> Measured:
    """Train and test in every layout: tables of :func:`.outcome.summarise`, and ``tuning``."""
    checkpoint = checkpoint_for(source)
    prepared = prepare(source, checkpoint, settings)
    scores: Scores = memoize(
        train_and_score, cache_dir, settings=asdict(settings), data=prepared.account,
        ignore=["checkpoint", "prepared", "settings"],
    )  # fmt: skip
    with many_runs():
        tuning = tune(checkpoint, prepared, settings, scores)
        outcome = train_and_test(checkpoint, prepared, chosen_rates(tuning), settings, scores)
    tables = summarise(outcome, resamples=settings.resamples)
    return Measured(prepared.account, {"tuning": tuning} | tables)


STUDY = Study(
    "packing",
    "what one row for all responses changes",
    measure,
    simulated=PackingSettings,
    human=HumanPackingSettings,
    memoizes=True,
)

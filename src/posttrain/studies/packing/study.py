"""The packing study: train and test reward models with every row layout.

Groups of the simulator can be drawn anew (``data_seed``), for claims that were written after its
first record had been seen; such a record has a name of its own, ``simulator-anew``. Expected of it:
isolated responses with counted positions lose less than a point against separate rows, as in the
first draw; causal rows lose about a point.
"""

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


def _variant(settings: PackingSettings) -> str:
    """``-anew`` for groups of the simulator that another seed draws."""
    anew = type(settings) is PackingSettings and settings.data_seed != PackingSettings.data_seed
    return "-anew" if anew else ""


STUDY = Study(
    "packing",
    "what one row for all responses changes",
    measure,
    simulated=PackingSettings,
    human=HumanPackingSettings,
    variant=_variant,
    variants=("-anew",),
    memoizes=True,
)

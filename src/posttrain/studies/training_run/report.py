"""Training runs for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.training_run.study import METRICS
from posttrain.studies.training_run.theory import expectations

LLAMA = "Llama-3.1-8B"


def _accuracy(record: Record, scorer: str) -> str:
    interval = estimate(record.tables["accuracy"], scorer=scorer, metric=Metric.ACCURACY)
    return with_interval(interval, sign=False)


def accuracy_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) of every scorer, over all and by strength, and log-likelihood in nats."""
    return _formatted(record.tables["accuracy"], sign=False)


def difference_table(record: Record) -> pd.DataFrame:
    """The trained model minus each baseline: points of accuracy, and nats."""
    return _formatted(record.tables["differences"], sign=True)


def _formatted(table: pd.DataFrame, *, sign: bool) -> pd.DataFrame:
    def cell(row: pd.Series) -> str:
        values = row["estimate"], row["low"], row["high"]
        if row["metric"] == Metric.LOG_LIKELIHOOD:
            return with_interval(values, scale=1, digits=3)
        return with_interval(values, sign=sign)

    shown = table.dropna(subset=["estimate"]).assign(
        cell=lambda rows: rows.apply(cell, axis=1),
        metric=lambda rows: rows["metric"].str.replace("accuracy ", "strength "),
    )
    wide = shown.pivot_table(aggfunc="first", index="scorer", columns="metric", values="cell")
    columns = [name.replace("accuracy ", "strength ") for name in METRICS]
    return wide.loc[
        list(dict.fromkeys(table["scorer"])), [name for name in columns if name in wide]
    ].fillna("–")


def groups_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) by held-out group, for data with few and large ones."""
    table = record.tables["groups"].set_index("group")
    return table.assign(**(table.drop(columns="pairs") * 100).round(1))


def expectations_table(**settings: int) -> pd.DataFrame:
    """:func:`.training_run.theory.expectations` with rounded numbers."""
    table = expectations(**settings)
    gpus = table["GPUs"].astype("string").fillna("–")
    memory = ["weights and optimiser", "activations"]
    shown = table.assign(**{f"{name}, GB": table[name].round(1) for name in memory}, GPUs=gpus)
    hours = table["GPU hours"].map(lambda value: f"{value:.2f}" if value < 1 else f"{value:.0f}")
    columns = ["model", "trained", *(f"{name}, GB" for name in memory), "GPUs", "GPU hours"]
    return shown.assign(**{"GPU hours": hours})[columns].set_index(["model", "trained"])


def memory_table(record: Record) -> pd.DataFrame:
    """Memory of its own that preparing data took at most (MB, 10⁶ bytes), and seconds in all.

    The record is one that ``benchmarks/memory.py`` has written.
    """
    table = record.tables["megabytes"]
    return table.assign(groups=table["groups"].map("{:,}".format)).set_index("groups").round(0)

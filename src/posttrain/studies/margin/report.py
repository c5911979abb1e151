"""The margin study for readers: tables of formatted numbers.

Everything is read from run records, so that what a page says changes when the results do.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence import claims
from posttrain.evidence.claims import Interval
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import ordered, title, with_interval
from posttrain.studies.common.keys import ESTIMATE, Tuning
from posttrain.studies.common.tables import labelled
from posttrain.studies.margin.claims import estimate, largest_size
from posttrain.studies.margin.keys import Control, Loss
from posttrain.studies.margin.outcome import LOSSES, TUNINGS


def _gain(record: Record, loss: str, tuning: str, size: int, metric: str = Metric.ACCURACY) -> str:
    interval = estimate(record.tables["gains"], tuning=tuning, loss=loss, size=size, metric=metric)
    if metric.startswith(Metric.ACCURACY):
        return with_interval(interval)
    return with_interval(interval, scale=1, digits=3)


def _accuracy(
    record: Record, loss: str, size: int, metric: str = Metric.ACCURACY, tuning: str = Tuning.TUNED
) -> str:
    table = record.tables["metrics"]
    interval = estimate(table, tuning=tuning, loss=loss, metric=metric, size=size)
    return with_interval(interval, sign=False)


def gain_table(record: Record, metric: str = Metric.ACCURACY) -> pd.DataFrame:
    """Gains over the arm without margin: one row a loss and tuning, one column a size."""
    return _by_size(
        record, LOSSES[1:], lambda loss, tuning, size: _gain(record, loss, tuning, size, metric)
    )


def accuracy_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) on all pairs, trained on all: one row a loss and tuning, one column a size."""
    return _by_size(
        record, LOSSES, lambda loss, tuning, size: _accuracy(record, loss, size, tuning=tuning)
    )


def _by_size(
    record: Record, losses: Sequence[str], cell: Callable[[str, str, int], str]
) -> pd.DataFrame:
    sizes = record.settings["sizes"]
    rows = {
        (loss, tuning): [cell(loss, tuning, size) for size in sizes]
        for loss in losses
        for tuning in TUNINGS
    }
    return labelled(rows, ["loss", "hyperparameter"], [f"{size:,} pairs" for size in sizes])


def chosen_table(records: Sequence[Record]) -> pd.DataFrame:
    """Tuned hyperparameters (geometric mean over seeds and folds), by source, size and loss."""
    parts = []
    for record in ordered(records):
        chosen = record.tables["chosen"]
        chosen = chosen[~chosen["filtered"].astype(bool)]
        name = next(column for column in ("penalty", "learning rate") if column in chosen)
        wide = chosen.pivot_table(index="size", columns="loss", values=name)[list(LOSSES)]
        wide.index = pd.MultiIndex.from_tuples(
            [(record.label, name, f"{size:,}") for size in wide.index],
            names=["source", "hyperparameter", "pairs"],
        )
        parts.append(wide.map(lambda value: f"{value:.2g}"))
    return pd.concat(parts)


def strength_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) by strength at the largest size, tuned, with the baselines."""
    size = largest_size(record)
    names = {
        Metric.ACCURACY: "all",
        Metric.ACCURACY_1: "negligibly",
        Metric.ACCURACY_2: "slightly",
        Metric.ACCURACY_3: "better",
        Metric.ACCURACY_4: "significantly",
    }
    rows = {
        f"margin {loss}" if loss != Loss.SCALED else "scaled loss": [
            _accuracy(record, loss, size, metric) for metric in names
        ]
        for loss in LOSSES
    }
    for name, part in record.tables["baselines"].groupby("baseline"):
        cells = part.set_index("metric").loc[list(names), list(ESTIMATE)]
        rows[str(name)] = [
            with_interval(cell, sign=False) for cell in cells.itertuples(index=False)
        ]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*names.values()])
    return table.rename_axis("")


def score_table(record: Record) -> pd.DataFrame:
    """What each loss does to scores at the largest size, tuned: metrics that are no accuracies."""
    size = largest_size(record)
    known = set(record.tables["metrics"]["metric"])
    columns = [
        metric
        for metric in (
            Metric.LOG_LIKELIHOOD,
            Metric.CALIBRATION_ERROR,
            Metric.SPREAD,
            Metric.BIMODALITY,
            Metric.SPLIT,
            Metric.TIES,
        )
        if metric in known
    ]
    rows = [
        [
            with_interval(
                estimate(record.tables["metrics"], loss=loss, metric=metric, size=size),
                scale=1, digits=3, sign=False,
            )
            for metric in columns
        ]
        for loss in LOSSES
    ]  # fmt: skip
    return pd.DataFrame(
        rows, columns=[str(name) for name in columns], index=pd.Index(LOSSES, name="loss")
    )


def filter_table(records: Sequence[Record]) -> pd.DataFrame:
    """What Llama 3's filter changes in accuracy (points), without margin, tuned, by size."""
    rows = []
    for record in ordered(records):
        for size in record.settings["sizes"]:
            cells = [
                with_interval(
                    estimate(
                        record.tables["filter"],
                        filtered=True, loss=Loss.NONE, metric=metric, size=size,
                    )
                )
                for metric in (Metric.ACCURACY, Metric.ACCURACY_1, Metric.ACCURACY_4)
            ]  # fmt: skip
            rows.append([title(record), f"{size:,}", *cells])
    columns = ["source", "annotated pairs", "all test pairs", "negligibly", "significantly"]
    return pd.DataFrame(rows, columns=columns).set_index(["source", "annotated pairs"])


def control_table(records: Sequence[Record]) -> pd.DataFrame:
    """Losses minus their controls (points of accuracy), at the most data, by source and tuning."""
    rows = {}
    for record in ordered(records):
        if "controls" not in record.tables:
            continue
        for tuning in TUNINGS:
            where = {"tuning": tuning, "metric": Metric.ACCURACY, "size": largest_size(record)}
            rows[title(record), str(tuning)] = {
                str(name): with_interval(
                    claims.estimate(record.tables["controls"], control=name, **where)
                )
                for name in Control
            }
    return labelled(rows, ["source", "settings"])


def closed_share(record: Record, size: int, tuning: str = Tuning.TUNED) -> Interval:
    """How much of the way from chance to the reachable accuracy is closed without margin.

    Of a record of simulated data: nobody knows what is reachable on human data.
    """
    ceiling, _, _ = claims.estimate(
        record.tables["baselines"], baseline="reachable", metric=Metric.ACCURACY
    )
    value, low, high = estimate(
        record.tables["metrics"], tuning=tuning, loss=Loss.NONE, metric=Metric.ACCURACY, size=size
    )
    way = ceiling - 0.5
    return (value - 0.5) / way, (low - 0.5) / way, (high - 0.5) / way

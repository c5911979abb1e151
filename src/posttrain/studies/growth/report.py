"""The growth study for readers: tables of formatted numbers."""

from collections.abc import Sequence

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.packing.keys import OrderMetric, RowName


def growth_table(record: Record) -> pd.DataFrame:
    """What each layout changes against separate rows, by number of training groups (points).

    Beside it, accuracy in separate rows (%), and what the truth would add to it, where known.
    """
    tables = record.tables
    arms = list(dict.fromkeys(tables["gaps"]["trained"]))
    rows = {}
    for size in dict.fromkeys(tables["levels"]["size"]):
        where = {"size": size, "metric": OrderMetric.ACCURACY}
        cells = [
            with_interval(estimate(tables["levels"], trained=RowName.SEPARATE, **where), sign=False)
        ]
        cells += [with_interval(estimate(tables["gaps"], trained=arm, **where)) for arm in arms]
        if not tables["excess"].empty:
            lacks = estimate(tables["excess"], trained=RowName.SEPARATE, **where)
            cells.append(with_interval(lacks, sign=False))
        rows[f"{size:,}"] = cells
    columns = ["separate rows (%)", *(f"{arm} (points)" for arm in arms)]
    if not tables["excess"].empty:
        columns.append("the truth has more (points)")
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(
        "training groups"
    )


def exponent_table(records: Sequence[Record]) -> pd.DataFrame:
    """Powers of the number of training groups with which what models lack to the truth falls."""
    rows = {}
    for record in records:
        powers = record.tables["exponents"]
        for arm in dict.fromkeys(powers["trained"]):
            rows[arm] = {
                name: with_interval(
                    estimate(powers, trained=arm, metric=metric), scale=1, digits=2
                )
                for metric, name in (
                    (OrderMetric.ACCURACY, "errors"), (OrderMetric.LOG_LIKELIHOOD, "nats")
                )
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rows")


def tuning_table(record: Record) -> pd.DataFrame:
    """Validation accuracy (%) at each learning rate, by size and layout, the best starred."""
    tuning = record.tables["tuning"]
    rows = {}
    for (size, arm), part in tuning.groupby(["size", "trained"], sort=True):
        best = part["accuracy"].max()
        rows[f"{size:,}", arm] = {
            f"{rate:g}": f"{100 * accuracy:.1f}" + "*" * bool(accuracy == best)
            for rate, accuracy in zip(part["learning rate"], part["accuracy"], strict=True)
        }
    return labelled(rows, ["training groups", "rows"])

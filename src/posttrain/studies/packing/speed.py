"""Speed for readers, from records of ``benchmarks/throughput.py``: tables of formatted numbers."""

import pandas as pd

from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT
from posttrain.studies.packing.keys import Speed


def workload_table(record: Record) -> pd.DataFrame:
    """What was trained on: one row a workload."""
    table = record.tables["workloads"].set_index("workload")
    shown = table[["prompts", "pairs", "layers", "rounds"]].copy()
    for name in ("prompt tokens", "response tokens"):
        shown[name] = table[name].map("{:.0f}".format)
    of_all = table["pairs"] / table["pairs of the whole set"] * PERCENT
    is_set = table["kind"] == "data set"
    shown["of the whole set"] = of_all.map("{:.1f} %".format).where(is_set, "–")
    return shown


def speed_table(record: Record, *workloads: str) -> pd.DataFrame:
    """Speed of every method: medians, with the range over rounds for ratios.

    Args:
        record: A record of the benchmark.
        workloads: Those to show; default all.
    """
    table = record.tables["speed"]
    if workloads:
        table = table[table["workload"].isin(workloads)]
    rows = []
    for (workload, method), part in table.groupby(["workload", "method"], sort=False):
        found = part.set_index("metric")
        value = found["estimate"]
        columns = {
            "pairs/s": (Speed.PAIRS, "{:.2f}"),
            "times TRL": (Speed.OVER_TRL, None),
            "times separate": (Speed.OVER_SEPARATE, None),
            "tokens": (Speed.TOKENS, "{:,.0f}"),
            "TRL's tokens over these": (Speed.FEWER_TOKENS, "{:.2f}"),
            "the same, whole set": (Speed.FEWER_TOKENS_WHOLE, "{:.2f}"),
            "padding": (Speed.PADDING, "{:.1%}"),
            "of matmul peak": (Speed.PEAK, "{:.0%}"),
            "peak memory": (Speed.MEMORY, "{:.2f} GB"),
            "loss off": (Speed.LOSS, "{:.1g}"),
        }
        row = {"workload": workload, "method": method}
        for title, (metric, form) in columns.items():
            if metric not in value or pd.isna(value[metric]):
                row[title] = "–"
            else:
                row[title] = form.format(value[metric]) if form else _range(found.loc[metric])
        rows.append(row)
    return pd.DataFrame(rows).set_index(["workload", "method"])


def _range(row: pd.Series) -> str:
    """Median and range over rounds, without a place to break the line."""
    if row["low"] == row["high"]:
        return f"{row['estimate']:.2f}"
    return f"{row['estimate']:.2f}\u00a0({row['low']:.2f}–{row['high']:.2f})"

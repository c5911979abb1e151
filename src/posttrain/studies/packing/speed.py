"""Speed for readers, from records of ``benchmarks/throughput.py``: sentences, formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT
from posttrain.studies.packing.keys import Speed, Way

#: Name of the records' study.
STUDY = "throughput"
#: Workloads at Llama 3's lengths, and their words.
AT_LLAMA3 = {"pairs": "pairs", "triples": "triples", "five": "all ten pairs of five responses"}


def in_words(record: Record) -> str:
    """What is saved at Llama 3's lengths and on sets of human preferences, in a few sentences."""
    table, workloads = record.tables["speed"], record.tables["workloads"].set_index("workload")

    def factor(workload: str, method: str, metric: str) -> str:
        where = {"workload": workload, "method": method, "metric": metric}
        return f"{estimate(table, **where)[0]:.2f}"

    given = [name for name in AT_LLAMA3 if name in workloads.index]
    best = {name: Way.MERGED if _has(table, name, Way.MERGED) else Way.DENSE for name in given}
    fixed = "; ".join(
        f"{AT_LLAMA3[name]} {factor(name, best[name], Speed.OVER_SEPARATE)} and "
        f"{factor(name, best[name], Speed.OVER_TRL)} times"
        for name in given
    )
    size = workloads.loc[given[0]]
    words = (
        f"With prompts of {size['prompt tokens']:.0f} tokens and responses of "
        f"{size['response tokens']:.0f}, on a {record.environment['device']} with "
        f"`{record.settings['checkpoint']}`, exact rows train as many times as fast as separate "
        "rows, and as TRL's RewardTrainer, which computes two full rows for each pair: "
        f"{fixed} (medians of {size['rounds']} rounds)."
    )
    sets = [name for name in workloads.index if workloads["kind"][name] == "data set"]
    if sets:
        told = ", ".join(
            f"{factor(name, Way.MERGED, Speed.OVER_TRL)} times on `{name}`" for name in sets
        )
        words += (
            " On human preferences, where the same responses are compared again and again, "
            f"computing each once is faster than TRL by far: {told}."
        )
    return words


def _has(table: pd.DataFrame, workload: str, method: str) -> bool:
    return bool(((table["workload"] == workload) & (table["method"] == method)).any())


def conditions(record: Record) -> str:
    """How speeds were measured, in a few sentences."""
    given = record.settings
    limit = given["max_tokens_per_device"]
    return (
        f"`{given['checkpoint']}` on a {record.environment['device']} in {given['dtype']}; "
        "methods take turns of one optimiser step on the same pairs, with "
        + (f"at most {limit:,} tokens computed at once. " if limit else "the whole step at once. ")
        + "TRL's RewardTrainer computes in the same precision, cuts no pair and recomputes no "
        "activations, contrary to its defaults. Workloads with fewer layers say so."
    )


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

"""Speed for readers, from records of ``benchmarks/throughput.py``: sentences, formatted numbers."""

import pandas as pd

from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, listing
from posttrain.studies.packing.keys import Speed, Way

#: Workloads of which the chapter's answer tells, at Llama 3's lengths; and all data sets.
AT_LLAMA3 = {"pairs": "pairs", "triples": "triples", "five": "all ten pairs of five responses"}


def in_words(record: Record) -> str:
    """How many times as fast as others merged exact rows train, in a sentence."""
    table = record.tables["speed"].set_index(["workload", "metric"])
    # Where each record has a prompt of its own, both are the same.
    merged, apart = (
        table[table["method"] == way]["estimate"] for way in (Way.MERGED, Way.TWO_PIECE)
    )
    merged = merged.combine_first(apart)
    sizes = record.tables["workloads"].set_index("workload")
    names = AT_LLAMA3 | {name: f"`{name}`" for name in sizes.index[sizes["kind"] == "data set"]}
    # A ratio of fewer layers says so.
    names |= {
        name: f"{names[name]}, with {layers} layers only,"
        for name, layers in sizes["layers"].items()
        if name in names and layers < sizes["layers"].max()
    }
    factors = [
        f"{words} {merged[name, Speed.OVER_TRL]:.2f} times as fast"
        + (
            f" ({merged[name, Speed.OVER_SEPARATE]:.2f})"
            if (name, Speed.OVER_SEPARATE) in merged.index
            else ""
        )
        for name, words in names.items()
        if (name, Speed.OVER_TRL) in merged.index
    ]
    if not factors:
        return ""
    return (
        f"On {record.environment['device']} with `{record.settings['checkpoint']}`, exact rows "
        f"that compute each response once train {listing(factors)} as TRL's RewardTrainer, in "
        "brackets as separate rows of the same records. Pairs, triples and five responses have "
        "Llama 3's average lengths."
    )


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

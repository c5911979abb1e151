"""Figures of the best-of-n study."""

from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line
from posttrain.studies.best_of_n.keys import FEW, MANY, Proxy, Value, World

#: Marker and line of each number of pairs, the fewest first.
SIZES = (("v", ":"), ("s", "--"), ("o", "-"))


def gold_and_proxy(record: Record) -> Figure:
    """The proxy's own score and gold of the best of n, against n, by number of pairs.

    Single reward models, labels as annotated, where praise goes with quality. A star marks where
    gold is highest; the shaded band is Llama 3's 10 to 30 samples.
    """
    curves = record.tables["curves"]
    single = curves[
        (curves["world"] == World.PRAISE)
        & (curves["noise"] == 0)
        & (curves["proxy"] == Proxy.SINGLE)
        & (curves["n"] != MANY + 2)  # 32 would hide 30
    ]
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(WIDTH, 2 * HEIGHT), layout="constrained"
    )
    for axis, value in ((above, Value.SCORE), (below, Value.GOLD)):
        by_size = single[single["value"] == value].groupby("size")
        for place, ((size, part), (marker, line)) in enumerate(zip(by_size, SIZES, strict=False)):
            style: dict[str, Any] = {"marker": marker, "ls": line, "ms": 4}
            interval_line(
                axis, part["n"], part, scale=1, colour=f"C{place}", label=f"{size:,}", **style
            )
            if value == Value.GOLD:
                turn = part.loc[part["estimate"].idxmax()]
                axis.plot(
                    turn["n"], turn["estimate"], "*", color=f"C{place}", mec="black", ms=14,
                    zorder=5, label=f"_turn {size}",
                )  # fmt: skip
        axis.axvspan(FEW, MANY, color="#dddddd", zorder=0)
    truth = curves[(curves["proxy"] == Proxy.GOLD) & (curves["value"] == Value.GOLD)]
    truth = truth.drop_duplicates("n")
    below.plot(truth["n"], truth["estimate"], color="#555555", ls="-.", label="_truth")
    last = truth.iloc[-1]
    below.annotate(
        "chosen by the truth", (last["n"], last["estimate"]), (0, -18),
        textcoords="offset points", ha="right", va="top", color="#555555",
    )  # fmt: skip
    below.annotate(
        "★ the truth turns", (0.03, 0.3), xycoords="axes fraction", va="top", color="black"
    )
    above.set_title("what the reward model says (its score)")
    below.set_title("what is true (gold)")
    above.legend(title="trained on pairs", loc="lower right", ncols=len(SIZES), columnspacing=1)
    if truth["n"].max() >= MANY:
        across = below.get_xaxis_transform()
        below.text((FEW * MANY) ** 0.5, 0.04, "Llama 3", ha="center", transform=across)
    _samples(below, truth["n"])
    return figure


def effects(table: pd.DataFrame) -> Figure:
    """Differences in gold with their intervals, one line of the figure each.

    ``table`` has ``row``, which names the line, ``series``, ``estimate``, ``low`` and ``high``.
    """
    rows = list(dict.fromkeys(table["row"]))
    series = list(dict.fromkeys(table["series"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.36 * len(rows)), layout="constrained")
    for number, (name, marker) in enumerate(zip(series, ("o", "s"), strict=False)):
        part = table[table["series"] == name]
        shift = 0.26 * (number - (len(series) - 1) / 2)
        axis.errorbar(
            part["estimate"],
            [rows.index(row) + shift for row in part["row"]],
            xerr=(part["estimate"] - part["low"], part["high"] - part["estimate"]),
            color=f"C{number}", marker=marker, ls="none", ms=5, capsize=2, label=name,
        )  # fmt: skip
    axis.axvline(0, color="#333333", lw=1)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
    axis.set_xlabel("gold gained")
    if len(series) > 1:
        figure.legend(loc="outside lower center", ncols=len(series))
    return figure


def _samples(axis: Axes, sizes: pd.Series) -> None:
    """A logarithmic axis of n, with Llama 3's least and most among its ticks."""
    axis.set_xscale("log", base=2)
    shown = [n for n in (1, 4, FEW, MANY, 128, 1024) if n <= sizes.max()]
    axis.set_xticks(shown, [f"{n:,}" for n in shown])
    axis.set_xlabel("best of n samples")

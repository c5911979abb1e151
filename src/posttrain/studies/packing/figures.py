"""Figures of the chapter on rows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from posttrain.evidence.records import Record
from posttrain.evidence.style import WIDTH
from posttrain.studies.packing.keys import Speed, Way
from posttrain.studies.packing.outcome import own_test
from posttrain.studies.packing.pictures import (
    ITSELF,
    OTHER,
    SEEN_PROMPT,
    Picture,
    pictures,
)

BLUE, ORANGE, GREEN, GREY = "#0173b2", "#de8f05", "#029e73", "#c8c8c8"
#: Points of the smallest letters: as many pixels on a telephone.
SMALL = 9.5
#: What the parts of the row are, in its order.
PARTS = ("prompt", "edited", "chosen", "rejected")
#: What is drawn of a token that is seen, and its name.
SEEN: dict[int, tuple[dict[str, Any], str]] = {
    SEEN_PROMPT: ({"fc": GREY, "ec": "white"}, "sees the prompt"),
    ITSELF: ({"fc": BLUE, "ec": "white"}, "itself"),
    OTHER: ({"fc": ORANGE, "ec": "white", "hatch": "////"}, "another response"),
}
#: Marker and colour of each way of training whose speed is drawn.
WAYS = {
    Way.SEPARATE: ("o", "black", "separate rows"),
    Way.DENSE: ("s", ORANGE, "exact row, dense mask"),
    Way.TWO_PIECE: ("^", BLUE, "exact row, two pieces"),
    Way.MERGED: ("D", GREEN, "exact row a prompt"),
}
#: Workloads at Llama 3's lengths, and their names.
AT_LLAMA3 = {"pairs": "pairs", "triples": "triples", "five": "5 responses"}


def who_sees_whom() -> Figure:
    """Who sees whom in one row, by each reading of Llama 3's sentence: a strip of three panels.

    A line is a token that looks, with its position; a column one that is looked at, in the same
    order, of which only the part of the row is named. Dots are
    where scores are read. Positions other than in a separate row are bold and have a star.
    """
    drawn = pictures()
    figure, axes = plt.subplots(1, len(drawn), figsize=(WIDTH, 2.8), layout="constrained")
    for axis, picture in zip(axes, drawn, strict=True):
        _draw(axis, picture, named=axis is axes[0])
    handles: list[Artist] = [Patch(**look, label=name) for look, name in SEEN.values()]
    handles.append(plt.Line2D([], [], color="white", mec="black", marker="o", ls="", label="score"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL,
        handlelength=1, columnspacing=1, handletextpad=0.4,
    )  # fmt: skip
    return figure


def _draw(axis: Axes, picture: Picture, *, named: bool) -> None:
    count = len(picture.words)
    for look, seen in np.argwhere(picture.seen > 0):
        style, _ = SEEN[picture.seen[look, seen]]
        axis.add_patch(Rectangle((seen - 0.5, look - 0.5), 1, 1, lw=0.5, **style))
    axis.plot(picture.scored, picture.scored, "o", color="white", mec="black", ms=5)
    for edge in picture.boundaries:
        axis.axhline(edge - 0.5, color="black", lw=0.8)
        axis.axvline(edge - 0.5, color="black", lw=0.8)
    starts = [0, *picture.boundaries]
    middles = [(start + end - 1) / 2 for start, end in pairwise([*starts, count])]
    axis.set_xticks(middles, PARTS, rotation=90, fontsize=SMALL)
    places = [
        f"{place}{'*' if moved else ''}"
        for place, moved in zip(picture.positions, picture.moved, strict=True)
    ]
    if named:
        places = [f"{word}  {place}" for word, place in zip(picture.words, places, strict=True)]
    axis.set_yticks(range(count), places, fontsize=SMALL)
    for label, moved in zip(axis.get_yticklabels(), picture.moved, strict=True):
        label.set_fontweight("bold" if moved else "normal")
    axis.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
    axis.tick_params(length=0, pad=2)
    axis.grid(False)
    name = picture.name.replace(" ", r"\ ")
    apart = "isolated" if picture.layout.attention == "isolated" else "not isolated"
    equal = "=" if picture.layout.is_exact else "≠"
    axis.set_title(
        rf"$\mathbf{{{name}}}$" + f"\n{apart}, {picture.layout.positions}\n{equal} separate rows",
        fontsize=SMALL,
    )


def order_effect(table: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Accuracy with the chosen response first and last in the row, by trained layout.

    From a ``matrix`` table of the packing study; each arm is tested in its own layout.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.38 * len(arms) + 1.1), layout="constrained")
    for place, arm in enumerate(arms):
        rows = table[(table["trained"] == arm) & (table["tested"] == own_test(arm))]
        found = rows.set_index("metric")
        ends = {order: found.loc[f"accuracy, chosen {order}"] * 100 for order in ("first", "last")}
        axis.plot([end["estimate"] for end in ends.values()], [place] * 2, color=GREY, lw=3)
        for (order, end), colour, marker in zip(ends.items(), (BLUE, ORANGE), "><", strict=True):
            spread = [[end["estimate"] - end["low"]], [end["high"] - end["estimate"]]]
            axis.errorbar(
                end["estimate"], place, xerr=spread, color=colour, marker=marker, ms=8, ls="",
                capsize=2, label=f"chosen {order}" if place == 0 else None,
            )  # fmt: skip
    axis.axvline(50, color="black", lw=0.8, ls=":")
    axis.set(xlim=(-6, 106), xlabel="accuracy (%)", ylim=(len(arms) - 0.5, -0.5))
    axis.set_yticks(range(len(arms)), arms)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def speeds(records: Sequence[Record]) -> Figure:
    """How many times as fast as TRL's trainer each way trains; a bar is how many fewer tokens.

    From records of ``benchmarks/throughput.py``: workloads at Llama 3's lengths, and data sets.
    """
    found = []
    for record in records:
        sizes = record.tables["workloads"].set_index("workload")
        table = record.tables["speed"].set_index(["workload", "metric", "method"])["estimate"]
        device = "GPU" if record.profile == "gpu" else "CPU"
        shown = [*AT_LLAMA3, *sizes.index[sizes["kind"] == "data set"]]
        found += [
            (f"{AT_LLAMA3.get(name, name)}, {device}", sizes.loc[name, "kind"], table.loc[name])
            for name in shown
            if name in sizes.index
        ]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.34 * len(found) + 1.6), layout="constrained")
    for place, (_, kind, speed) in enumerate(found):
        fewer = speed[Speed.FEWER_TOKENS].max()
        axis.barh(place, fewer - 1, left=1, color="#dddddd", height=0.7, zorder=0)
        # Where each record has a prompt of its own, merging makes the same rows.
        same = kind != "data set" and Way.TWO_PIECE in speed[Speed.OVER_TRL]
        for way, (marker, colour, label) in WAYS.items():
            if way in speed[Speed.OVER_TRL] and not (same and way == Way.MERGED):
                axis.plot(
                    speed[Speed.OVER_TRL, way], place, marker, color=colour, ms=7, label=label,
                    mec="white",
                )  # fmt: skip
    axis.axvline(1, color="black", lw=0.8)
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axis.minorticks_off()
    axis.set_yticks(range(len(found)), [name for name, *_ in found])
    axis.set(ylim=(len(found) - 0.5, -0.5), xlabel="times as fast as TRL (bar: times fewer tokens)")
    handles = {handle.get_label(): handle for handle in axis.get_lines()}
    figure.legend(
        handles=[handles[label] for *_, label in WAYS.values() if label in handles],
        loc="outside upper center", ncols=2, frameon=False,
    )  # fmt: skip
    return figure

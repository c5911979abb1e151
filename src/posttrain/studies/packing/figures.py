"""Figures of the packing study; several tables come by the titles of their sources."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from posttrain.evidence.style import WIDTH, interval_line, panels
from posttrain.studies.packing.keys import OrderMetric, RowName, Speed, Way
from posttrain.studies.packing.outcome import ARMS, TESTS, own_test
from posttrain.studies.packing.pictures import Picture

#: What a cell of a mask picture says, and its colour.
SEEN = {
    "hidden": "#ffffff",
    "prompt": "#9ecae1",
    "itself": "#08519c",
    "another response": "#d55e00",
}
#: Colour of each layout that moves a response, and of each number of responses.
COLOUR = {RowName.ATTENTION: "#0072b2", RowName.POSITIONS: "#009e73", RowName.CAUSAL: "#d55e00"}
RESPONSES_COLOUR = {2: "#0072b2", 3: "#d55e00"}


def masks(pictures: Sequence[Picture]) -> Figure:
    """Who sees whom: one panel a layout, one line a token, with the token's position."""
    figure, grid = plt.subplots(
        2, 2, figsize=(WIDTH, WIDTH * 1.04), squeeze=False, layout="constrained"
    )
    colours = ListedColormap(list(SEEN.values()))
    for axis, picture in zip(grid.flat, pictures, strict=True):
        count = len(picture.labels)
        axis.imshow(picture.seen, cmap=colours, vmin=-0.5, vmax=len(SEEN) - 0.5)
        axis.set_xticks(np.arange(count), picture.labels, rotation=90, fontsize=6.5)
        named = zip(picture.labels, picture.positions, strict=True)
        axis.set_yticks(
            np.arange(count), [f"{label}  {place}" for label, place in named], fontsize=6.5
        )
        axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axis.grid(False)
        axis.grid(which="minor", color="#dddddd", lw=0.5)
        axis.tick_params(which="both", length=0)
        for edge in picture.boundaries:
            axis.axhline(edge - 0.5, color="black", lw=1)
            axis.axvline(edge - 0.5, color="black", lw=1)
        for scored in picture.scored:
            axis.get_yticklabels()[scored].set_fontweight("bold")
        axis.set_title(picture.title)
    grid[0][0].set_ylabel("token, with its position")
    grid[1][0].set_ylabel("token, with its position")
    handles = [Patch(fc=colour, ec="#bbbbbb", label=name) for name, colour in SEEN.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(SEEN), frameon=False)
    return figure


def distance_by_slot(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How far each choice moves a response's state before training, by slot.

    From ``distances`` tables of the rows study.
    """
    figure, axes = panels(list(tables), sharey=True)
    for axis, table in zip(axes, tables.values(), strict=True):
        part = table[table["by"] == "slot"]
        for offset, (layout, colour) in enumerate(COLOUR.items()):
            line = part[part["layout"] == layout]
            slots = line["value"].astype(int) + 0.06 * (offset - 1)
            interval_line(axis, slots, line, colour=colour, scale=1, marker="o", label=layout)
        axis.set_xticks(sorted(part["value"].astype(int).unique()))
    # One label and a legend outside, because many panels leave no room for either.
    figure.supxlabel("slot of the response in the row", fontsize="medium")
    axes[0].set_ylabel("distance from a separate row\n(1: as far as two responses)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def accuracy_matrix(table: pd.DataFrame) -> Figure:
    """Accuracy (%) by trained and tested layout, from a ``matrix`` table."""
    part = table[table["metric"] == OrderMetric.ACCURACY]
    shown = part.pivot_table(index="trained", columns="tested", values="estimate")
    trained = [arm for arm in ARMS if arm in shown.index]
    tested = [test for test in TESTS if test in shown.columns]
    shown = shown.loc[trained, tested] * 100
    figure, axis = plt.subplots(
        figsize=(WIDTH * 0.8, 0.42 * len(shown) + 1.3), layout="constrained"
    )
    sns.heatmap(shown, annot=True, fmt=".1f", cmap="viridis", ax=axis, cbar=False, linewidths=1)
    for row, arm in enumerate(trained):
        column = tested.index(own_test(arm))
        axis.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, ec="black", lw=2.5))
    axis.set_xlabel("tested")
    axis.set_ylabel("trained")
    axis.tick_params(axis="y", labelrotation=0)
    axis.set_xticklabels([test.replace(" ", "\n") for test in tested])
    return figure


def order_effect(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy in own rows with the chosen response first and last, by trained layout.

    From ``matrix`` tables.
    """
    arms = [arm for arm in ARMS if any((t["trained"] == arm).any() for t in tables.values())]
    figure, axes = plt.subplots(
        1, len(tables), figsize=(WIDTH, 0.4 * len(arms) + 1.2), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        for place, arm in enumerate(arms):
            own = table[(table["trained"] == arm) & (table["tested"] == own_test(arm))]
            if own.empty:
                continue
            rows = own.set_index("metric")
            ends = [rows.loc[f"accuracy, chosen {order}"] for order in ("last", "first")]
            axis.plot([end["estimate"] * 100 for end in ends], [place] * 2, color="#bbbbbb", lw=3)
            for end, colour, marker in zip(ends, ("#d55e00", "#0072b2"), "<>", strict=True):
                value = end["estimate"] * 100
                spread = [[value - end["low"] * 100], [end["high"] * 100 - value]]
                axis.errorbar(value, place, xerr=spread, color=colour, marker=marker, capsize=2)
        axis.axvline(50, color="black", lw=0.8, ls=":")
        axis.set_xlim(-3, 103)
        axis.set_title(title.replace(" (", "\n("))
        axis.set_xlabel("accuracy (%)")
    axes[0][0].set_yticks(range(len(arms)), arms)
    axes[0][0].invert_yaxis()
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, label=f"chosen {order}")
        for order, colour, marker in (("first", "#0072b2", ">"), ("last", "#d55e00", "<"))
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def savings(
    closed_form: pd.DataFrame, measured: Mapping[str, Mapping[str, pd.DataFrame]]
) -> Figure:
    """Speed of a single row over separate rows and over pair rows: token counts and measurements.

    From :func:`.packing.theory.saving_table` on a fine grid, and the tables of records of
    ``benchmarks/throughput.py``: pairs and triples of random tokens, attention in two pieces.
    """
    figure, axes = panels(["over our separate rows", "over TRL's pair rows"])
    columns = (
        ("separate rows", Speed.OVER_SEPARATE),
        ("pair rows", Speed.OVER_TRL),
    )
    for axis, (column, metric) in zip(axes, columns, strict=True):
        for (count, colour), kind in zip(
            RESPONSES_COLOUR.items(), ("pairs", "triples"), strict=True
        ):
            line = closed_form[closed_form["K"] == count]
            axis.plot(line["P/R"], line[column], color=colour, label=f"{count} responses")
            for marker, tables in zip("os^D", measured.values(), strict=False):
                table = tables["speed"]
                part = table[
                    table["workload"].str.split("@").str[0].eq(kind)
                    & (table["method"] == Way.TWO_PIECE)
                    & (table["metric"] == metric)
                ]
                lengths = tables["workloads"].set_index("workload").loc[part["workload"]]
                ratios = (lengths["prompt tokens"] / lengths["response tokens"]).to_numpy()
                shown = ratios <= closed_form["P/R"].max()
                interval_line(
                    axis, ratios[shown], part[shown], colour=colour, scale=1, marker=marker, ls=""
                )
        axis.set_xlabel("prompt length / response length")
    axes[0].set_ylabel("times faster")
    axes[0].legend(frameon=False)
    return figure

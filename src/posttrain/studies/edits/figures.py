"""Figures of the study of edits; several tables come by the titles of their sources."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from posttrain.data.preferences import PairKind
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line, panels
from posttrain.studies.common.keys import Tuning
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.outcome import ARMS

#: Colour and marker of the arms that are drawn as lines, the same in every figure.
ARM_STYLE = {
    ArmName.IGNORE: ("#4d4d4d", "o"),
    ArmName.ALL: ("#0072b2", "s"),
    ArmName.PLACKETT_LUCE: ("#56b4e9", "v"),
    ArmName.ONE_MORE: ("#e69f00", "^"),
    ArmName.TWO_MORE: ("#d55e00", "D"),
}


def _part(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric with tuned hyperparameters and the largest share of edits."""
    return table[
        (table["metric"] == metric)
        & (table["tuning"] == Tuning.TUNED)
        & (table["share"] == table["share"].max())
    ]


def edit_gains(tables: Mapping[str, pd.DataFrame], *, metric: str = PairKind.RATED) -> Figure:
    """Gain of every arm over ignoring edits, most data, tuned; arms without edits in orange.

    From ``gains`` tables.
    """
    arms = [arm for arm in ARMS if any((t["arm"] == arm).any() for t in tables.values())]
    across = min(len(tables), 3)
    down = math.ceil(len(tables) / across)
    figure, axes = plt.subplots(
        down, across, figsize=(WIDTH, down * (0.3 * len(arms) + 1.3)), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[len(tables) :]:
        axis.set_visible(False)
    for axis, (title, table) in zip(axes.flat, tables.items(), strict=False):
        part = _part(table, metric)
        part = part[part["size"] == part["size"].max()].set_index("arm")
        for place, arm in enumerate(arms):
            if arm not in part.index:
                continue
            value, low, high = (part.loc[arm, name] * 100 for name in ("estimate", "low", "high"))
            axis.errorbar(
                value, place, xerr=[[value - low], [high - value]], capsize=2,
                marker="o" if ARMS[arm].uses_edits else "D",
                color="#0072b2" if ARMS[arm].uses_edits else "#d55e00",
            )  # fmt: skip
        axis.axvline(0, color="#4d4d4d", lw=1)
        axis.set_title(title.replace(" (", "\n("))
        axis.set_xlabel("gain (points)")
    # All panels share it, so it is turned over once.
    axes[0][0].set_yticks(range(len(arms)), arms)
    axes[0][0].invert_yaxis()
    return figure


def edit_gains_by_size(
    tables: Mapping[str, pd.DataFrame], *, metric: str = PairKind.RATED
) -> Figure:
    """Gain of all pairs and of as many ordinary comparisons, by data size, tuned.

    From ``gains`` tables.
    """
    figure, axes = panels(list(tables))
    arms = [arm for arm in ARM_STYLE if arm != ArmName.IGNORE]
    for axis, table in zip(axes, tables.values(), strict=True):
        part = _part(table, metric)
        for offset, arm in enumerate(arms):
            colour, marker = ARM_STYLE[arm]
            line = part[part["arm"] == arm].sort_values("size")
            # Side by side, so that intervals do not hide each other.
            places = line["size"] * 1.05 ** (offset - 1.5)
            interval_line(axis, places, line, colour=colour, marker=marker, label=arm, lw=1.4)
        axis.axhline(0, color=ARM_STYLE[ArmName.IGNORE][0], lw=1)
        axis.set_xscale("log")
        sizes = sorted(part["size"].unique())
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("training groups")
    axes[0].set_ylabel(f"gain on {PairKind.RATED} (points)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(arms), frameon=False)
    return figure


def accuracy_by_cost(metrics: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """Accuracy on chosen > rejected by what annotators decided and by what was computed.

    From the ``metrics`` and ``costs`` tables of a record.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, HEIGHT), sharey=True, layout="constrained")
    part = _part(metrics, PairKind.RATED).merge(costs, on=["arm", "size", "share"])
    for axis, (column, label) in zip(
        axes,
        (("decisions", "annotators' decisions"), ("tokens", "tokens of one pass, exact rows")),
        strict=True,
    ):
        for arm, (colour, marker) in ARM_STYLE.items():
            line = part[part["arm"] == arm].sort_values(column)
            interval_line(axis, line[column], line, colour=colour, marker=marker, label=arm, lw=1.4)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_xticks([], minor=True)
        axis.set_xlabel(label)
    axes[0].set_ylabel(f"accuracy on {PairKind.RATED} (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure

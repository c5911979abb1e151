"""Figures of the growth study."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from posttrain.evidence.style import interval_line, panels
from posttrain.studies.packing.keys import OrderMetric, RowName

#: Colour and marker of each layout.
GROWTH = {
    RowName.SEPARATE: ("#000000", "o"),
    RowName.POSITIONS: ("#0072b2", "s"),
    RowName.CAUSAL: ("#d55e00", "^"),
}
#: Ticks of what is lacking.
NATS = (0.05, 0.1, 0.2)


def gaps(table: pd.DataFrame) -> Figure:
    """What a row that is not exact changes, by number of training groups.

    From a ``gaps`` table of the growth study: accuracy minus that in separate rows, in points.
    """
    figure, axis = plt.subplots(layout="constrained")
    for arm, shift in ((RowName.POSITIONS, 0.94), (RowName.CAUSAL, 1.06)):
        part = table[(table["trained"] == arm) & (table["metric"] == OrderMetric.ACCURACY)]
        colour, marker = GROWTH[arm]
        interval_line(axis, part["size"] * shift, part, colour=colour, marker=marker, label=arm)
    axis.axhline(0, color="black", lw=1)
    axis.set_xscale("log")
    sizes = sorted(set(table["size"]))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.set(xlabel="training groups", ylabel="accuracy against\nseparate rows (points)")
    axis.legend(loc="lower right")
    return figure


def growth(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Gaps of accuracy to separate rows, and what each layout lacks to the truth in nats, by data.

    From tables of the growth study; the second panel is there where the truth is known.
    """
    titles = ["accuracy minus that in separate rows"]
    if known := not tables["excess"].empty:
        titles.append("log-likelihood that the truth has more")
    figure, axes = panels(titles)
    for arm, (colour, marker) in GROWTH.items():
        style: dict[str, Any] = {"colour": colour, "marker": marker, "label": str(arm)}
        gaps = tables["gaps"]
        part = gaps[(gaps["trained"] == arm) & (gaps["metric"] == OrderMetric.ACCURACY)]
        if not part.empty:
            interval_line(axes[0], part["size"], part, **style)
        if known:
            lacks = tables["excess"]
            part = lacks[
                (lacks["trained"] == arm) & (lacks["metric"] == OrderMetric.LOG_LIKELIHOOD)
            ]
            interval_line(axes[1], part["size"], part, scale=1, **style)
    axes[0].axhline(0, color="black", lw=0.8, ls=":")
    axes[0].set_ylabel("points")
    sizes = sorted(set(tables["levels"]["size"]))
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel("training groups")
    if known:
        axes[1].set_yscale("log")
        axes[1].set_yticks(NATS, [f"{value:g}" for value in NATS])
        axes[1].yaxis.minorticks_off()
        axes[1].set_ylabel("nats")
    axes[-1].legend(loc="best")
    return figure

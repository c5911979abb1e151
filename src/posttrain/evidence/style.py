"""The style that all figures share."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Inches of every figure, and the height of a row of panels: on a telephone, which shows the width
#: on 360 pixels, letters of ten points are ten pixels high.
WIDTH, HEIGHT = 5.2, 2.7


def use_style() -> None:
    """Set the style of all figures and leave tables and their cells uncut.

    The white grid of seaborn, its colours for the colour-blind, and letters of ten points.
    """
    sns.set_theme(style="whitegrid", palette="colorblind", context="notebook", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.dpi": 170,
            "savefig.bbox": "tight",
            "axes.titlesize": "medium",
        }
    )
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_rows", None)


def panels(titles: Sequence[str], *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """Panels, two in a row; what a title has in brackets gets a line of its own."""
    columns = min(2, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH, HEIGHT * rows),
        squeeze=False,
        sharey=sharey,
        layout="constrained",
    )
    axes = list(grid.flat)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title.replace(" (", "\n("))
    for axis in axes[len(titles) :]:
        figure.delaxes(axis)
    return figure, axes[: len(titles)]


def interval_line(
    axis: Axes, x: Any, table: pd.DataFrame, *, colour: str, scale: float = 100, **style: Any
) -> None:
    """Draw a table's ``estimate``, one at each x, with intervals from ``low`` to ``high``.

    A ``scale`` of 100 makes percentage points of shares; ``style`` is passed on to ``errorbar``.
    """
    value, low, high = (table[name].to_numpy() * scale for name in ("estimate", "low", "high"))
    axis.errorbar(x, value, (value - low, high - value), color=colour, capsize=2, **style)

"""The style that all figures share."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT = 8.0, 3.4


def use_style() -> None:
    """Set the style of all figures (seaborn's white grid, 8 inches wide) and uncut table cells."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85)
    plt.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "axes.titlesize": "medium"})
    pd.set_option("display.max_colwidth", None)


def panels(titles: Sequence[str], *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A row of panels; where there are many, what a title has in brackets gets its own line."""
    figure, axes = plt.subplots(
        1, len(titles), figsize=(WIDTH, HEIGHT), squeeze=False, sharey=sharey, layout="constrained"
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title.replace(" (", "\n(") if len(titles) > 3 else title)
    return figure, list(axes[0])


def interval_line(
    axis: Axes, x: Any, table: pd.DataFrame, *, colour: str, scale: float = 100, **style: Any
) -> None:
    """Draw a table's ``estimate``, one at each x, with intervals from ``low`` to ``high``.

    A ``scale`` of 100 makes percentage points of shares; ``style`` is passed on to ``errorbar``.
    """
    value, low, high = (table[name].to_numpy() * scale for name in ("estimate", "low", "high"))
    axis.errorbar(x, value, (value - low, high - value), color=colour, capsize=2, **style)

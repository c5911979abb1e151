"""Figures of the margin study; several tables come by the titles of their sources."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line, panels
from posttrain.studies.common.keys import Tuning
from posttrain.studies.margin.keys import Loss
from posttrain.training.losses import MARGINS, optimal_difference

#: Colour and marker of each loss, the same in every figure, legible without colour.
LOSS_STYLE: dict[str, tuple[str, str]] = {
    Loss.NONE: ("#4d4d4d", "o"),
    Loss.SMALL: ("#0072b2", "s"),
    Loss.LARGE: ("#d55e00", "^"),
    Loss.SCALED: ("#009e73", "D"),
}


def _width(sources: int) -> float:
    return WIDTH * max(1, sources / 3)


def _source_panels(sources: Collection[str], *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure, axes = panels(list(sources), sharey=sharey)
    figure.set_figwidth(_width(len(sources)))
    return figure, axes


def _interval_line(axis: Axes, x: np.ndarray, table: pd.DataFrame, loss: str) -> None:
    colour, marker = LOSS_STYLE[loss]
    interval_line(axis, x, table, colour=colour, marker=marker, label=loss, lw=1.4)


def optimal_differences(margins: Sequence[float] = (0.0, 1.0, 2.0, 3.0)) -> Figure:
    """What each margin makes of a preference probability, and what σ of it then claims."""
    figure, (left, right) = panels(["Optimal score difference", "Probability read off the scores"])
    probability = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    for shade, margin in zip(sns.color_palette("flare", len(margins)), margins, strict=True):
        difference = optimal_difference(probability, margin)
        left.plot(probability, difference, color=shade, label=f"margin {margin:g}")
        right.plot(probability, torch.sigmoid(difference), color=shade)
    for axis in (left, right):
        axis.set_xlabel("true probability that the first response is preferred")
    left.set_ylabel("Δ*")
    right.set_ylabel("σ(Δ*)")
    left.legend(frameon=False)
    return figure


def gains_by_size(tables: Mapping[str, pd.DataFrame], *, metric: str = Metric.ACCURACY) -> Figure:
    """Gain of each loss over the one without margin, by data size; shared above, tuned below.

    From ``gains`` tables.
    """
    figure, axes = plt.subplots(
        2, len(tables), figsize=(_width(len(tables)), 2 * HEIGHT * 0.85), squeeze=False,
        sharex="col", sharey="col", layout="constrained",
    )  # fmt: skip
    for column, (title, table) in enumerate(tables.items()):
        for row, tuning in enumerate((Tuning.SHARED, Tuning.TUNED)):
            axis = axes[row][column]
            part = table[
                (table["metric"] == metric) & (table["tuning"] == tuning) & ~table["filtered"]
            ]
            for offset, loss in enumerate((Loss.SMALL, Loss.LARGE, Loss.SCALED)):
                line = part[part["loss"] == loss]
                # Side by side, so that intervals do not hide each other.
                _interval_line(axis, line["size"] * 1.06 ** (offset - 1), line, loss)
            axis.axhline(0, color=LOSS_STYLE[Loss.NONE][0], lw=1)
            axis.set_xscale("log")
            sizes = sorted(table["size"].unique())
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.set_xticks([], minor=True)
            axis.set_title(f"{title}: {tuning}")
        axes[1][column].set_xlabel("training pairs")
    for row in (0, 1):
        axes[row][0].set_ylabel(f"{metric} gain (points)")
    axes[0][0].legend(frameon=False)
    return figure


def gain_by_hyperparameter(tables: Mapping[str, pd.DataFrame], loss: str = Loss.LARGE) -> Figure:
    """Gain of one loss when all arms share a hyperparameter, over its values, for each size.

    From ``sensitivity`` tables.
    """
    figure, axes = _source_panels(tables)
    for axis, table in zip(axes, tables.values(), strict=True):
        value = next(name for name in ("penalty", "learning rate") if name in table)
        part = table[table["loss"] == loss]
        sizes = sorted(part["size"].unique())
        for shade, size in zip(sns.color_palette("crest", len(sizes)), sizes, strict=True):
            line = part[part["size"] == size]
            axis.plot(line[value], line["estimate"] * 100, color=shade, label=f"{size:,} pairs")
            axis.fill_between(
                line[value], line["low"] * 100, line["high"] * 100, color=shade, alpha=0.15, lw=0
            )
            plain = table[(table["loss"] == Loss.NONE) & (table["size"] == size)]
            best = plain.loc[plain["accuracy"].idxmax(), value]
            at_best = line[line[value] == best]
            axis.plot(best, at_best["estimate"] * 100, "*", color=shade, ms=11, mec="black")
        axis.axhline(0, color=LOSS_STYLE[Loss.NONE][0], lw=1)
        axis.set_xscale("log")
        axis.set_xlabel(f"{value} shared by all arms")
    axes[0].set_ylabel(f"accuracy gain, {loss} margin (points)")
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def accuracy_by_strength(tables: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Accuracy by strength at the largest size, each arm tuned, with the baselines.

    From pairs of ``metrics`` and ``baselines`` tables.
    """
    figure, axes = _source_panels(tables, sharey=True)
    names = [f"accuracy {strength}" for strength in range(1, 5)]
    for axis, (metrics, baselines) in zip(axes, tables.values(), strict=True):
        part = metrics[
            (metrics["size"] == metrics["size"].max())
            & (metrics["tuning"] == Tuning.TUNED)
            & ~metrics["filtered"]
        ].set_index("metric")
        for offset, loss in enumerate(LOSS_STYLE):
            line = part[part["loss"] == loss].loc[names]
            _interval_line(axis, np.arange(1, 5) + 0.09 * (offset - 1.5), line, loss)
        for name, line in baselines.groupby("baseline"):
            dashes = {"length only": ":", "reachable": "--"}.get(str(name), "-.")
            values = line.set_index("metric").loc[names, "estimate"] * 100
            axis.plot(range(1, 5), values, color="black", ls=dashes, lw=1, label=name)
        axis.set_xticks(range(1, 5), ["negligibly", "slightly", "better", "significantly"])
        axis.tick_params(axis="x", labelrotation=20)
    axes[0].set_ylabel("accuracy (%)")
    axes[-1].legend(frameon=False, fontsize="small")
    return figure


def reliability_diagram(
    tables: Mapping[str, pd.DataFrame], *, tuning: str = Tuning.TUNED
) -> Figure:
    """Accuracy against confidence σ(|Δ|): on the diagonal a model means what it says.

    From ``reliability`` tables.
    """
    figure, axes = _source_panels(tables, sharey=True)
    for axis, table in zip(axes, tables.values(), strict=True):
        part = table[(table["tuning"] == tuning) & ~table["filtered"]]
        for loss, (colour, marker) in LOSS_STYLE.items():
            # Bins with few pairs would draw noise.
            line = part[(part["loss"] == loss) & (part["share"] > 0.01)]
            axis.plot(line["confidence"], line["accuracy"], color=colour, marker=marker, label=loss)
        axis.plot([0.5, 1], [0.5, 1], color="black", lw=1, ls="--")
        axis.set_xlabel("confidence σ(|Δ|)")
    axes[0].set_ylabel("share ranked right")
    axes[0].legend(frameon=False)
    return figure


def score_distributions(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Distribution of standardised scores of each loss, as in Llama 2's Figure 27.

    From ``histogram`` tables.
    """
    figure, axes = _source_panels(tables, sharey=True)
    for axis, table in zip(axes, tables.values(), strict=True):
        for loss, (colour, _) in LOSS_STYLE.items():
            line = table[table["loss"] == loss]
            axis.plot(
                line["score"], line["density"], color=colour, drawstyle="steps-mid", label=loss
            )
        axis.set_xlabel("score (standardised)")
    axes[0].set_ylabel("density")
    axes[0].legend(frameon=False)
    return figure


def margin_tables() -> pd.DataFrame:
    """Llama 2's margins by strength (Table 27)."""
    names = ["negligibly", "slightly", "better", "significantly"]
    return pd.DataFrame(
        {name: [table[s] for s in range(1, 5)] for name, table in MARGINS.items()}, index=names
    ).T

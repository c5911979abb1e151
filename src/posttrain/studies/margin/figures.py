"""Figures of the margin study; several tables come by the titles of their sources."""

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from posttrain.evidence.claims import Interval
from posttrain.evidence.records import Record
from posttrain.evidence.style import HEIGHT, WIDTH, panels
from posttrain.evidence.verdicts import PERCENT, title
from posttrain.studies.common.keys import Tuning
from posttrain.studies.margin.claims import LARGE_MARGIN, accuracy_gain
from posttrain.studies.margin.keys import Loss
from posttrain.studies.margin.outcome import TUNINGS
from posttrain.training.losses import optimal_difference

BLUE, ORANGE, GREEN, VERMILION = sns.color_palette("colorblind").as_hex()[:4]
GREY = "#4d4d4d"
#: Colour, marker and line of each loss, the same in every figure, legible without colour.
LOSS_STYLE: dict[str, tuple[str, str, str]] = {
    Loss.NONE: (GREY, "o", "-"),
    Loss.SMALL: (BLUE, "s", "--"),
    Loss.LARGE: (VERMILION, "^", "-"),
    Loss.SCALED: (GREEN, "D", ":"),
}


def gain_by_hyperparameter(tables: Mapping[str, pd.DataFrame], loss: str = Loss.LARGE) -> Figure:
    """Gain of one loss when all losses share a hyperparameter, over its values, at the most data.

    A star marks the value that is best without margin. From ``sensitivity`` tables, two at most,
    of one hyperparameter.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 * HEIGHT), layout="constrained")
    effect = LARGE_MARGIN * PERCENT
    axis.axhspan(-effect, effect, color="black", alpha=0.07, lw=0)
    axis.axhline(effect, color="black", lw=1, ls="--")
    axis.axhline(0, color=GREY, lw=1)
    styles = ((VERMILION, "-", "o"), (BLUE, "--", "s"))
    for (name, table), (colour, dashes, marker) in zip(tables.items(), styles, strict=False):
        value = "penalty" if "penalty" in table else "learning rate"
        part = table[table["size"] == table["size"].max()]
        line = part[part["loss"] == loss].set_index(value)[["estimate", "low", "high"]] * PERCENT
        plain = part[part["loss"] == Loss.NONE].set_index(value)["accuracy"]
        axis.plot(line["estimate"], color=colour, ls=dashes, marker=marker, lw=2, label=name)
        axis.fill_between(line.index, line["low"], line["high"], color=colour, alpha=0.15, lw=0)
        best = plain.idxmax()
        axis.plot(best, line.loc[best, "estimate"], "*", color=colour, ms=17, mec="black")
        axis.set_xlabel(f"{value} shared by all losses")
    axis.text(1, effect, "Llama 2 ", ha="right", va="bottom", transform=axis.get_yaxis_transform())
    axis.set_xscale("log")
    axis.set_ylabel("gain in accuracy (points)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def optimal_differences(margins: Sequence[float] = (0.0, 1.0, 3.0)) -> Figure:
    """What each margin makes of a preference probability, and what σ of it then claims."""
    figure, (left, right) = panels(["score difference Δ*", "claimed probability σ(Δ*)"])
    probability = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    styles = ((GREY, "-"), (BLUE, "--"), (VERMILION, "-."))
    for margin, (colour, dashes) in zip(margins, styles, strict=False):
        difference = optimal_difference(probability, margin)
        for axis, y in ((left, difference), (right, torch.sigmoid(difference))):
            axis.plot(probability, y, color=colour, ls=dashes, lw=2, label=f"margin {margin:g}")
    figure.supxlabel("true probability p", fontsize="medium")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False)  # fmt: skip
    return figure


def gains_by_source(
    records: Sequence[Record], together: Interval, loss: str = Loss.LARGE
) -> Figure:
    """Gain of one loss by source at the most data, with one shared setting and tuned.

    ``together`` is what all sources say of the tuned gain.
    """
    names = [*map(title, records), "all sources"]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.55 * len(names)), layout="constrained")
    effect = LARGE_MARGIN * PERCENT
    axis.axvspan(-effect, effect, color="black", alpha=0.07, lw=0)
    axis.axvline(effect, color="black", lw=1, ls="--")
    series = {f"{tuning}": [accuracy_gain(r, loss, tuning) for r in records] for tuning in TUNINGS}
    series[Tuning.TUNED].append(together)
    _forest(axis, names, series)
    axis.text(effect, 0.02, " Llama 2", transform=axis.get_xaxis_transform())
    axis.set_xlabel("gain in accuracy (points)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def gains_by_filter(records: Sequence[Record], loss: str = Loss.LARGE) -> Figure:
    """Gain of one loss on all pairs and on filtered ones, at the most data, by source.

    With one shared setting on the left, tuned on the right.
    """
    figure, axes = panels([f"{tuning} setting" for tuning in TUNINGS], sharey=True)
    for axis, tuning in zip(axes, TUNINGS, strict=True):
        series = {
            "all pairs": [accuracy_gain(record, loss, tuning) for record in records],
            "decided pairs": [
                accuracy_gain(record, loss, tuning, filtered=True) for record in records
            ],
        }
        _forest(axis, [record.label for record in records], series)
    ends = [end for axis in axes for end in axis.get_xlim()]
    for axis in axes:
        axis.set_xlim(min(ends), max(ends))
        axis.xaxis.set_major_locator(MultipleLocator(1))
    figure.supxlabel("gain in accuracy (points)", fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2,
                  frameon=False)  # fmt: skip
    return figure


def _forest(axis: Axes, names: Sequence[str], series: Mapping[str, Sequence[Interval]]) -> None:
    """Points with intervals, a row for each name and a colour for each of two series."""
    styles = ((ORANGE, "o", -0.16), (BLUE, "s", 0.16))
    for (label, intervals), (colour, marker, shift) in zip(series.items(), styles, strict=True):
        for place, interval in enumerate(intervals):
            value, low, high = (end * PERCENT for end in interval)
            axis.errorbar(
                value, place + shift, xerr=[[value - low], [high - value]], color=colour,
                marker=marker, ms=6, capsize=3, label="" if place else label,
            )  # fmt: skip
    axis.axvline(0, color=GREY, lw=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def reliability_diagram(
    tables: Mapping[str, pd.DataFrame],
    losses: Sequence[str] = tuple(LOSS_STYLE),
    *,
    tuning: str = Tuning.TUNED,
) -> Figure:
    """Accuracy against confidence σ(|Δ|): on the diagonal a model means what it says.

    From ``reliability`` tables.
    """
    figure, axes = panels(list(tables), sharey=True)
    for axis, table in zip(axes, tables.values(), strict=True):
        part = table[(table["tuning"] == tuning) & ~table["filtered"]]
        for loss in losses:
            # Bins with few pairs would draw noise.
            line = part[(part["loss"] == loss) & (part["share"] > 0.01)]
            colour, marker, dashes = LOSS_STYLE[loss]
            axis.plot(
                line["confidence"], line["accuracy"], color=colour, marker=marker, ls=dashes,
                label=loss,
            )  # fmt: skip
        axis.plot([0.5, 1], [0.5, 1], color="black", lw=1, ls="--")
    figure.supxlabel("confidence σ(|Δ|)", fontsize="medium")
    figure.supylabel("share ranked right", fontsize="medium")
    _legend_of_losses(figure, axes)
    return figure


def score_distributions(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Distribution of standardised scores of each loss, as in Llama 2's Figure 27.

    From ``histogram`` tables.
    """
    figure, axes = panels(list(tables), sharey=True)
    for axis, table in zip(axes, tables.values(), strict=True):
        for loss, (colour, _, dashes) in LOSS_STYLE.items():
            line = table[table["loss"] == loss]
            axis.plot(
                line["score"], line["density"], color=colour, ls=dashes, drawstyle="steps-mid",
                label=loss,
            )  # fmt: skip
    figure.supxlabel("score (standardised)", fontsize="medium")
    figure.supylabel("density", fontsize="medium")
    _legend_of_losses(figure, axes)
    return figure


def _legend_of_losses(figure: Figure, axes: Sequence[Axes]) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)

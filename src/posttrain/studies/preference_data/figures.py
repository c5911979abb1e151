"""Figures of the preference data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.special import expit

from posttrain.evidence.records import Record
from posttrain.evidence.style import WIDTH, interval_line, panels

#: Accuracy (%) of Llama 2's helpfulness model on its own test set, by strength 1 to 4 (Table 8).
LLAMA_2 = (54.7, 60.9, 67.5, 80.7)


def reliability(agreement: pd.DataFrame, by_strength: pd.DataFrame) -> Figure:
    """How often annotators prefer the better response, by true difference and by strength.

    From :func:`.preference_data.report.agreement` and :func:`.preference_data.report.by_strength`.
    """
    truth, llama = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[1]
    figure, (left, right) = panels(["by true difference", "by strength"], sharey=True)
    gaps = np.linspace(0, agreement["gap"].max(), 100)
    left.plot(gaps, 100 * expit(gaps), color="black", lw=1.2)
    interval_line(left, agreement["gap"], agreement, colour=truth, marker="o", ms=4, ls="")
    left.text(1.7, 75, "σ(Δ)")
    left.set_xlabel("difference of quality Δ")
    left.set_ylabel("right (%)")
    right.plot(by_strength.index, 100 * by_strength["reachable"], color=truth, marker="o")
    right.plot(by_strength.index, LLAMA_2, color=llama, marker="s", ls="--")
    right.text(0.9, 84, "best possible,\nsimulated", color=truth)
    right.text(2.6, 52, "Llama 2's\nmodel", color=llama)
    right.set_xlabel("strength that annotators gave")
    right.set_xticks(by_strength.index)
    right.set_ylim(48, 102)
    return figure


def length_bias(records: Sequence[Record]) -> Figure:
    """How often the longer response is the chosen one in each data set (%)."""
    overall = [record.tables["length"].set_index("strength").loc["all"] for record in records]
    table = pd.DataFrame(overall, index=[record.source for record in records])
    table = table.sort_values("estimate")
    figure, axis = plt.subplots(figsize=(WIDTH, 0.6 + 0.28 * len(table)), layout="constrained")
    places = np.arange(len(table))
    value, low, high = (100 * table[name].to_numpy() for name in ("estimate", "low", "high"))
    colour = sns.color_palette("colorblind")[0]
    axis.errorbar(
        value, places, xerr=(value - low, high - value), color=colour, marker="o", ls="", capsize=2
    )
    axis.axvline(50, color="black", lw=0.8, ls=":")
    axis.set_yticks(places, list(table.index))
    axis.set_xlabel("pairs in which the longer response was chosen (%)")
    return figure

"""Figures of the recipe study."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line
from posttrain.studies.packing.keys import RowName
from posttrain.studies.recipe.keys import Combined, Dropped, Question, Start


@dataclass(frozen=True)
class Choice:
    """What :func:`choices` shows on a line: an arm, and what it is compared with."""

    label: str
    question: Question
    arm: str
    reference: str


CHOICES = (
    Choice("start from chat weights", Question.START, Start.CHAT, Start.PRETRAINED),
    Choice("start from random weights", Question.START, Start.UNTRAINED, Start.PRETRAINED),
    Choice("drop similar pairs", Question.SIMILAR, Dropped.SIMILAR, Dropped.NONE),
    Choice("drop random pairs", Question.SIMILAR, Dropped.RANDOM, Dropped.NONE),
    Choice("average of 8 models", Question.AVERAGE, Combined.AVERAGE_8, Combined.SINGLE),
    Choice("ensemble of 8 models", Question.AVERAGE, Combined.ENSEMBLE_8, Combined.SINGLE),
    Choice("one model of all pairs", Question.AVERAGE, Combined.ALL_DATA, Combined.SINGLE),
)
#: A marker for each question, and one for more data.
MARKERS = {Question.START: "o", Question.SIMILAR: "s", Question.AVERAGE: "D", "data": "^"}


def choices(record: Record, growth: Record | None = None) -> Figure:
    """What each choice gains in accuracy (points), and each step to more data, a line each.

    Labels as annotated, and the most training pairs where there are several sizes; steps are those
    of separate rows of a record of the growth study.
    """
    gains = record.tables["gains"]
    gains = gains[(gains["metric"] == Metric.ACCURACY) & (gains["noise"] == 0)]
    lines = []
    for one in CHOICES:
        found = gains[
            (gains["question"] == one.question)
            & (gains["arm"] == one.arm)
            & (gains["reference"] == one.reference)
        ]
        lines.append((one.label, str(one.question), found.loc[found["size"].idxmax()]))
    if growth is not None:
        steps = _separate(growth.tables["steps"])
        before = growth.settings["sizes"]
        for size, (_, step) in zip(before, steps.iterrows(), strict=False):
            lines.append((f"{size:,} → {step['size']:,} groups", "data", step))
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.29 * len(lines)), layout="constrained")
    for colour, question in zip(sns.color_palette("colorblind"), MARKERS, strict=False):
        places = [place for place, line in enumerate(lines) if line[1] == question]
        if places:
            table = pd.DataFrame([lines[place][2] for place in places])
            value, low, high = (
                100 * table[name].to_numpy() for name in ("estimate", "low", "high")
            )
            axis.errorbar(
                value, places, xerr=(value - low, high - value), color=colour,
                marker=MARKERS[question], ls="", capsize=2,
            )  # fmt: skip
    axis.axvline(0, color="black", lw=0.8, ls=":")
    axis.set_yticks(range(len(lines)), [label for label, *_ in lines])
    axis.invert_yaxis()
    axis.set_xlabel("accuracy gained (points)")
    return figure


def accuracy_by_data(growth: Record) -> Figure:
    """Accuracy (%) by number of training groups, beside the truth's own on the test pairs."""
    levels, lacks = (_separate(growth.tables[name]) for name in ("levels", "excess"))
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    colour = sns.color_palette("colorblind")[0]
    interval_line(axis, levels["size"], levels, colour=colour, marker="o")
    best = 100 * float(np.mean(levels["estimate"].to_numpy() + lacks["estimate"].to_numpy()))
    axis.axhline(best, color="black", lw=1, ls="--")
    axis.text(levels["size"].min(), best - 0.4, "the truth itself", va="top")
    axis.set_xscale("log")
    axis.set_xticks(levels["size"], [f"{size:,}" for size in levels["size"]])
    axis.minorticks_off()
    axis.set_xlabel("training groups")
    axis.set_ylabel("accuracy (%)")
    return figure


def _separate(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of models that are trained and tested in separate rows, by size."""
    part = table[(table["trained"] == RowName.SEPARATE) & (table["metric"] == Metric.ACCURACY)]
    return part.sort_values("size")

"""Figures of training runs."""

import math

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line, panels
from posttrain.studies.training_run.keys import Scorer

TRAINING, HELD_OUT = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
#: What readers see of the scorers, with a marker each.
SCORERS = {Scorer.TRAINED: "o", Scorer.HEAD: "s", Scorer.LENGTH: "^"}


def learning_curve(history: pd.DataFrame, accuracy: pd.DataFrame, scorer: str) -> Figure:
    """Loss and accuracy while a run trained, with its accuracy on held-out groups.

    From ``history`` and ``accuracy`` tables; ``scorer`` is the trained model in the latter.
    """
    figure, (loss, right) = panels(["loss (nats)", "accuracy (%)"])
    loss.plot(history["step"], history["loss"], color=TRAINING, marker=".")
    loss.axhline(math.log(2), color="black", lw=1, ls=":")
    right.plot(history["step"], history["accuracy"] * 100, color=TRAINING, marker=".")
    held_out = accuracy[
        (accuracy["scorer"] == scorer) & (accuracy["metric"] == Metric.ACCURACY)
    ].iloc[0]
    right.axhline(held_out["estimate"] * 100, color=HELD_OUT, ls="--")
    right.axhspan(held_out["low"] * 100, held_out["high"] * 100, color=HELD_OUT, alpha=0.15, lw=0)
    end = history["step"].max()
    loss.text(end, math.log(2) - 0.01, "a coin flip", ha="right", va="top")
    right.text(end, 100, "training", ha="right", color=TRAINING)
    right.text(end, 100 * held_out["low"] - 1, "held out", ha="right", va="top", color=HELD_OUT)
    right.set_ylim(top=108)
    figure.supxlabel("step", fontsize="medium")
    return figure


def accuracy_by_scorer(accuracy: pd.DataFrame) -> Figure:
    """Accuracy of the trained model and what costs less, over all pairs and by strength."""
    names = {"accuracy": "all"} | {f"accuracy {s}": f"strength {s}" for s in range(1, 5)}
    shown = accuracy[accuracy["metric"].isin(list(names))].dropna(subset=["estimate"])
    metrics = [metric for metric in names if metric in set(shown["metric"])]
    scorers = [scorer for scorer in SCORERS if scorer in set(shown["scorer"])]
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for number, (scorer, colour) in enumerate(
        zip(scorers, sns.color_palette("colorblind"), strict=False)
    ):
        part = shown[shown["scorer"] == scorer].set_index("metric").reindex(metrics)
        places = [place + 0.14 * (number - (len(scorers) - 1) / 2) for place in range(len(metrics))]
        interval_line(
            axis, places, part, colour=colour, marker=SCORERS[scorer], linestyle="none",
            label=str(scorer),
        )  # fmt: skip
    axis.axhline(50, color="black", lw=1, ls=":")
    axis.set_xticks(range(len(metrics)), [names[metric] for metric in metrics])
    axis.set_ylabel("accuracy (%)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure

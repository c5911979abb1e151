"""Figures of training runs."""

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line, panels

TRAINING, HELD_OUT = "#0072b2", "#d55e00"


def learning_curve(history: pd.DataFrame, accuracy: pd.DataFrame, scorer: str) -> Figure:
    """Loss, accuracy and scores while a run trained, with its accuracy on held-out groups.

    From ``history`` and ``accuracy`` tables; ``scorer`` is the trained model in the latter.
    """
    figure, (loss, right, scores) = panels(["loss (nats)", "accuracy (%)", "scores"])
    loss.plot(history["step"], history["loss"], color=TRAINING)
    right.plot(history["step"], history["accuracy"] * 100, color=TRAINING, label="training")
    held_out = accuracy[
        (accuracy["scorer"] == scorer) & (accuracy["metric"] == Metric.ACCURACY)
    ].iloc[0]
    right.axhline(held_out["estimate"] * 100, color=HELD_OUT, label="held out, at the end")
    right.axhspan(held_out["low"] * 100, held_out["high"] * 100, color=HELD_OUT, alpha=0.15, lw=0)
    mean, spread = history["score_mean"], history["score_std"]
    scores.plot(history["step"], mean, color=TRAINING, label="mean")
    scores.fill_between(
        history["step"], mean - spread, mean + spread, color=TRAINING, alpha=0.2, lw=0,
        label="± standard deviation",
    )  # fmt: skip
    scores.margins(y=0.2)  # room for the legend
    for axis in (right, scores):
        axis.legend(frameon=False, fontsize="small")
    figure.supxlabel("step", fontsize="medium")
    return figure


def accuracy_by_scorer(accuracy: pd.DataFrame) -> Figure:
    """Accuracy of the trained model and of what it is compared with, over all and by strength."""
    names = {"accuracy": "all"} | {f"accuracy {s}": f"strength {s}" for s in range(1, 5)}
    shown = accuracy[accuracy["metric"].isin(list(names))].dropna(subset=["estimate"])
    metrics = [metric for metric in names if metric in set(shown["metric"])]
    scorers = list(dict.fromkeys(shown["scorer"]))
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for number, (scorer, colour) in enumerate(
        zip(scorers, sns.color_palette("colorblind"), strict=False)
    ):
        part = shown[shown["scorer"] == scorer].set_index("metric").reindex(metrics)
        places = [place + 0.14 * (number - (len(scorers) - 1) / 2) for place in range(len(metrics))]
        interval_line(axis, places, part, colour=colour, marker="o", linestyle="none", label=scorer)
    axis.axhline(50, color="#888888", lw=1, ls=":")
    axis.set_xticks(range(len(metrics)), [names[metric] for metric in metrics])
    axis.set_ylabel("accuracy on held-out pairs (%)")
    figure.legend(loc="outside upper center", ncols=len(scorers), frameon=False)
    return figure

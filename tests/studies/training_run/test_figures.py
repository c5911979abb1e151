"""Figures of a training run draw its own numbers."""

import math

import matplotlib
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.studies.training_run import figures
from posttrain.studies.training_run.keys import Scorer

HISTORY = pd.DataFrame(
    {"step": [10, 20, 30], "loss": [0.7, 0.5, 0.4], "accuracy": [0.5, 0.75, 0.8]}
)
JUDGED = pd.DataFrame(
    [
        (Scorer.TRAINED, "accuracy", 0.78, 0.70, 0.83),
        (Scorer.TRAINED, "accuracy 1", math.nan, math.nan, math.nan),
        (Scorer.TRAINED, "accuracy 3", 0.81, 0.76, 0.86),
        (Scorer.TRAINED, "log-likelihood", -0.5, -0.6, -0.4),
        (Scorer.LENGTH, "accuracy", 0.70, 0.65, 0.74),
        (Scorer.LENGTH, "accuracy 3", 0.71, 0.67, 0.76),
        (Scorer.HEAD_ALL, "accuracy", 0.77, 0.70, 0.82),
    ],
    columns=["scorer", "metric", "estimate", "low", "high"],
)


def test_learning_curve_shows_training_and_what_it_came_to():
    figure = figures.learning_curve(HISTORY, JUDGED, Scorer.TRAINED)
    loss, accuracy = figure.axes
    assert loss.get_lines()[0].get_ydata().tolist() == [0.7, 0.5, 0.4]
    assert set(loss.get_lines()[1].get_ydata()) == {math.log(2)}
    training, held_out = accuracy.get_lines()
    assert training.get_ydata() == pytest.approx([50, 75, 80])
    assert set(held_out.get_ydata()) == {78.0}
    plt.close(figure)


def test_accuracy_by_scorer_shows_the_model_and_what_costs_less():
    figure = figures.accuracy_by_scorer(JUDGED)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["all", "strength 3"]
    drawn = {one.get_label(): one.lines[0].get_ydata() for one in axis.containers}
    assert set(drawn) == {Scorer.TRAINED, Scorer.LENGTH}
    assert drawn[Scorer.TRAINED] == pytest.approx([78, 81])
    assert drawn[Scorer.LENGTH] == pytest.approx([70, 71])
    plt.close(figure)

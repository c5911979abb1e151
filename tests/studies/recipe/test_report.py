"""What readers are told of the recipe study, and its figure."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from recipe_held import prepared

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.evidence.records import Record
from posttrain.studies.recipe import figures, report
from posttrain.studies.recipe.keys import Combined, Dropped, Question, Start
from posttrain.studies.recipe.outcome import Cell, summarise

PAIRS = 8


def right(count):
    """Scores of one model that ranks so many pairs rightly, ``[1, 2, pairs]``."""
    return np.stack([np.where(np.arange(PAIRS) < count, 1.0, -1.0), np.zeros(PAIRS)])[None]


@pytest.fixture(scope="module")
def record():
    arms = {
        Cell(Question.START, 3000, 0.0): dict(zip(Start, (6, 7, 3), strict=True)),
        Cell(Question.SIMILAR, 2000, 0.0): dict(zip(Dropped, (6, 5, 4), strict=True)),
        Cell(Question.AVERAGE, 2000, 0.0): {arm: 4 + k % 3 for k, arm in enumerate(Combined)},
        Cell(Question.AVERAGE, 2000, 0.2): {arm: 3 + k % 2 for k, arm in enumerate(Combined)},
    }
    outcomes = {
        cell: [{arm: right(count) for arm, count in counts.items()}] * 2
        for cell, counts in arms.items()
    }
    tables = summarise(outcomes, prepared(PAIRS), resamples=50)
    return Record("recipe", "simulator", "quick", {}, {"clusters": PAIRS}, tables)


def test_arms_stand_beside_the_first_of_their_question(record):
    table = report.arm_table(record, Question.START)
    assert list(table.index) == [("3,000 pairs", str(start)) for start in Start]
    assert table["accuracy (%)"].iloc[0].startswith("75.0")
    gained = table["minus pre-trained (points)"]
    assert gained.iloc[0] == "–"
    assert gained.iloc[1].startswith("+12.5")
    assert gained.iloc[2].startswith("−37.5")


def test_each_share_of_wrong_labels_has_rows_of_its_own(record):
    table = report.arm_table(record, Question.AVERAGE)
    heads = list(dict.fromkeys(table.index.get_level_values(0)))
    assert heads == ["2,000 pairs", "2,000 pairs, 20% turned round"]


def test_averages_are_compared_with_what_else_can_be_made(record):
    table = report.average_table(record)
    assert list(table.columns) == ["as annotated", "20% turned round"]
    # "average of 8" is right in 5 of 8, "ensemble of 8" in 5.
    assert table.loc[(Combined.AVERAGE_8, Combined.ENSEMBLE_8)].iloc[0].startswith(("+", "−"))
    assert Combined.SINGLE not in table.index.get_level_values(1)


@pytest.fixture
def growth():
    sizes, reached = [10, 100, 1000], [0.6, 0.7, 0.75]
    columns = ["trained", "metric", "size", "estimate", "low", "high"]

    def rows(values, first=0):
        return pd.DataFrame(
            [
                ("separate", "accuracy", size, value, value - 0.01, value + 0.01)
                for size, value in zip(sizes[first:], values, strict=True)
            ],
            columns=columns,
        )

    tables = {
        "levels": rows(reached),
        "excess": rows([0.2, 0.1, 0.05]),
        "steps": rows([0.1, 0.05], first=1),
    }
    return Record("growth", "simulator", "quick", {"sizes": sizes}, {}, tables)


def drawn(axis):
    """What stands on each line: estimate and ends of its interval, by label."""
    labels = [label.get_text() for label in axis.get_yticklabels()]
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        for x, y, ends in zip(*line.get_data(), bars.get_segments(), strict=True):
            found[labels[int(y)]] = (x, *ends[:, 0])
    return found


def test_the_figure_of_choices_draws_the_gain_of_each(record, growth):
    figure = figures.choices(record, growth)
    found = drawn(figure.axes[0])
    table = record.tables["gains"].set_index(["question", "noise", "arm", "reference", "metric"])
    for one in figures.CHOICES:
        row = table.loc[(one.question, 0.0, one.arm, one.reference, "accuracy")]
        assert found[one.label] == pytest.approx(100 * row[["estimate", "low", "high"]].to_numpy())
    assert found["100 → 1,000 groups"] == pytest.approx((5, 4, 6))
    assert len(found) == len(figures.CHOICES) + 2
    plt.close(figure)
    figure = figures.choices(record)
    assert len(drawn(figure.axes[0])) == len(figures.CHOICES)
    plt.close(figure)


def test_accuracy_by_data_ends_below_the_truth(growth):
    figure = figures.accuracy_by_data(growth)
    (axis,) = figure.axes
    assert axis.containers[0].lines[0].get_ydata() == pytest.approx([60, 70, 75])
    assert axis.get_lines()[-1].get_ydata() == pytest.approx([80, 80])
    plt.close(figure)


def test_what_turning_pairs_round_adds_is_shown_in_both_metrics(record):
    table = report.noise_table(record)
    assert list(table.columns) == ["as annotated", "20% turned round", "change"]
    added = record.tables["noise"].set_index(["arm", "reference", "metric"])["estimate"]
    change = 100 * added[Combined.AVERAGE_8, Combined.SINGLE, "accuracy"]
    shown = table.loc[("minus single", "accuracy (points)"), "change"]
    assert float(shown.split(" ")[0].replace("−", "-")) == pytest.approx(change, abs=0.06)

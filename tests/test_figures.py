"""Figures draw what their tables hold, and nothing else."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.special import expit, logit

from posttrain import figures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LOSSES = ("none", "small", "large", "scaled")
SIZES = (100, 1000)
DECOY = (9.0, 8.0, 10.0)


@pytest.fixture(autouse=True)
def fresh_style():
    with matplotlib.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def lines(axis):
    """Lines that have a label of their own, as (label, x, y)."""
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def intervals(axis):
    """Points and interval ends of every errorbar line, by label."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()]).reshape(-1, 2)
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        found[container.get_label()] = (x, y, ends)
    return found


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def gains_table(shift=0.0):
    """Every row that may be drawn has values of its own, every other row a decoy."""
    rows = []
    for number, (loss, filtered, tuning, size, metric) in enumerate(
        itertools.product(
            LOSSES[1:], (False, True), ("shared", "tuned"), SIZES, ("accuracy", "ties")
        )
    ):
        value = number / 1000 + shift
        drawn = not filtered and metric == "accuracy"
        values = (value, value - 0.01, value + 0.02) if drawn else DECOY
        rows.append((loss, filtered, tuning, size, metric, *values))
    return pd.DataFrame(
        rows, columns=["loss", "filtered", "tuning", "size", "metric", "estimate", "low", "high"]
    )


def test_gains_by_size_has_a_column_for_each_source_and_a_row_for_each_tuning():
    tables = {"first": gains_table(), "second": gains_table(0.3)}
    figure = figures.gains_by_size(tables)
    assert isinstance(figure, Figure)
    assert titles(figure) == ["first: shared", "second: shared", "first: tuned", "second: tuned"]
    for axis in figure.axes:
        name, tuning = axis.get_title().split(": ")
        table = tables[name]
        assert axis.get_xscale() == "log"
        drawn = intervals(axis)
        assert list(drawn) == ["small", "large", "scaled"]
        for loss, (x, y, ends) in drawn.items():
            part = table[
                (table["loss"] == loss) & (table["tuning"] == tuning) & ~table["filtered"]
                & (table["metric"] == "accuracy")
            ]  # fmt: skip
            np.testing.assert_allclose(x, SIZES, rtol=0.07)
            np.testing.assert_allclose(y, part["estimate"] * 100)
            np.testing.assert_allclose(ends, part[["low", "high"]] * 100)
    assert legend(figure.axes[0]) == ["small", "large", "scaled"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", *["training pairs"] * 2]
    assert figure.axes[0].get_ylabel() == "accuracy gain (points)"


def test_gains_by_size_of_another_metric():
    table = gains_table()
    table.loc[table["metric"] == "ties", ["estimate", "low", "high"]] = 0.07, 0.06, 0.08
    figure = figures.gains_by_size({"only": table}, metric="ties")
    assert len(figure.axes) == 2
    for axis in figure.axes:
        for _, y, _ in intervals(axis).values():
            np.testing.assert_allclose(y, 7.0)
    assert figure.axes[0].get_ylabel() == "ties gain (points)"


@pytest.mark.parametrize("hyperparameter", ["penalty", "learning rate"])
def test_gain_by_hyperparameter_marks_the_best_value_without_margin(hyperparameter):
    grid = (0.01, 0.1, 1.0)
    rows = []
    for number, (loss, size, value) in enumerate(itertools.product(LOSSES, SIZES, grid)):
        # Without margin, 0.1 is best with few pairs and 1 with many.
        accuracy = 0.7 + 0.1 * (value == (0.1 if size == 100 else 1.0)) + 0.3 * (loss != "none")
        gain = number / 1000 if loss == "large" else DECOY[0]
        rows.append((loss, size, value, accuracy, gain, gain - 0.01, gain + 0.01))
    columns = ["loss", "size", hyperparameter, "accuracy", "estimate", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    figure = figures.gain_by_hyperparameter({"toy": table, "again": table})
    assert titles(figure) == ["toy", "again"]
    axis = figure.axes[0]
    assert axis.get_xlabel() == f"{hyperparameter} shared by all arms"
    assert axis.get_xscale() == "log"
    drawn = lines(axis)
    assert list(drawn) == legend(axis) == ["100 pairs", "1,000 pairs"]
    large = table[table["loss"] == "large"].set_index(["size", hyperparameter])["estimate"]
    for size, (x, y) in zip(SIZES, drawn.values(), strict=True):
        np.testing.assert_allclose(x, grid)
        np.testing.assert_allclose(y, large[size] * 100)
    stars = [line for line in axis.get_lines() if line.get_marker() == "*"]
    found = [(float(np.squeeze(s.get_xdata())), float(np.squeeze(s.get_ydata()))) for s in stars]
    expected = [(0.1, large[100, 0.1] * 100), (1.0, large[1000, 1.0] * 100)]
    assert found == [pytest.approx(pair) for pair in expected]
    # The bands are the intervals.
    for band, size in zip(axis.collections, SIZES, strict=True):
        y = band.get_paths()[0].vertices[:, 1]
        assert (y.min(), y.max()) == pytest.approx(
            (large[size].min() * 100 - 1, large[size].max() * 100 + 1)
        )


def test_accuracy_by_strength_draws_tuned_arms_of_the_largest_size_and_the_baselines():
    names = ["accuracy", *(f"accuracy {s}" for s in range(1, 5))]
    rows = []
    for number, (loss, filtered, tuning, size, metric) in enumerate(
        itertools.product(LOSSES, (False, True), ("shared", "tuned"), SIZES, names)
    ):
        value = 0.5 + number / 1000
        drawn = not filtered and tuning == "tuned" and size == 1000 and metric != "accuracy"
        values = (value, value - 0.02, value + 0.01) if drawn else DECOY
        rows.append((loss, filtered, tuning, size, metric, *values))
    metrics = pd.DataFrame(
        rows, columns=["loss", "filtered", "tuning", "size", "metric", "estimate", "low", "high"]
    ).sample(frac=1, random_state=0)
    baselines = pd.DataFrame(
        [
            (name, metric, start + place / 100)
            for name, start in (("length only", 0.4), ("reachable", 0.8))
            for place, metric in enumerate(names)
        ],
        columns=["baseline", "metric", "estimate"],
    )
    human = baselines[baselines["baseline"] == "length only"]
    figure = figures.accuracy_by_strength({"a": (metrics, human), "b": (metrics, baselines)})
    assert titles(figure) == ["a", "b"]
    for axis in figure.axes:
        drawn = intervals(axis)
        assert tuple(drawn) == LOSSES
        for loss, (x, y, ends) in drawn.items():
            part = metrics[
                (metrics["loss"] == loss) & (metrics["tuning"] == "tuned") & ~metrics["filtered"]
                & (metrics["size"] == 1000)
            ].set_index("metric").loc[names[1:]]  # fmt: skip
            np.testing.assert_allclose(x, [1, 2, 3, 4], atol=0.2)
            np.testing.assert_allclose(y, part["estimate"] * 100)
            np.testing.assert_allclose(ends, part[["low", "high"]] * 100)
    assert list(lines(figure.axes[0])) == ["length only"]
    drawn = lines(figure.axes[1])
    np.testing.assert_allclose(drawn["length only"][1], [41, 42, 43, 44])
    np.testing.assert_allclose(drawn["reachable"][1], [81, 82, 83, 84])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [
        "negligibly", "slightly", "better", "significantly",
    ]  # fmt: skip
    assert set(legend(figure.axes[1])) == {*LOSSES, "length only", "reachable"}


def test_a_reliability_diagram_draws_bins_that_hold_pairs():
    rows = []
    for number, (loss, filtered, tuning, place) in enumerate(
        itertools.product(LOSSES, (False, True), ("shared", "tuned"), range(10))
    ):
        share = {3: 0.004, 7: 0.0}.get(place, 0.1)
        accuracy = 0.5 + number / 1000 if not filtered else DECOY[0]
        rows.append((loss, filtered, tuning, place, 0.5 + place / 20, accuracy, share))
    table = pd.DataFrame(
        rows, columns=["loss", "filtered", "tuning", "bin", "confidence", "accuracy", "share"]
    )
    for tuning in ("shared", "tuned"):
        figure = figures.reliability_diagram({"toy": table}, tuning=tuning)
        assert titles(figure) == ["toy"]
        (axis,) = figure.axes
        drawn = lines(axis)
        assert tuple(drawn) == LOSSES
        for loss, (x, y) in drawn.items():
            part = table[
                (table["loss"] == loss) & ~table["filtered"] & (table["tuning"] == tuning)
                & ~table["bin"].isin([3, 7])
            ]  # fmt: skip
            np.testing.assert_allclose(x, part["confidence"])
            np.testing.assert_allclose(y, part["accuracy"])
        (diagonal,) = (line for line in axis.get_lines() if line.get_label() not in LOSSES)
        assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_score_distributions_draw_the_histogram():
    table = pd.DataFrame(
        [
            (loss, place / 10, density + place / 100)
            for density, loss in enumerate(LOSSES)
            for place in range(20)
        ],
        columns=["loss", "score", "density"],
    )
    figure = figures.score_distributions({"a": table, "b": table, "c": table})
    assert titles(figure) == ["a", "b", "c"]
    for axis in figure.axes:
        drawn = lines(axis)
        assert tuple(drawn) == LOSSES
        for loss, (x, y) in drawn.items():
            part = table[table["loss"] == loss]
            np.testing.assert_allclose(x, part["score"])
            np.testing.assert_allclose(y, part["density"])


def test_optimal_differences_against_the_formula():
    figure = figures.optimal_differences([0.0, 2.0])
    left, right = figure.axes
    assert legend(left) == ["margin 0", "margin 2"]
    (x, plain), (_, shifted) = lines(left).values()
    np.testing.assert_allclose(plain, logit(x), atol=1e-9)
    probability, difference = x, shifted
    slope = (1 - probability) * expit(difference + 2) - probability * expit(2 - difference)
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    claimed = [line.get_ydata() for line in right.get_lines()]
    np.testing.assert_allclose(claimed[0], x, atol=1e-9)
    np.testing.assert_allclose(claimed[1], expit(shifted), atol=1e-9)


def test_margin_tables_are_those_of_llama_2():
    table = figures.margin_tables()
    assert list(table.columns) == ["negligibly", "slightly", "better", "significantly"]
    assert table.loc["large"].tolist() == [0, 1, 2, 3]
    assert table.loc["small"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert table.loc["none"].tolist() == [0, 0, 0, 0]


def test_losses_have_colours_and_markers_of_their_own():
    assert set(figures.margin.LOSS_STYLE) == set(LOSSES)
    for values in zip(*figures.margin.LOSS_STYLE.values(), strict=True):
        assert len(set(values)) == 4


def test_every_figure_can_be_drawn(tmp_path):
    figure = figures.gains_by_size({"toy": gains_table()})
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000

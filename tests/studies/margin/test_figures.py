"""The margin's figures draw what their tables hold, and nothing else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from posttrain.evidence import records
from posttrain.evidence.verdicts import ordered, title
from posttrain.studies.margin import figures

pytestmark = pytest.mark.usefixtures("drawn")
RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def recorded():
    return ordered(records.load_all(RESULTS, "margin"))


def curves(axis):
    """Lines that have a label of their own, as (x, y) by label."""
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def forest(axis):
    """Estimate and interval of every point, by colour and row."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        ((x,), (y,)) = line.get_data()
        (segment,) = bars.get_segments()
        found[line.get_color(), round(float(y))] = [x, *segment[:, 0]]
    return found


def recorded_gain(record, tuning, filtered):
    """The large margin's gain in accuracy with the most data, found without the study's code."""
    table = record.tables["gains"]
    row = table[
        (table["loss"] == "large") & (table["tuning"] == tuning) & (table["metric"] == "accuracy")
        & (table["filtered"].astype(bool) == filtered) & (table["size"] == table["size"].max())
    ]  # fmt: skip
    assert len(row) == 1
    return (100 * row[["estimate", "low", "high"]]).iloc[0].tolist()


def test_gain_by_hyperparameter_draws_the_most_data_and_marks_the_best_value_without_margin():
    grid = [0.1, 1.0, 10.0]
    rows = [
        (loss, size, value, 0.7 + (loss == "none") * accuracy, gain, gain - 0.01, gain + 0.02)
        for size, scale in ((100, 7.0), (1000, 1.0))
        for loss in ("none", "small", "large")
        for value, accuracy, gain in zip(
            grid, [0.01, 0.02, 0.0], scale * np.array([0.03, 0.01, -0.02]), strict=True
        )
    ]
    table = pd.DataFrame(
        rows, columns=["loss", "size", "penalty", "accuracy", "estimate", "low", "high"]
    )
    other = table.assign(estimate=table["estimate"] / 2)
    (axis,) = figures.gain_by_hyperparameter({"a": table, "b": other}).axes
    assert axis.get_xscale() == "log"
    drawn = curves(axis)
    assert list(drawn) == ["a", "b"]
    for name, scale in (("a", 1), ("b", 0.5)):
        np.testing.assert_allclose(drawn[name][0], grid)
        np.testing.assert_allclose(drawn[name][1], scale * np.array([3, 1, -2]))
    stars = [line for line in axis.get_lines() if line.get_marker() == "*"]
    assert [line.get_xdata()[0] for line in stars] == [1.0, 1.0]
    assert [line.get_ydata()[0] for line in stars] == pytest.approx([1.0, 0.5])
    (dashed,) = [line for line in axis.get_lines() if line.get_linestyle() == "--"][:1]
    assert set(dashed.get_ydata()) == {0.4}


def test_gains_by_source_are_those_of_the_records_and_of_all_together(recorded):
    (axis,) = figures.gains_by_source(recorded, (0.001, -0.002, 0.004)).axes
    names = [*map(title, recorded), "all sources"]
    assert [text.get_text() for text in axis.get_yticklabels()] == names
    expected = {
        (colour, place): recorded_gain(record, tuning, False)
        for tuning, colour in (("shared", figures.ORANGE), ("tuned", figures.BLUE))
        for place, record in enumerate(recorded)
    }
    expected[figures.BLUE, len(recorded)] = [0.1, -0.2, 0.4]
    drawn = forest(axis)
    assert set(drawn) == set(expected)
    for key, values in expected.items():
        assert drawn[key] == pytest.approx(values)


def test_gains_by_filter_have_a_panel_for_each_tuning(recorded):
    panels = figures.gains_by_filter(recorded).axes
    assert [axis.get_title() for axis in panels] == ["shared setting", "tuned setting"]
    assert panels[0].get_xlim() == panels[1].get_xlim()
    for axis, tuning in zip(panels, ("shared", "tuned"), strict=True):
        drawn = forest(axis)
        assert len(drawn) == 2 * len(recorded)
        for (colour, place), values in drawn.items():
            filtered = colour == figures.BLUE
            assert values == pytest.approx(recorded_gain(recorded[place], tuning, filtered))


def test_optimal_differences_against_the_formula():
    left, right = figures.optimal_differences([0.0, 2.0]).axes
    assert list(curves(left)) == ["margin 0", "margin 2"]
    (probability, plain), (_, difference) = curves(left).values()
    np.testing.assert_allclose(plain, logit(probability), atol=1e-9)
    slope = (1 - probability) * expit(difference + 2) - probability * expit(2 - difference)
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    (_, claimed), (_, overstated) = curves(right).values()
    np.testing.assert_allclose(claimed, probability, atol=1e-9)
    np.testing.assert_allclose(overstated, expit(difference), atol=1e-9)


def test_reliability_leaves_out_bins_of_few_pairs_and_what_was_not_asked_for():
    rows = [
        (loss, filtered, tuning, 0.6 + place / 10, accuracy + shift, share)
        for loss, shift in (("none", 0.0), ("small", 0.1), ("large", 0.2))
        for filtered in (False, True)
        for tuning in ("shared", "tuned")
        for place, (accuracy, share) in enumerate(((0.5, 0.6), (0.6, 0.39), (0.1, 0.01)))
    ]
    table = pd.DataFrame(
        rows, columns=["loss", "filtered", "tuning", "confidence", "accuracy", "share"]
    )
    (axis,) = figures.reliability_diagram({"a": table}, ("none", "large")).axes
    drawn = curves(axis)
    assert list(drawn) == ["none", "large"]
    for loss, shift in (("none", 0.0), ("large", 0.2)):
        np.testing.assert_allclose(drawn[loss], [[0.6, 0.7], [0.5 + shift, 0.6 + shift]])

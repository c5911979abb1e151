"""Figures draw what their tables hold, and nothing else."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from edits_synthetic import synthetic
from tradeoff_synthetic import synthetic as tradeoff_synthetic

from posttrain.data.preferences import PairKind
from posttrain.studies.edits.keys import ArmName as EditArm
from posttrain.studies.edits.outcome import ARMS as EDIT_ARMS
from posttrain.studies.packing.outcome import TESTS
from posttrain.studies.tradeoff.keys import ArmName as TradeoffArm
from posttrain.studies.tradeoff.outcome import ARMS as TRADEOFF_ARMS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.evidence import style
from posttrain.studies.edits import figures as edits_figures
from posttrain.studies.packing import figures as packing_figures
from posttrain.studies.tradeoff import figures as tradeoff_figures
from posttrain.studies.training_run import figures as training_run_figures

DECOY = (9.0, 8.0, 10.0)


@pytest.fixture(autouse=True)
def fresh_style():
    with matplotlib.rc_context():
        style.use_style()
        yield
    plt.close("all")


def lines(axis):
    """Lines that have a label of their own, as (label, x, y)."""
    return {
        line.get_label(): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def matrix_table(arms, shift=0.0, tests=tuple(TESTS)):
    """Every cell of every metric has values of its own."""
    rows = []
    metrics = ("accuracy", "accuracy, chosen first", "accuracy, chosen last", "flips")
    for number, cell in enumerate(itertools.product(arms, tests, metrics)):
        value = 0.3 + number / 400 + shift
        rows.append((*cell, value, value - 0.02, value + 0.01))
    columns = ["trained", "tested", "metric", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


def test_order_effect_draws_both_orders_of_every_arm_in_its_own_layout():
    tables = {
        "simulated": matrix_table(("causal, ranked", "separate", "causal", "causal attention")),
        "human": matrix_table(("causal", "separate"), 0.1),
    }
    own = {
        "separate": "separate",
        "causal attention": "causal attention",
        "causal": "causal",
        "causal, ranked": "causal",
    }
    figure = packing_figures.order_effect(tables)
    assert titles(figure) == ["simulated", "human"]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        cells = table.set_index(["trained", "tested", "metric"]).sort_index()
        expected = {}
        for place, (arm, test) in enumerate(own.items()):
            if arm in set(table["trained"]):
                for order, colour in (("last", "#d55e00"), ("first", "#0072b2")):
                    row = cells.loc[(arm, test, f"accuracy, chosen {order}")] * 100
                    expected[place, colour] = [row["estimate"], row["low"], row["high"]]
        found = {}
        for container in axis.containers:
            line, _, (bars,) = container.lines
            ((x,), (y,)) = line.get_data()
            (segment,) = bars.get_segments()
            found[y, line.get_color()] = [x, *segment[:, 0]]
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert found[key] == pytest.approx(values)
        # A grey line joins the two orders of each arm.
        joined = [line for line in axis.get_lines() if line.get_color() == "#bbbbbb"]
        assert [tuple(line.get_ydata()) for line in joined] == [
            (place, place) for place in dict.fromkeys(place for place, _ in expected)
        ]
        for line in joined:
            place = line.get_ydata()[0]
            ends = [expected[place, colour][0] for colour in ("#d55e00", "#0072b2")]
            assert [*line.get_xdata()] == pytest.approx(ends)
        low, high = axis.get_xlim()
        assert low < 0
        assert high > 100
    shown = figure.axes[0]
    assert [text.get_text() for text in shown.get_yticklabels()] == list(own)
    assert [*shown.get_yticks()] == [0, 1, 2, 3]
    assert shown.yaxis_inverted()
    (box,) = figure.legends
    assert {
        text.get_text(): handle.get_color()
        for text, handle in zip(box.get_texts(), box.legend_handles, strict=True)
    } == {"chosen first": "#0072b2", "chosen last": "#d55e00"}


def speed_tables(shift):
    """Two-piece rows of pairs and triples have values of their own, every other row a decoy."""
    metrics = ("speed-up over separate rows", "speed-up over TRL", "relative tokens per second")
    # Beyond the curves nothing is drawn.
    lengths = {"pairs": 2.67, "pairs@284": 1.0, "triples": 2.67, "triples@9": 7.0, "five": 2.67}
    rows = []
    for number, (workload, method, metric) in enumerate(
        itertools.product(lengths, ("separate", "dense", "two-piece"), metrics)
    ):
        value = 1 + number / 20 + shift
        drawn = method == "two-piece" and metric != "relative tokens per second"
        drawn &= workload not in ("five", "triples@9")
        values = (value, value - 0.2, value + 0.1) if drawn else DECOY
        rows.append((workload, method, metric, *values))
    columns = ["workload", "method", "metric", "estimate", "low", "high"]
    workloads = pd.DataFrame(
        [(name, 10 * ratio, 10.0) for name, ratio in lengths.items()],
        columns=["workload", "prompt tokens", "response tokens"],
    )
    return {"speed": pd.DataFrame(rows, columns=columns), "workloads": workloads}


def test_savings_draw_the_closed_form_and_what_was_measured():
    grid = np.linspace(0.5, 6, 12)
    closed = pd.DataFrame(
        [
            (count, ratio, count * ratio, count * ratio + 100)
            for count in (2, 3, 4)
            for ratio in grid
        ],
        columns=["K", "P/R", "separate rows", "pair rows"],
    )
    tables = {"CPU": speed_tables(0.0), "GPU": speed_tables(2.0)}
    figure = packing_figures.savings(closed, tables)
    assert titles(figure) == ["over our separate rows", "over TRL's pair rows"]
    metrics = ("speed-up over separate rows", "speed-up over TRL")
    for axis, metric, offset in zip(figure.axes, metrics, (0, 100), strict=True):
        drawn = lines(axis)
        assert list(drawn) == ["2 responses", "3 responses"]
        for count, (x, y) in zip((2, 3), drawn.values(), strict=True):
            np.testing.assert_allclose(x, grid)
            np.testing.assert_allclose(y, count * grid + offset)
        expected = [
            (found["speed"].set_index(["workload", "method", "metric"]), names)
            for names in (["pairs", "pairs@284"], ["triples"])
            for found in tables.values()
        ]
        assert len(axis.containers) == 4
        for container, (table, names) in zip(axis.containers, expected, strict=True):
            line, _, (bars,) = container.lines
            x, y = (values.astype(float) for values in line.get_data())
            part = table.loc[[(name, "two-piece", metric) for name in names]]
            np.testing.assert_allclose(x, [2.67, 1.0][: len(names)])
            np.testing.assert_allclose(y, part["estimate"])
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, part[["low", "high"]])
        # Colours say how many responses, markers which record.
        shown = [container.lines[0] for container in axis.containers]
        curves = [line.get_color() for line in axis.get_lines() if line.get_label() in drawn]
        assert [line.get_color() for line in shown] == [curves[0]] * 2 + [curves[1]] * 2
        assert shown[0].get_marker() == shown[2].get_marker() != shown[1].get_marker()
        assert curves[0] != curves[1]
    assert legend(figure.axes[0]) == ["2 responses", "3 responses"]


FEW = (EditArm.IGNORE, "all pairs", "one more pair", "two more pairs")


def growing(record, table):
    """The table with another number in every row, and an interval of a point on either side."""
    values = 1e-3 * np.arange(len(record.tables[table]))
    return record.tables[table].assign(estimate=values, low=values - 0.01, high=values + 0.01)


def test_edit_gains_draw_every_arm_with_the_most_data_tuned():
    whole, few = synthetic((0, 0, 0)), synthetic((0, 0, 0), arms=FEW)
    tables = {"simulator (full)": growing(whole, "gains"), "seeda (heads)": growing(few, "gains")}
    figure = edits_figures.edit_gains(tables)
    assert titles(figure) == ["simulator\n(full)", "seeda\n(heads)"]
    arms = [arm for arm in EDIT_ARMS if arm != EditArm.IGNORE]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == arms
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        part = table[
            (table["metric"] == PairKind.RATED) & (table["tuning"] == "tuned")
            & (table["share"] == 1.0) & (table["size"] == 1000)
        ].set_index("arm")  # fmt: skip
        drawn = {}
        for container in axis.containers:
            line, _, (bars,) = container.lines
            (x,), (y,) = line.get_data()
            drawn[arms[int(y)]] = (x, line.get_color(), bars.get_segments()[0][:, 0])
        assert set(drawn) == set(part.index)
        for arm, (x, colour, ends) in drawn.items():
            assert x == pytest.approx(part.loc[arm, "estimate"] * 100)
            np.testing.assert_allclose(ends, [x - 1, x + 1])
            assert (colour == "#0072b2") == EDIT_ARMS[arm].uses_edits


def tradeoff_tables(name):
    """One table of a record with gold and of one without, in the order that readers see."""
    few = tuple(arm for arm in TRADEOFF_ARMS if arm != TradeoffArm.AUXILIARY)
    return {
        "simulator": tradeoff_synthetic().tables[name],
        "human": tradeoff_synthetic(source="human", arms=few).tables[name],
    }


def one_row(table, **where):
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table.iloc[0]


def test_accuracy_front_puts_every_arm_at_its_two_accuracies():
    tables = tradeoff_tables("metrics")
    figure = tradeoff_figures.accuracy_front(tables)
    assert titles(figure) == ["simulator", "human"]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        arms = [arm for arm in TRADEOFF_ARMS if (table["arm"] == arm).any()]
        where = {"tuning": "tuned", "metric": "accuracy"}
        points = {
            arm: [one_row(table, arm=arm, test=test, **where) for test in ("helpfulness", "safety")]
            for arm in arms
        }
        assert len(axis.containers) == len(arms)
        for container, (x, y) in zip(axis.containers, points.values(), strict=True):
            line, _, (across, up) = container.lines
            assert line.get_xdata() == pytest.approx([100 * x["estimate"]])
            assert line.get_ydata() == pytest.approx([100 * y["estimate"]])
            (ends,) = across.get_segments()
            assert ends[:, 0] == pytest.approx([100 * x["low"], 100 * x["high"]])
            (ends,) = up.get_segments()
            assert ends[:, 1] == pytest.approx([100 * y["low"], 100 * y["high"]])
        # A curve through models of one size by their share of safety, but for the auxiliary loss.
        curve = [arm for arm in arms if arm not in (TradeoffArm.JOINT, TradeoffArm.AUXILIARY)]
        plain = [line for line in axis.get_lines() if len(line.get_xdata()) == len(curve)]
        assert len(plain) == 1
        expected = [100 * points[arm][0]["estimate"] for arm in curve]
        np.testing.assert_allclose(plain[0].get_xdata(), expected)
        # The corner of what both specialists reach.
        dashed = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
        assert dashed[0].get_xdata()[0] == pytest.approx(
            100 * points[TradeoffArm.HELPFUL][0]["estimate"]
        )
        assert dashed[1].get_ydata()[0] == pytest.approx(
            100 * points[TradeoffArm.SAFE][1]["estimate"]
        )
        names = [text.get_text() for text in axis.texts]
        assert names == [f"{100 * TRADEOFF_ARMS[arm].safety:.0f}" for arm in curve]


HISTORY = pd.DataFrame(
    {
        "step": [10, 20, 30],
        "loss": [0.7, 0.5, 0.4],
        "accuracy": [0.5, 0.75, 0.8],
        "score_mean": [0.0, -1.0, 0.5],
        "score_std": [0.1, 1.0, 2.0],
    }
)
JUDGED = pd.DataFrame(
    [
        ("model", "accuracy", 0.78, 0.70, 0.83),
        ("model", "accuracy 1", np.nan, np.nan, np.nan),
        ("model", "accuracy 3", 0.81, 0.76, 0.86),
        ("model", "log-likelihood", -0.5, -0.6, -0.4),
        ("length", "accuracy", 0.70, 0.65, 0.74),
        ("length", "accuracy 3", 0.71, 0.67, 0.76),
    ],
    columns=["scorer", "metric", "estimate", "low", "high"],
)


def test_learning_curve_shows_training_and_what_it_came_to():
    loss, accuracy, scores = training_run_figures.learning_curve(HISTORY, JUDGED, "model").axes
    assert loss.get_lines()[0].get_ydata().tolist() == [0.7, 0.5, 0.4]
    drawn = lines(accuracy)
    assert drawn["training"][1] == pytest.approx([50, 75, 80])
    assert set(drawn["held out, at the end"][1]) == {78.0}
    assert lines(scores)["mean"][1].tolist() == [0.0, -1.0, 0.5]
    band = scores.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-2.0, 2.5)

"""Figures draw what their tables hold, and nothing else."""

import itertools

import numpy as np
import pandas as pd
import pytest
from tradeoff_synthetic import synthetic as tradeoff_synthetic

from posttrain.evidence.records import Record
from posttrain.studies.packing import figures as packing_figures
from posttrain.studies.packing.outcome import TESTS
from posttrain.studies.tradeoff import figures as tradeoff_figures
from posttrain.studies.tradeoff.keys import ArmName as TradeoffArm
from posttrain.studies.tradeoff.outcome import ARMS as TRADEOFF_ARMS
from posttrain.studies.tradeoff.report import WAYS

pytestmark = pytest.mark.usefixtures("drawn")


def intervals(axis):
    """Points and interval ends of every errorbar line, by label."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()]).reshape(-1, 2)
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        found[container.get_label()] = (x, y, ends)
    return found


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
    own = {
        "separate": "separate",
        "causal attention": "causal attention",
        "causal, ranked": "causal",
    }
    table = matrix_table(own)
    figure = packing_figures.order_effect(table, list(own))
    cells = table.set_index(["trained", "tested", "metric"]).sort_index()
    found = {}
    for container in figure.axes[0].containers:
        line, _, (bars,) = container.lines
        ((x,), (y,)) = line.get_data()
        (segment,) = bars.get_segments()
        found[y, line.get_marker()] = [x, *segment[:, 0]]
    assert len(found) == 6
    for place, (arm, test) in enumerate(own.items()):
        for order, marker in (("first", ">"), ("last", "<")):
            row = cells.loc[(arm, test, f"accuracy, chosen {order}")] * 100
            expected = [row["estimate"], row["low"], row["high"]]
            assert found[place, marker] == pytest.approx(expected)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(own)


def speed_record(profile, kinds):
    """Speeds and tokens of workloads of these kinds, each a number of its own."""
    rows = []
    for place, workload in enumerate(kinds):
        for number, method in enumerate(("trl", "separate", "two-piece", "merged")):
            rows.append((workload, method, "speed-up over TRL", 1 + number + place / 10))
            rows.append((workload, method, "times fewer tokens than TRL", 2 + number + place / 10))
    speed = pd.DataFrame(rows, columns=["workload", "method", "metric", "estimate"])
    workloads = pd.DataFrame({"workload": list(kinds), "kind": list(kinds.values())})
    return Record("throughput", "x", profile, {}, {}, {"speed": speed, "workloads": workloads})


def test_speeds_draw_every_way_and_bars_of_tokens():
    random, people = "random tokens", "data set"
    given = [
        speed_record("gpu", {"pairs": random, "many": random}),
        speed_record("real", {"seeda": people}),
    ]
    (axis,) = packing_figures.speeds(given).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["pairs, GPU", "seeda, CPU"]
    found = [
        (line.get_label(), line.get_xdata()[0], line.get_ydata()[0])
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    ]
    # Pairs with prompts of their own merge to nothing new.
    apart = [("separate rows", 2, 0), ("exact row, two pieces", 3, 0)]
    merged = [
        ("separate rows", 2, 1),
        ("exact row, two pieces", 3, 1),
        ("exact row a prompt", 4, 1),
    ]
    assert found == [*apart, *merged]
    assert [bar.get_x() + bar.get_width() for bar in axis.patches] == pytest.approx([5, 5])


def test_who_sees_whom_has_a_panel_for_each_reading():
    figure = packing_figures.who_sees_whom()
    assert len(figure.axes) == 3
    # One square for each pair of tokens that is seen, hatched where it is another response's.
    counts = [len(axis.patches) for axis in figure.axes]
    hatched = [sum(bool(patch.get_hatch()) for patch in axis.patches) for axis in figure.axes]
    assert counts == [46, 46, 66]
    assert hatched == [0, 0, 20]
    assert [text.get_text() for text in figure.axes[2].get_yticklabels()][-1] == "10*"


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


def test_accuracy_front_puts_every_model_at_its_two_accuracies():
    tables = tradeoff_tables("metrics")
    figure = tradeoff_figures.accuracy_front(tables)
    assert titles(figure) == ["simulator", "human"]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        arms = [arm for arm in TRADEOFF_ARMS if arm != TradeoffArm.AUXILIARY]
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
        # A curve through models of one size by their share of safety.
        curve = [arm for arm in arms if arm != TradeoffArm.JOINT]
        (plain,) = [line for line in axis.get_lines() if len(line.get_xdata()) == len(curve)]
        expected = [100 * points[arm][0]["estimate"] for arm in curve]
        np.testing.assert_allclose(plain.get_xdata(), expected)
        # What both specialists reach together.
        (star,) = [line for line in axis.get_lines() if line.get_marker() == "*"]
        own = points[TradeoffArm.HELPFUL][0], points[TradeoffArm.SAFE][1]
        assert [star.get_xdata()[0], star.get_ydata()[0]] == pytest.approx(
            [100 * row["estimate"] for row in own]
        )
        names = [text.get_text() for text in axis.texts]
        shares = [f"{100 * TRADEOFF_ARMS[arm].safety:.0f}" for arm in curve]
        assert names == [*shares, "joint", "two"]


def test_errors_by_way_have_a_row_for_each_way_and_a_point_for_each_kind():
    tables = tradeoff_tables("choices")
    figure = tradeoff_figures.errors_by_way(tables)
    assert titles(figure) == ["simulator", "human"]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        kinds = ("answers unsafe", "refuses lookalike")
        expected = itertools.product(kinds, enumerate(WAYS.values()))
        assert len(axis.containers) == 2 * len(WAYS)
        for container, (metric, (place, way)) in zip(axis.containers, expected, strict=True):
            line, _, (bars,) = container.lines
            values = 100 * np.array(way.read(table, metric))
            assert line.get_xdata() == pytest.approx(values[:1])
            assert round(line.get_ydata()[0]) == place
            assert bars.get_segments()[0][:, 0] == pytest.approx(values[1:])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(WAYS)


def test_refusals_by_mix_order_models_by_their_share_of_safety():
    tables = tradeoff_tables("conflicts")
    figure = tradeoff_figures.refusals_by_mix(tables)
    assert titles(figure) == ["simulator", "human"]
    arms = [a for a in TRADEOFF_ARMS if a not in (TradeoffArm.JOINT, TradeoffArm.AUXILIARY)]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        for (x, y, _), kind in zip(intervals(axis).values(), ("unsafe", "lookalike"), strict=True):
            np.testing.assert_allclose(x, [100 * TRADEOFF_ARMS[arm].safety for arm in arms])
            rows = [one_row(table, arm=arm, kind=kind)["estimate"] for arm in arms]
            np.testing.assert_allclose(y, 100 * np.array(rows))

"""Figures draw what their tables hold, and nothing else."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from edits_synthetic import synthetic
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.special import expit, logit
from tradeoff_synthetic import synthetic as tradeoff_synthetic

from posttrain.data.preferences import PairKind
from posttrain.studies.edits.keys import ArmName as EditArm
from posttrain.studies.edits.outcome import ARMS as EDIT_ARMS
from posttrain.studies.packing import pictures
from posttrain.studies.packing.outcome import ARMS, TESTS
from posttrain.studies.packing.pictures import Picture
from posttrain.studies.tradeoff.keys import ArmName as TradeoffArm
from posttrain.studies.tradeoff.outcome import ARMS as TRADEOFF_ARMS

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.evidence import style
from posttrain.studies.edits import figures as edits_figures
from posttrain.studies.margin import figures as margin_figures
from posttrain.studies.packing import figures as packing_figures
from posttrain.studies.tradeoff import figures as tradeoff_figures
from posttrain.studies.training_run import figures as training_run_figures

LOSSES = ("none", "small", "large", "scaled")
SIZES = (100, 1000)
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
    figure = margin_figures.gains_by_size(tables)
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


def test_more_than_three_sources_make_a_figure_wider():
    def width(count):
        tables = {f"source {number}": gains_table() for number in range(count)}
        return margin_figures.gains_by_size(tables).get_figwidth()

    assert width(1) == width(3) == 8
    assert width(6) == pytest.approx(16)


def test_gains_by_size_of_another_metric():
    table = gains_table()
    table.loc[table["metric"] == "ties", ["estimate", "low", "high"]] = 0.07, 0.06, 0.08
    figure = margin_figures.gains_by_size({"only": table}, metric="ties")
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
    figure = margin_figures.gain_by_hyperparameter({"toy": table, "again": table})
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
    figure = margin_figures.accuracy_by_strength({"a": (metrics, human), "b": (metrics, baselines)})
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
        figure = margin_figures.reliability_diagram({"toy": table}, tuning=tuning)
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
    figure = margin_figures.score_distributions({"a": table, "b": table, "c": table})
    assert titles(figure) == ["a", "b", "c"]
    for axis in figure.axes:
        drawn = lines(axis)
        assert tuple(drawn) == LOSSES
        for loss, (x, y) in drawn.items():
            part = table[table["loss"] == loss]
            np.testing.assert_allclose(x, part["score"])
            np.testing.assert_allclose(y, part["density"])


def test_optimal_differences_against_the_formula():
    figure = margin_figures.optimal_differences([0.0, 2.0])
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
    table = margin_figures.margin_tables()
    assert list(table.columns) == ["negligibly", "slightly", "better", "significantly"]
    assert table.loc["large"].tolist() == [0, 1, 2, 3]
    assert table.loc["small"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert table.loc["none"].tolist() == [0, 0, 0, 0]


def test_losses_have_colours_and_markers_of_their_own():
    assert set(margin_figures.LOSS_STYLE) == set(LOSSES)
    for values in zip(*margin_figures.LOSS_STYLE.values(), strict=True):
        assert len(set(values)) == 4


def picture(title, seen, *, boundaries=(), scored=()):
    count = len(seen)
    labels = [f"{title[0]}{place}" for place in range(count)]
    positions = [(place * 7) % 5 for place in range(count)]
    return Picture(title, labels, positions, np.array(seen), list(boundaries), list(scored))


@pytest.fixture
def four_pictures():
    random = np.random.default_rng(0)
    return [
        picture("first", random.integers(0, 4, (5, 5)), boundaries=[2, 4], scored=[3]),
        picture("second", random.integers(0, 4, (3, 3)), boundaries=[1], scored=[0, 2]),
        picture("third", random.integers(0, 4, (4, 4)), scored=[3]),
        # Only one kind: its colour must not depend on the others.
        picture("all hidden", np.zeros((2, 2), dtype=int)),
    ]


def test_masks_draw_who_sees_whom(four_pictures):
    figure = packing_figures.masks(four_pictures)
    assert titles(figure) == ["first", "second", "third", "all hidden"]
    colours = {
        pictures.HIDDEN: "#ffffff",
        pictures.PROMPT: "#9ecae1",
        pictures.ITSELF: "#08519c",
        pictures.OTHER: "#d55e00",
    }
    for axis, shown in zip(figure.axes, four_pictures, strict=True):
        (image,) = axis.get_images()
        assert (image.get_array() == shown.seen).all()
        drawn = image.to_rgba(image.get_array())
        for place in np.ndindex(*shown.seen.shape):
            assert to_hex(drawn[place]) == colours[shown.seen[place]]
        count = len(shown.labels)
        assert [text.get_text() for text in axis.get_xticklabels()] == shown.labels
        rows = axis.get_yticklabels()
        assert [text.get_text().split() for text in rows] == [
            [label, str(place)] for label, place in zip(shown.labels, shown.positions, strict=True)
        ]
        assert [*axis.get_xticks()] == [*axis.get_yticks()] == list(range(count))
        bold = [place for place, text in enumerate(rows) if text.get_fontweight() == "bold"]
        assert bold == shown.scored
        across = [line.get_ydata() for line in axis.get_lines() if [*line.get_xdata()] == [0, 1]]
        down = [line.get_xdata() for line in axis.get_lines() if [*line.get_ydata()] == [0, 1]]
        assert len(across) + len(down) == len(axis.get_lines())
        for found in (across, down):
            assert [[*ends] for ends in found] == [[edge - 0.5] * 2 for edge in shown.boundaries]
    (box,) = figure.legends
    assert {
        text.get_text(): to_hex(patch.get_facecolor())
        for text, patch in zip(box.get_texts(), box.get_patches(), strict=True)
    } == {
        "hidden": colours[pictures.HIDDEN],
        "prompt": colours[pictures.PROMPT],
        "itself": colours[pictures.ITSELF],
        "another response": colours[pictures.OTHER],
    }


def distances_table(slots, shift=0.0):
    """Every row by slot has values of its own, every other row a decoy."""
    rows = []
    layouts = ("causal attention", "running positions", "causal", "separate")
    for number, (layout, slot) in enumerate(itertools.product(layouts, slots)):
        value = number / 10 + shift
        values = DECOY if layout == "separate" else (value, value - 0.05, value + 0.02)
        rows.append((layout, "slot", str(slot), *values))
        rows.append((layout, "preceding tokens", "1-16", *DECOY))
    return pd.DataFrame(rows, columns=["layout", "by", "value", "estimate", "low", "high"])


def test_distance_by_slot_draws_every_layout_that_is_not_exact():
    tables = {"simulated": distances_table((1, 2, 3)), "human": distances_table((1, 2), 0.5)}
    figure = packing_figures.distance_by_slot(tables)
    assert titles(figure) == ["simulated", "human"]
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        drawn = intervals(axis)
        assert list(drawn) == ["causal attention", "running positions", "causal"]
        for layout, (x, y, ends) in drawn.items():
            part = table[(table["layout"] == layout) & (table["by"] == "slot")]
            np.testing.assert_allclose(x, part["value"].astype(int), atol=0.1)
            np.testing.assert_allclose(y, part["estimate"])
            np.testing.assert_allclose(ends, part[["low", "high"]])
        assert [*axis.get_xticks()] == sorted(
            {int(slot) for slot in table["value"] if slot in "123"}
        )
    (box,) = figure.legends
    shown = [text.get_text() for text in box.get_texts()]
    assert shown == ["causal attention", "running positions", "causal"]
    assert figure.get_supxlabel() == "slot of the response in the row"
    colours = [container.lines[0].get_color() for container in figure.axes[0].containers]
    assert len(set(colours)) == 3
    assert colours == [container.lines[0].get_color() for container in figure.axes[1].containers]


def matrix_table(arms, shift=0.0, tests=tuple(TESTS)):
    """Every cell of every metric has values of its own."""
    rows = []
    metrics = ("accuracy", "accuracy, chosen first", "accuracy, chosen last", "flips")
    for number, cell in enumerate(itertools.product(arms, tests, metrics)):
        value = 0.3 + number / 400 + shift
        rows.append((*cell, value, value - 0.02, value + 0.01))
    columns = ["trained", "tested", "metric", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


@pytest.mark.parametrize(
    ("arms", "tests", "own"),
    [
        (("causal", "separate", "exact"), tuple(TESTS), [0, 0, 3]),
        (tuple(ARMS), tuple(TESTS), [0, 0, 1, 2, 3, 1, 2, 3]),
        (("separate", "causal, ranked"), ("separate", "causal"), [0, 1]),
    ],
)
def test_the_accuracy_matrix_frames_each_arms_own_layout(arms, tests, own):
    table = matrix_table(arms, tests=tests)
    figure = packing_figures.accuracy_matrix(table)
    (axis,) = figure.axes
    ordered = [arm for arm in ARMS if arm in arms]
    assert [text.get_text() for text in axis.get_yticklabels()] == ordered
    assert [text.get_text().replace("\n", " ") for text in axis.get_xticklabels()] == list(tests)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("tested", "trained")
    found = table[table["metric"] == "accuracy"].set_index(["trained", "tested"])["estimate"]
    expected = np.array([[found[arm, test] * 100 for test in tests] for arm in ordered])
    values = np.asarray(axis.collections[0].get_array()).reshape(expected.shape)
    np.testing.assert_allclose(values, expected)
    written = {text.get_position(): text.get_text() for text in axis.texts}
    for row, column in np.ndindex(*expected.shape):
        assert written[column + 0.5, row + 0.5] == f"{expected[row, column]:.1f}"
    frames = [patch.get_xy() for patch in axis.patches]
    assert frames == [(column, row) for row, column in enumerate(own)]
    assert axis.yaxis_inverted()


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


def speed_table(shift):
    """Rows of an exact row's speed have values of their own, every other row a decoy."""
    metrics = ("speed-up over separate rows", "speed-up over TRL", "relative tokens per second")
    rows = []
    for number, (ratio, count, method, metric) in enumerate(
        itertools.product(
            (1.0, 2.67), (2, 3), ("separate rows", "exact row", "exact, shared rows"), metrics
        )
    ):
        value = 1 + number / 20 + shift
        drawn = method == "exact row" and metric != "relative tokens per second"
        values = (value, value - 0.2, value + 0.1) if drawn else DECOY
        rows.append((ratio, count, method, metric, *values))
    columns = ["ratio", "responses", "method", "metric", "estimate", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


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
    tables = {"CPU": speed_table(0.0), "GPU": speed_table(2.0)}
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
            table[
                (table["responses"] == count)
                & (table["method"] == "exact row")
                & (table["metric"] == metric)
            ]
            for count in (2, 3)
            for table in tables.values()
        ]
        assert len(axis.containers) == 4
        for container, part in zip(axis.containers, expected, strict=True):
            line, _, (bars,) = container.lines
            x, y = (values.astype(float) for values in line.get_data())
            np.testing.assert_allclose(x, part["ratio"])
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


def test_edit_gains_by_size_draw_edits_and_ordinary_pairs():
    tables = {"toy": growing(synthetic((0, 0, 0)), "gains")}
    figure = edits_figures.edit_gains_by_size(tables)
    part = tables["toy"]
    part = part[
        (part["metric"] == PairKind.RATED) & (part["tuning"] == "tuned") & (part["share"] == 1.0)
    ]
    (axis,) = figure.axes
    shown = {container.get_label(): container.lines[0] for container in axis.containers}
    assert list(shown) == ["all pairs", "Plackett-Luce", "one more pair", "two more pairs"]
    for arm, line in shown.items():
        expected = part[part["arm"] == arm]["estimate"] * 100
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert len({line.get_color() for line in shown.values()}) == 4


def test_accuracy_by_cost_stands_over_decisions_and_tokens():
    record = synthetic((0, 0, 0), arms=FEW)
    metrics = growing(record, "metrics")
    figure = edits_figures.accuracy_by_cost(metrics, record.tables["costs"])
    costs = record.tables["costs"]
    for axis, column in zip(figure.axes, ("decisions", "tokens"), strict=True):
        shown = {c.get_label(): c.lines[0] for c in axis.containers if len(c.lines[0].get_xdata())}
        assert list(shown) == list(FEW)
        for arm, line in shown.items():
            taken = costs[(costs["arm"] == arm) & (costs["share"] == 1.0)][column]
            np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), taken)
            part = metrics[
                (metrics["arm"] == arm) & (metrics["metric"] == PairKind.RATED)
                & (metrics["tuning"] == "tuned") & (metrics["share"] == 1.0)
            ]  # fmt: skip
            np.testing.assert_allclose(line.get_ydata(), part["estimate"] * 100)


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


def test_choices_draw_models_and_rules_by_gold_or_else_by_errors():
    tables = tradeoff_tables("choices")
    figure = tradeoff_figures.choices(tables)
    measures = (("helpfulness", "safety", 1), ("refuses lookalike", "answers unsafe", 100))
    for axis, table, (x, y, scale) in zip(figure.axes, tables.values(), measures, strict=True):
        drawn = lines(axis)
        systems = {
            "random choice": [("nobody", "random", None)],
            "two models, sum": [("specialists", "sum", w) for w in (0.5, 1.0, 2.0, 4.0)],
            "two models, gate": [("specialists", "gate", t) for t in (0.15, 0.5)],
            "two models, switch": [("specialists", "switch", t) for t in (0.15, 0.5)],
        }
        if scale == 1:
            systems["best possible"] = [("nobody", "best possible", r) for r in (1.0, 2.0, 4.0)]
        singles = {label for label in drawn if label.startswith("one model")}
        assert set(drawn) == {*systems, *singles}
        assert len(singles) == 4
        for label, points in systems.items():
            for place, metric in enumerate((x, y)):
                rows = [
                    one_row(
                        table, team=team, system=system, metric=metric,
                        **({} if parameter is None else {"parameter": parameter}),
                    )
                    for team, system, parameter in points
                ]  # fmt: skip
                expected = [scale * row["estimate"] for row in rows]
                np.testing.assert_allclose(drawn[label][place], expected)
        arms = table[table["team"] == "one model"]["system"].unique()
        for place, metric in enumerate((x, y)):
            expected = [
                scale * one_row(table, team="one model", system=arm, metric=metric)["estimate"]
                for arm in arms
            ]
            shown = [value for label in singles for value in drawn[label][place]]
            np.testing.assert_allclose(sorted(shown), sorted(expected))
        safe = one_row(table, team="one model", system=TradeoffArm.SAFE, metric=x)["estimate"]
        assert drawn["one model, safety only"][0] == pytest.approx([scale * safe])
    assert figure.axes[0].get_xlabel() == "mean gold helpfulness of the choice"
    assert figure.axes[1].get_xlabel() == "harmless requests refused (%)"
    assert figure.axes[1].get_ylabel() == "unsafe requests answered (%)"
    mixes = tradeoff_figures.choices(tables, team="Llama 2's mixes")
    shown = lines(mixes.axes[0])["two models, sum"][0]
    where = {"team": "Llama 2's mixes", "system": "sum", "metric": "helpfulness"}
    assert shown[0] == one_row(tables["simulator"], parameter=0.5, **where)["estimate"]


def test_refusals_by_mix_stand_over_the_share_of_safety():
    tables = tradeoff_tables("conflicts")
    shuffled = {name: table.sample(frac=1, random_state=0) for name, table in tables.items()}
    figure = tradeoff_figures.refusals_by_mix(shuffled)
    shares = {
        arm: 100 * one.safety
        for arm, one in TRADEOFF_ARMS.items()
        if one.scale == 1 and not one.auxiliary
    }
    for axis, table in zip(figure.axes, tables.values(), strict=True):
        drawn = intervals(axis)
        assert len(drawn) == 2
        for (label, (x, y, ends)), kind in zip(drawn.items(), ("unsafe", "lookalike"), strict=True):
            assert ("refusal above" in label) == (kind == "unsafe")
            np.testing.assert_allclose(x, sorted(shares.values()))
            rows = [one_row(table, arm=arm, kind=kind) for arm in sorted(shares, key=shares.get)]
            np.testing.assert_allclose(y, [100 * row["estimate"] for row in rows])
            np.testing.assert_allclose(ends, [[100 * r["low"], 100 * r["high"]] for r in rows])


def test_every_figure_can_be_drawn(tmp_path, four_pictures):
    for number, figure in enumerate(
        (
            margin_figures.gains_by_size({"toy": gains_table()}),
            packing_figures.masks(four_pictures),
            edits_figures.edit_gains({"toy": synthetic((0.1, 0.0, 0.2)).tables["gains"]}),
            packing_figures.order_effect({"toy": matrix_table(("separate", "causal"))}),
            tradeoff_figures.accuracy_front(tradeoff_tables("metrics")),
            tradeoff_figures.choices(tradeoff_tables("choices")),
            tradeoff_figures.refusals_by_mix(tradeoff_tables("conflicts")),
        )
    ):
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000


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


def test_accuracy_by_scorer_draws_every_interval_that_there_is():
    figure = training_run_figures.accuracy_by_scorer(JUDGED)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["all", "strength 3"]
    drawn = intervals(axis)
    assert set(drawn) == {"model", "length"}
    _, value, ends = drawn["model"]
    assert value == pytest.approx([78, 81])
    assert ends == pytest.approx(np.array([[70, 83], [76, 86]]))
    assert drawn["model"][0][0] < drawn["length"][0][0]

"""The margin's claims: each reads its own cell with its own sign, against its own threshold."""

import itertools

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.margin.claims import CLAIMS, HALF_A_POINT, estimate, largest_size

SIZES = (300, 1000)
BY_KEY = {claim.key: claim for claim in CLAIMS}
METRICS = (
    "accuracy", "accuracy 1", "accuracy 4", "log-likelihood", "calibration error", "bimodality",
)  # fmt: skip

#: Where each claim looks (at the largest size), and the sign that speaks for it.
CELLS = {
    "rises-with-strength": ("steps", "none", "accuracy 4 - 1", "tuned", 1, 0.05),
    "large-margin-helps": ("gains", "large", "accuracy", "tuned", 1, 0.004),
    "small-margin-helps": ("gains", "small", "accuracy", "tuned", 1, 0.005),
    "gains-where-decided": ("steps", "large", "gain 4 - 1", "tuned", 1, 0.018),
    "bimodal": ("gains", "large", "bimodality", "tuned", 1, 0.02),
    "margin-diminishing": ("trends", "large", "accuracy", "tuned", -1, None),
    "harmless-to-drop": ("gains", "large", "accuracy", "tuned", -1, 0.0),
    "costs-likelihood": ("gains", "large", "log-likelihood", "tuned", -1, 0.005),
    "scaled-helps": ("gains", "scaled", "accuracy", "tuned", 1, 0.012),
}


def synthetic(everywhere, *, cell=None, planted=None):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {}
    for name, metrics in (
        ("metrics", METRICS),
        ("gains", METRICS),
        ("steps", ("accuracy 4 - 1", "gain 4 - 1")),
        ("trends", METRICS[:3]),
    ):
        rows = []
        sizes = (None,) if name == "trends" else SIZES
        for loss, filtered, tuning, size, metric in itertools.product(
            ("none", "small", "large", "scaled"), (False, True), ("shared", "tuned"), sizes, metrics
        ):
            here = (name, loss, metric, tuning) == cell and not filtered and size in (None, 1000)
            rows.append((loss, filtered, tuning, size, metric, *(planted if here else everywhere)))
        table = pd.DataFrame(
            rows,
            columns=["loss", "filtered", "tuning", "size", "metric", "estimate", "low", "high"],
        )
        tables[name] = table.drop(columns="size") if name == "trends" else table
    return Record("margin", "toy", "quick", {}, {}, tables)


def scaled(sign, values=(0.2, 0.1, 0.4)):
    estimate, *ends = (sign * value for value in values)
    return estimate, *sorted(ends)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"margin"}


def test_what_the_book_adds_and_what_is_no_share_are_marked():
    assert {key for key, claim in BY_KEY.items() if claim.ours} == {
        "harmless-to-drop",
        "costs-likelihood",
    }
    assert {key: claim.unit for key, claim in BY_KEY.items()} == dict.fromkeys(BY_KEY, "points") | {
        "bimodal": "plain",
        "costs-likelihood": "plain",
    }


@pytest.mark.parametrize("key", [key for key in CELLS if key != "margin-diminishing"])
def test_the_planted_cell_alone_decides_and_its_sign_turns_the_verdict(key):
    *cell, sign, _ = CELLS[key]
    for direction, status in ((sign, "supported"), (-sign, "not supported")):
        # All other cells say the opposite.
        record = synthetic(scaled(-direction), cell=tuple(cell), planted=scaled(direction))
        found, (item,) = BY_KEY[key].judge([record])
        assert (found, item.status) == (status, status)
        assert item.record == "margin-toy"
    wide = synthetic(scaled(1), cell=tuple(cell), planted=(0.0, -0.3, 0.3))
    assert BY_KEY[key].judge([wide])[0] == "inconclusive"


def test_what_dropping_the_margin_costs_is_shown_as_measured():
    *cell, _, _ = CELLS["harmless-to-drop"]
    record = synthetic(scaled(1), cell=tuple(cell), planted=(0.002, -0.001, 0.004))
    item = BY_KEY["harmless-to-drop"].test(record)
    assert item.shown == (0.002, -0.001, 0.004)
    assert (item.low, item.status) == (pytest.approx(0.001), "supported")


@pytest.mark.parametrize("key", CELLS)
def test_the_evidence_is_the_interval_of_the_cell_positive_in_the_claimed_direction(key):
    *cell, sign, smallest = CELLS[key]
    record = synthetic((9.0, 8.0, 10.0), cell=tuple(cell), planted=(0.2, 0.1, 0.4))
    item = BY_KEY[key].test(record)
    expected = scaled(sign)
    if key == "harmless-to-drop":
        expected = (0.005 - 0.2, 0.005 - 0.4, 0.005 - 0.1)
    assert (item.estimate, item.low, item.high) == pytest.approx(expected)
    assert smallest is None or item.smallest == smallest


@pytest.mark.parametrize(
    ("start", "fall", "status"),
    [
        # From 300 to 1,000 pairs is half a decade: half of 0.2 is lost at 0.19 per decade.
        ((0.2, 0.1, 0.4), (0.30, 0.1, 0.5), "supported"),
        ((0.2, 0.1, 0.4), (0.05, -0.1, 0.18), "not supported"),
        ((0.2, 0.1, 0.4), (0.05, -0.1, 0.20), "inconclusive"),
        # Without a gain at the start, nothing can diminish.
        ((0.2, -0.1, 0.4), (-0.30, -0.5, -0.1), "inconclusive"),
        ((-0.2, -0.4, -0.1), (-0.30, -0.5, -0.1), "inconclusive"),
    ],
)
def test_only_a_gain_that_exists_can_diminish(start, fall, status):
    value, low, high = fall
    cell = CELLS["margin-diminishing"][:4]
    record = synthetic(start, cell=cell, planted=(-value, -high, -low))
    assert BY_KEY["margin-diminishing"].judge([record])[0] == status


def test_dropping_the_margin_is_harmless_where_it_gains_less_than_half_a_point():
    cell = CELLS["harmless-to-drop"][:4]
    for planted, status in (
        ((0.002, -0.001, HALF_A_POINT - 1e-9), "supported"),
        ((0.002, -0.001, HALF_A_POINT + 1e-9), "inconclusive"),
        ((0.009, HALF_A_POINT + 1e-9, 0.02), "not supported"),
    ):
        record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=planted)
        assert BY_KEY["harmless-to-drop"].judge([record])[0] == status


def test_estimate_is_of_tuned_arms_trained_on_all_pairs_unless_told_otherwise():
    table = synthetic((0.2, 0.1, 0.4)).tables["gains"]
    where = {"loss": "large", "metric": "accuracy", "size": 300}
    assert estimate(table, **where) == (0.2, 0.1, 0.4)
    changed = table.assign(estimate=range(len(table)))
    found = {
        (tuning, filtered): estimate(changed, tuning=tuning, filtered=filtered, **where)[0]
        for tuning in ("shared", "tuned")
        for filtered in (False, True)
    }
    assert len(set(found.values())) == 4
    assert estimate(changed, **where)[0] == found["tuned", False]
    assert estimate(changed, tuning="shared", **where)[0] == found["shared", False]
    assert estimate(changed, filtered=True, **where)[0] == found["tuned", True]


def test_estimate_refuses_none_or_several_rows_and_names_what_it_looked_for():
    table = synthetic((0.2, 0.1, 0.4)).tables["gains"]
    where = {"loss": "large", "metric": "accuracy", "size": 5}
    with pytest.raises(
        ValueError,
        match=r"expected one row with \{.*'tuned'.*'filtered': False.*'size': 5\}, found 0",
    ):
        estimate(table, **where)
    del where["size"]
    with pytest.raises(ValueError, match="found 2"):
        estimate(table, **where)


def test_the_largest_size_is_the_most_training_pairs():
    assert largest_size(synthetic((0.0, 0.0, 0.0))) == 1000

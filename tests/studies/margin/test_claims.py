"""The margin's claims: each reads its own cell with its own sign, by its own rule."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.margin.claims import CLAIMS, accuracy_gain, estimate, largest_size

SIZES = (300, 1000)
BY_KEY = {claim.key: claim for claim in CLAIMS}
METRICS = (
    "accuracy", "accuracy 1", "accuracy 4", "log-likelihood", "calibration error", "bimodality",
    "split of differences",
)  # fmt: skip

#: Where each claim looks (at the largest size), with which sign, and what it asks for.
CELLS = {
    "rises-with-strength": ("steps", "none", "accuracy 4 - 1", "tuned", 1, (0, 0.05)),
    "large-margin-helps": ("gains", "large", "accuracy", "tuned", 1, (0, 0.004)),
    "small-margin-helps": ("gains", "small", "accuracy", "tuned", 1, (0, 0.005)),
    "gains-where-decided": ("steps", "large", "gain 4 - 1", "tuned", 1, (0, 0.018)),
    "bimodal": ("gains", "large", "bimodality", "tuned", 1, (0, 0.02)),
    "splits-differences": ("gains", "large", "split of differences", "tuned", 1, (0, 0.02)),
    "margin-diminishing": ("trends", "large", "accuracy", "tuned", -1, (0, 0.002)),
    "harmless-to-drop": ("gains", "large", "accuracy", "tuned", -1, (-0.005, 0)),
    "costs-likelihood": ("gains", "large", "log-likelihood", "tuned", -1, (0, 0.005)),
    "scaled-helps": ("gains", "scaled", "accuracy", "tuned", 1, (0, 0.012)),
    "filter-replaces-margin": ("interactions", "large", "accuracy", "shared", 1, (0, 0.002)),
    "margin-informs": ("controls", "large - permuted", "accuracy", "shared", 1, (0, 0.002)),
    "scale-informs": ("controls", "scaled - permuted", "accuracy", "shared", 1, (0, 0.002)),
}


def synthetic(everywhere, *, cell=None, planted=None):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {}
    for name, metrics in (
        ("metrics", METRICS),
        ("gains", METRICS),
        ("steps", ("accuracy 4 - 1", "gain 4 - 1")),
        ("trends", METRICS[:3]),
        ("interactions", METRICS),
        ("controls", METRICS),
    ):
        rows = []
        sizes = (None,) if name == "trends" else SIZES
        first = ("none", "small", "large", "scaled")
        if name == "controls":
            first = ("large - constant", "large - permuted", "scaled - permuted")
        for label, filtered, tuning, size, metric in itertools.product(
            first, (False, True), ("shared", "tuned"), sizes, metrics
        ):
            here = (name, label, metric, tuning) == cell and not filtered and size in (None, 1000)
            rows.append((label, filtered, tuning, size, metric, *(planted if here else everywhere)))
        columns = ["loss", "filtered", "tuning", "size", "metric", "estimate", "low", "high"]
        table = pd.DataFrame(rows, columns=columns)
        if name in ("interactions", "controls"):
            table = table[~table["filtered"]].drop(columns="filtered")
        if name == "controls":
            table = table.rename(columns={"loss": "control"})
        tables[name] = table.drop(columns="size") if name == "trends" else table
    return Record("margin", "toy", "quick", {}, {"clusters": 100}, tables)


def scaled(sign, values=(0.2, 0.1, 0.4)):
    estimate, *ends = (sign * value for value in values)
    return estimate, *sorted(ends)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"margin"}


def test_what_is_no_share_is_marked():
    assert {key: claim.unit for key, claim in BY_KEY.items()} == dict.fromkeys(BY_KEY, "points") | {
        "bimodal": "plain",
        "splits-differences": "plain",
        "costs-likelihood": "plain",
    }


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    *cell, sign, rule = CELLS[key]
    record = synthetic((9.0, 8.0, 10.0), cell=tuple(cell), planted=(0.2, 0.1, 0.4))
    assert BY_KEY[key].rule.row.read(record) == scaled(sign)
    assert (BY_KEY[key].rule.bound, BY_KEY[key].rule.smallest) == rule


@pytest.mark.parametrize(
    ("start", "informs"),
    [((0.2, 0.1, 0.4), True), ((0.2, 0.0, 0.4), False), ((-0.2, -0.4, -0.1), False)],
)
def test_only_a_gain_that_exists_can_diminish(start, informs):
    record = synthetic(start, cell=CELLS["margin-diminishing"][:4], planted=(-0.3, -0.5, -0.1))
    claim = BY_KEY["margin-diminishing"]
    assert claim.applies(record)
    assert claim.informs(record) == informs


def test_records_without_controls_say_nothing_about_them():
    record = synthetic((0.2, 0.1, 0.4))
    old = replace(record, tables={"metrics": record.tables["metrics"]})
    for key in ("filter-replaces-margin", "margin-informs", "scale-informs"):
        assert BY_KEY[key].judged_by([old, record]) == [record]


def test_records_without_the_split_of_differences_say_nothing_about_it():
    record = synthetic((0.2, 0.1, 0.4))
    gains = record.tables["gains"]
    old = record.tables | {"gains": gains[gains["metric"] != "split of differences"]}
    assert BY_KEY["splits-differences"].judged_by([replace(record, tables=old)]) == []


def test_one_size_has_no_trend():
    record = synthetic((0.2, 0.1, 0.4))
    one = {
        name: table[table["size"] == 300] if "size" in table else table
        for name, table in record.tables.items()
    }
    assert BY_KEY["margin-diminishing"].judged_by([replace(record, tables=one)]) == []


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


def test_accuracy_gain_reads_one_cell_by_default_at_the_most_data():
    planted = (0.3, 0.2, 0.4)
    record = synthetic(
        (0.1, 0.0, 0.2), cell=("gains", "large", "accuracy", "shared"), planted=planted
    )
    assert accuracy_gain(record, "large", "shared") == planted
    for other in (
        accuracy_gain(record, "large", "tuned"),
        accuracy_gain(record, "small", "shared"),
        accuracy_gain(record, "large", "shared", filtered=True),
        accuracy_gain(record, "large", "shared", size=300),
    ):
        assert other == (0.1, 0.0, 0.2)

"""Claims: the boundaries of each verdict, whose records are asked, and which row is read."""

import itertools
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from posttrain.evidence.claims import (
    Claim,
    Evidence,
    above,
    below,
    combine,
    estimate,
    gain,
    holds,
    row,
    within,
)
from posttrain.evidence.records import Record

HELPS, HURTS, OPEN = (0.2, 0.1, 0.4), (-0.2, -0.4, -0.1), (0.0, -0.3, 0.3)


def evidence(low, high, smallest=0.01):
    return Evidence("margin-toy", (low + high) / 2, low, high, smallest)


def record_of(values, *, source="toy", study="toys"):
    """A record with one result, in a table that no other study has."""
    table = pd.DataFrame([values], columns=["estimate", "low", "high"])
    return Record(study, source, "quick", {}, {}, {study: table})


ROW = row("toys")
CLAIM = Claim("helps", "a paper", "Toys help.", "+1 point", "gain", "toys", gain(ROW, 0.01))


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (1e-9, 0.5, "supported"),
        (0.0, 0.5, "inconclusive"),
        (-1e-9, 0.5, "inconclusive"),
        (-0.5, 0.01, "inconclusive"),
        (-0.5, 0.01 - 1e-9, "not supported"),
        (-0.5, -0.1, "not supported"),
        # Beyond zero but too small to matter still lies on the claimed side.
        (1e-9, 0.005, "supported"),
        (float("nan"), float("nan"), "inconclusive"),
    ],
)
def test_the_status_changes_at_zero_and_at_the_smallest_effect(low, high, status):
    assert evidence(low, high).status == status


@pytest.mark.parametrize(
    ("smallest", "high", "status"),
    [
        (-float("inf"), -0.1, "inconclusive"),
        (0.0, 0.0, "inconclusive"),
        (0.0, -1e-9, "not supported"),
    ],
)
def test_the_smallest_effect_may_be_zero_or_out_of_reach(smallest, high, status):
    assert evidence(-0.5, high, smallest).status == status


@pytest.mark.parametrize(
    ("statuses", "overall"),
    [
        (["supported"], "supported"),
        (["supported", "inconclusive", "supported"], "supported"),
        (["not supported", "inconclusive"], "not supported"),
        (["supported", "not supported"], "inconclusive"),
        (["supported", "inconclusive", "not supported"], "inconclusive"),
        (["inconclusive", "inconclusive"], "inconclusive"),
    ],
)
def test_several_records_decide_together_in_any_order(statuses, overall):
    for order in itertools.permutations(statuses):
        assert combine(list(order)) == overall


def test_a_claim_is_a_papers_and_in_points_unless_told_otherwise():
    assert (CLAIM.ours, CLAIM.unit) == (False, "points")


@pytest.mark.parametrize(
    ("values", "status"),
    [(HELPS, "supported"), (HURTS, "not supported"), (OPEN, "inconclusive")],
)
def test_a_record_gives_its_evidence_and_with_it_the_verdict(values, status):
    found, (item,) = CLAIM.judge([record_of(values)])
    assert (found, item.status) == (status, status)
    assert item == Evidence("toys-toy", *values, 0.01)


def test_only_records_of_the_study_are_asked_in_the_given_order():
    good, bad = record_of(HELPS, source="a"), record_of(HURTS, source="b")
    other = record_of(HURTS, source="c", study="games")
    for strangers in ([other], [replace(bad, study="data")]):
        status, items = CLAIM.judge([*strangers, good, *strangers])
        assert status == "supported"
        assert [item.record for item in items] == ["toys-a"]
    assert CLAIM.judge([good, bad])[0] == "inconclusive"
    assert [item.record for item in CLAIM.judge([bad, good])[1]] == ["toys-b", "toys-a"]


@pytest.mark.parametrize("studies", [(), ("data",)])
def test_a_claim_without_a_record_is_refused(studies):
    claim = Claim("other", "", "", "", "", "unknown", gain(ROW, 0.01))
    records = [record_of(HELPS, study=study) for study in studies]
    with pytest.raises(ValueError, match="no record of study 'unknown' to judge claim 'other' by"):
        claim.judge(records)


@pytest.fixture
def table():
    """Ten rows with estimates of their own, two of them otherwise alike."""
    rows = [
        *itertools.product(("exact", "causal"), ("accuracy", "flips"), (10, 20)),
        *[("twin", "flips", 10)] * 2,
    ]
    table = pd.DataFrame(rows, columns=["arm", "metric", "size"])
    place = pd.Series(range(len(table)))
    return table.assign(estimate=place, low=place - 1, high=place + 2)


def test_estimate_reads_the_one_row_where_every_column_matches(table):
    found = estimate(table, arm="causal", metric="accuracy", size=20)
    assert found == (5.0, 4.0, 7.0)
    assert {type(value) for value in found} == {float}
    assert estimate(table.head(1)) == (0.0, -1.0, 2.0)


def test_estimate_refuses_none_or_several_rows_and_names_what_it_looked_for(table):
    with pytest.raises(
        ValueError, match=r"expected one row with \{'arm': 'exact', 'size': 5\}, found 0"
    ):
        estimate(table, arm="exact", size=5)
    with pytest.raises(ValueError, match=r"with \{'arm': 'exact', 'size': 10\}, found 2"):
        estimate(table, arm="exact", size=10)
    with pytest.raises(ValueError, match="found 2"):
        estimate(table, arm="twin", metric="flips", size=10)
    with pytest.raises(ValueError, match=r"with \{\}, found 10"):
        estimate(table)
    with pytest.raises(ValueError, match="found 0"):
        estimate(table.head(0))


def test_estimate_has_no_defaults_of_any_study(table):
    """Columns that only the margin's tables have are matched where they are named."""
    both = pd.concat([table.assign(tuning=tuning) for tuning in ("shared", "tuned")])
    where = {"arm": "exact", "metric": "flips", "size": 20}
    assert estimate(both, tuning="shared", **where) == (3.0, 2.0, 5.0)
    with pytest.raises(ValueError, match="found 2"):
        estimate(both, **where)


def test_records_without_what_a_test_needs_are_not_asked():
    known = replace(CLAIM, applies=lambda record: record.source == "known")
    records = [
        record_of(HURTS), record_of(HELPS, source="known"),
        record_of(HELPS, source="known", study="others"),
    ]  # fmt: skip
    assert CLAIM.judged_by(records) == records[:2]
    assert known.judged_by(records) == [records[1]]
    assert known.judge(records)[0] == "supported"
    with pytest.raises(ValueError, match="no record of study 'toys' to judge claim 'helps' by"):
        known.judge(records[:1])


VALUES = (0.3, -0.1, 0.4)


@pytest.mark.parametrize(
    ("test", "expected", "shown"),
    [
        (gain(ROW, 0.25), (0.3, -0.1, 0.4, 0.25), VALUES),
        (gain(ROW, 0.25, over=0.5), (-0.2, -0.6, -0.1, 0.25), (-0.2, -0.6, -0.1)),
        (gain(-ROW, 0.25), (-0.3, -0.4, 0.1, 0.25), (-0.3, -0.4, 0.1)),
        (above(ROW, 0.5), (-0.2, -0.6, -0.1, 0.0), VALUES),
        (below(ROW, 0.5), (0.2, 0.1, 0.6, 0.0), VALUES),
        (below(ROW, 0.5, smallest=0.25), (0.2, 0.1, 0.6, 0.25), VALUES),
        (within(ROW, 0.5), (0.2, 0.1, 0.5, 0.0), VALUES),
        (within(ROW, lambda record: len(record.source)), (2.7, 2.6, 3.0, 0.0), VALUES),
    ],
)
def test_what_each_test_makes_of_a_row(test, expected, shown):
    item = test(record_of(VALUES))
    found = (item.estimate, item.low, item.high, item.smallest)
    assert found == pytest.approx(expected)
    # A distance from a bound is not what readers are shown; a gain is.
    assert item.shown == pytest.approx(shown)
    assert [one.table for one in test.rows] == ["toys"]


def test_a_row_is_found_by_what_the_record_says(table):
    record = replace(record_of(HELPS), tables={"toys": table})
    found = row("toys", arm="exact", metric="flips", size=lambda record: len(record.source) * 10)
    assert found.place(replace(record, source="ab"))["size"] == 20
    assert found.read(replace(record, source="a")) == (2.0, 1.0, 4.0)
    assert (-found).read(replace(record, source="a")) == (-2.0, -4.0, -1.0)
    assert (-found).sign == -found.sign
    with pytest.raises(ValueError, match=r"'size': 30.*found 0"):
        found.read(replace(record, source="abc"))


def test_a_number_without_an_interval_is_known_exactly(table):
    record = replace(record_of(HELPS), tables={"toys": table})
    found = row("toys", arm="causal", metric="flips", size=20, exact="size")
    assert found.read(record) == (20.0, 20.0, 20.0)


def test_a_record_holds_a_column_with_all_values(table):
    record = replace(record_of(HELPS), tables={"toys": table})
    assert holds("toys", "arm", "exact", "causal")(record)
    assert not holds("toys", "arm", "exact", "ranked")(record)


def test_a_claim_knows_where_it_is_written_down():
    module, line = CLAIM.place
    assert module == __name__
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert source[line - 1].startswith("CLAIM = Claim(")
    assert replace(CLAIM, key="other").place == CLAIM.place
    assert CLAIM.path == f"src/{module.replace('.', '/')}.py"

"""Claims: the boundaries of each verdict, whose records are asked, and which row is read."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from posttrain.evidence.claims import Claim, Evidence, combine, estimate
from posttrain.evidence.records import Record

HELPS, HURTS, OPEN = (0.2, 0.1, 0.4), (-0.2, -0.4, -0.1), (0.0, -0.3, 0.3)


def evidence(low, high, smallest=0.01):
    return Evidence("margin-toy", (low + high) / 2, low, high, smallest)


def record_of(values, *, source="toy", study="toys"):
    """A record with one result, in a table that no other study has."""
    table = pd.DataFrame([values], columns=["estimate", "low", "high"])
    return Record(study, source, "quick", {}, {}, {study: table})


def read(record):
    return Evidence(record.name, *estimate(record.tables["toys"]), 0.01)


CLAIM = Claim("helps", "a paper", "Toys help.", "+1 point", "gain", "toys", read)


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
    claim = Claim("other", "", "", "", "", "unknown", lambda record: evidence(0, 1))
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

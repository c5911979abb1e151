"""Claims: which row is read, and the boundaries of each verdict."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evidence.claims import (
    Claim,
    above,
    below,
    estimate,
    gain,
    holds,
    known,
    no_worse,
    row,
    within,
)
from posttrain.evidence.pooling import Effect
from posttrain.evidence.records import Record

HELPS, HURTS = (0.2, 0.1, 0.4), (-0.2, -0.4, -0.1)
MANY = 10_000.0


def record_of(values, *, source="toy", study="toys"):
    """A record with one result, in a table that no other study has."""
    table = pd.DataFrame([values], columns=["estimate", "low", "high"])
    return Record(study, source, "quick", {}, {}, {study: table})


ROW = row("toys")
CLAIM = Claim("helps", "a paper", "Toys help.", "+1 point", "gain", "toys", gain(ROW, 0.01))


def verdict(rule, value, error, p=None):
    common = Effect("all", value, error, MANY)
    return rule.verdict(common, rule.p(common) if p is None else p)


class TestVerdicts:
    """An error of 0.004 gives a 95 % interval of 0.0078 to either side, a 90 % one of 0.0066."""

    @pytest.mark.parametrize(
        ("value", "error", "expected"),
        [
            (0.020, 0.004, "holds here"),
            (0.010, 0.004, "holds here"),
            (0.0099, 0.004, "cannot tell"),  # significant, but smaller than what matters
            (0.020, 0.015, "cannot tell"),  # large, but not significant
            (0.002, 0.004, "too small to matter"),
            (-0.002, 0.004, "too small to matter"),
            (-0.010, 0.004, "ruled out here"),
            (-0.020, 0.010, "ruled out here"),
            (0.005, 0.010, "cannot tell"),
        ],
    )
    def test_of_a_gain(self, value, error, expected):
        assert verdict(gain(ROW, 0.01), value, error) == expected
        # Measured from another bound, or the other way round, it is the same.
        assert verdict(gain(ROW, 0.01, over=0.5), value + 0.5, error) == expected
        assert verdict(below(ROW, 0.5, smallest=0.01), 0.5 - value, error) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0.02, "holds here"), (-0.003, "holds here"), (-0.02, "ruled out here"),
         (-0.01, "cannot tell"), (-0.005, "cannot tell")],
    )  # fmt: skip
    def test_of_being_no_worse(self, value, expected):
        rule = no_worse(ROW, 0.01)
        assert (rule.bound, rule.visible) == (-0.01, 0.01)
        assert verdict(rule, value, 0.004) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0.0, "holds here"), (0.003, "holds here"), (0.02, "ruled out here"),
         (0.01, "cannot tell"), (0.005, "cannot tell")],
    )  # fmt: skip
    def test_of_an_equivalence_on_either_side(self, value, expected):
        for sign in (1, -1):
            assert verdict(within(ROW, 0.01), sign * value, 0.004) == expected
        # What is measured too coarsely is not told apart from anything.
        assert verdict(within(ROW, 0.01), value, 0.1) == "cannot tell"

    def test_from_a_bound_nothing_is_too_small(self):
        for rule, sign in ((above(ROW, 0.0), 1), (below(ROW, 0.0), -1)):
            assert verdict(rule, sign * 0.002, 0.0005) == "holds here"
            assert verdict(rule, sign * -0.002, 0.0005) == "ruled out here"
            assert verdict(rule, sign * 0.0002, 0.0005) == "cannot tell"

    def test_an_adjusted_p_value_takes_a_verdict_back(self):
        assert verdict(gain(ROW, 0.01), 0.02, 0.01) == "holds here"
        assert verdict(gain(ROW, 0.01), 0.02, 0.01, p=0.06) == "cannot tell"
        assert verdict(within(ROW, 0.01), 0.0, 0.004, p=0.06) == "cannot tell"

    def test_few_clusters_know_less(self):
        rule = gain(ROW, 0.01)
        for freedom, expected in ((MANY, "holds here"), (3.0, "cannot tell")):
            common = Effect("all", 0.020, 0.010, freedom)
            assert rule.verdict(common, rule.p(common)) == expected

    @given(st.floats(-0.05, 0.05), st.floats(0.001, 0.05), st.floats(0.001, 0.02))
    def test_no_verdict_contradicts_the_interval(self, value, error, smallest):
        found = verdict(gain(ROW, smallest), value, error)
        low, high = Effect("all", value, error, MANY).interval(0.9)
        if found == "holds here":
            assert low > 0
            assert value >= smallest
        elif found == "too small to matter":
            assert -smallest < low
            assert high < smallest
        elif found == "ruled out here":
            assert high < smallest

    @given(st.floats(-0.05, 0.05), st.floats(0.001, 0.05))
    def test_an_equivalence_is_two_one_sided_tests(self, value, error):
        rule, common = within(ROW, 0.01), Effect("all", value, error, MANY)
        low, high = common.interval(0.9)
        assert (rule.p(common) < 0.05) == (low > -0.01 and high < 0.01)


@pytest.mark.parametrize(
    ("rule", "values", "passes"),
    [
        (above(ROW, 0.0), HELPS, True),
        (above(ROW, 0.1), HELPS, False),
        (below(ROW, 0.0), HURTS, True),
        (below(ROW, -0.1), HURTS, False),
        (within(ROW, 0.5), HELPS, True),
        (within(ROW, 0.4), HELPS, False),
        (within(ROW, 0.4), HURTS, False),
        (within(ROW, lambda record: len(record.source)), HELPS, True),
        (above(ROW, 0.0), (math.nan,) * 3, False),
        (within(ROW, 1.0), (math.nan,) * 3, False),
    ],
)
def test_a_check_asks_for_all_of_the_interval(rule, values, passes):
    assert rule.passes(record_of(values)) == passes


def test_what_was_not_measured_is_not_known():
    assert known(HELPS)
    assert not known((0.1, math.nan, 0.2))
    assert not known((0.1, -math.inf, math.inf))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (gain(ROW, 0.01), "above 0, by 0.01 or more"),
        (gain(ROW, 0.05, over=0.5), "above 0.5, by 0.05 or more"),
        (no_worse(ROW, 0.01), "above -0.01"),
        (below(ROW, 0.5), "below 0.5"),
        (within(ROW, 0.1), "less than 0.1 away from 0"),
        (within(ROW, len), "less than a bound that depends on the record away from 0"),
    ],
)
def test_a_rule_says_what_it_asks_for(rule, text):
    assert str(rule) == text


def test_a_claim_is_a_papers_and_in_points_unless_told_otherwise():
    assert (CLAIM.unit, CLAIM.check, CLAIM.headline) == ("points", False, False)


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


def test_records_without_what_a_rule_needs_are_not_asked():
    known = replace(CLAIM, applies=lambda record: record.source == "known")
    records = [
        record_of(HURTS), record_of(HELPS, source="known"),
        record_of(HELPS, source="known", study="others"),
    ]  # fmt: skip
    assert CLAIM.judged_by(records) == records[:2]
    assert known.judged_by(records) == [records[1]]


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

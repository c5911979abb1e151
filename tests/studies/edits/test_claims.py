"""The claims about edits: each reads its own cell with its own sign, against its own threshold."""

from dataclasses import replace

import pytest
from edits_synthetic import synthetic

from posttrain.data.preferences import PairKind
from posttrain.studies.edits.claims import CLAIMS, ONE_POINT, estimate, most_data
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.outcome import CONTRASTS

BY_KEY = {claim.key: claim for claim in CLAIMS}
WITHIN = "within"
#: Where each claim looks, and what speaks for it: a sign, a number to exceed, or being near zero.
CELLS = {
    "edits-are-better": ("metrics", ArmName.IGNORE, "edited > chosen", 0.5),
    "edits-help": ("gains", "all pairs", PairKind.RATED, 0.0),
    "edits-teach-edits": ("gains", "all pairs", "edited > chosen", 0.0),
    "edits-diminishing": ("trends", "all pairs", PairKind.RATED, None),
    "worth-a-rating": ("contrasts", "all pairs - one more pair", PairKind.RATED, 0.0),
    "worth-its-pairs": ("contrasts", "all pairs - two more pairs", PairKind.RATED, -ONE_POINT),
    "plackett-luce-alike": ("contrasts", "Plackett-Luce - all pairs", PairKind.RATED, WITHIN),
    "weights-alike": ("contrasts", "by prompt - by pair", PairKind.RATED, WITHIN),
    "near-pair-teaches": (
        "contrasts", "adding edited > chosen - edited > rejected", PairKind.RATED, 0.0,
    ),
    "close-edits-teach": ("contrasts", "closest - farthest edits", PairKind.RATED, 0.0),
    "no-brevity": ("gains", "all pairs", "leans shorter", None),
}  # fmt: skip


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"edits"}
    assert [key for key, claim in BY_KEY.items() if not claim.ours] == ["edits-are-better"]
    assert {claim.unit for claim in CLAIMS} == {"points"}


@pytest.mark.parametrize(
    "key", [key for key, cell in CELLS.items() if cell[3] not in (None, WITHIN)]
)
def test_the_planted_cell_alone_decides_and_its_side_of_the_bound_turns_the_verdict(key):
    *cell, bound = CELLS[key]
    above, below = (
        (bound + sign * 0.2, bound + sign * 0.1, bound + sign * 0.3) for sign in (1, -1)
    )
    below = (below[0], below[2], below[1])
    for planted, everywhere, status in (
        (above, below, "supported"),
        (below, above, "not supported"),
        ((bound, bound - 0.3, bound + 0.3), above, "inconclusive"),
    ):
        record = synthetic(everywhere, cell=tuple(cell), planted=planted)
        assert BY_KEY[key].judge([record])[0] == status


@pytest.mark.parametrize("key", [key for key, cell in CELLS.items() if cell[3] == WITHIN])
def test_equivalence_needs_the_whole_interval_within_the_bound(key):
    *cell, _ = CELLS[key]
    bound = ONE_POINT
    for low, high, status in (
        (-0.5, 0.5, "supported"),
        (0.2, 0.9, "supported"),
        (-0.5, 1.1, "inconclusive"),
        (-2.0, -0.5, "inconclusive"),
        (1.1, 2.0, "not supported"),
        (-2.0, -1.1, "not supported"),
    ):
        planted = ((low + high) / 2 * bound, low * bound, high * bound)
        record = synthetic((9.0, 8.0, 10.0), cell=tuple(cell), planted=planted)
        status_found, (item,) = BY_KEY[key].judge([record])
        assert status_found == status, (low, high)
        # Readers see the difference itself.
        assert item.shown == planted


def test_leaning_to_the_shorter_by_less_than_two_points_is_no_lesson_in_brevity():
    cell = CELLS["no-brevity"][:3]
    for planted, status in (
        ((0.01, -0.01, 0.019), "supported"),
        # A shift to the longer response is none to the shorter.
        ((-0.08, -0.12, -0.04), "supported"),
        ((0.01, -0.01, 0.021), "inconclusive"),
        ((0.05, 0.021, 0.08), "not supported"),
    ):
        record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=planted)
        found, (item,) = BY_KEY["no-brevity"].judge([record])
        assert found == status
        assert item.shown == planted


def test_a_gain_that_falls_with_data_diminishes():
    cell = CELLS["edits-diminishing"][:3]
    for planted, status in (
        ((-0.02, -0.03, -0.01), "supported"),
        ((0.02, 0.01, 0.03), "not supported"),
        ((-0.01, -0.03, 0.01), "inconclusive"),
    ):
        record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=planted)
        found, (item,) = BY_KEY["edits-diminishing"].judge([record])
        assert found == status
        assert item.estimate == -planted[0]


def test_without_a_gain_to_begin_with_nothing_can_diminish():
    cell = CELLS["edits-diminishing"][:3]
    for start in ((0.1, 0.0, 0.2), (-0.2, -0.3, -0.1)):
        record = synthetic(start, cell=cell, planted=(-0.02, -0.03, -0.01))
        found, (item,) = BY_KEY["edits-diminishing"].judge([record])
        assert found == "inconclusive"
        assert item.shown == (0.02, 0.01, 0.03)


def test_gains_of_sizes_with_other_doses_of_edits_are_not_compared():
    record = synthetic((0.2, 0.1, 0.3))
    claim = BY_KEY["edits-diminishing"]
    assert claim.judged_by([record]) == [record]
    costs = record.tables["costs"]
    thinner = costs.assign(edits=costs["edits"].where(costs["size"] == 100, costs["edits"] * 0.8))
    few = replace(record, tables=record.tables | {"costs": thinner})
    single = replace(record, tables=record.tables | {"costs": costs[costs["size"] == 100]})
    assert claim.judged_by([few, single]) == []


def test_records_without_an_arm_say_nothing_about_it():
    few = synthetic(
        (0.1, 0.05, 0.2), arms=(ArmName.IGNORE, "all pairs", "one more pair", "two more pairs")
    )
    whole = synthetic((0.1, 0.05, 0.2), source="whole")
    for key, (table, name, *_) in CELLS.items():
        needs = set(CONTRASTS[name]) if table == "contrasts" else {name}
        known = needs <= {ArmName.IGNORE, "all pairs", "one more pair", "two more pairs"}
        judged = BY_KEY[key].judged_by([few, whole])
        assert [record.source for record in judged] == (["toy"] if known else []) + ["whole"], key


def test_estimates_are_of_tuned_arms_on_what_annotators_chose():
    record = synthetic((0.2, 0.1, 0.3))
    table = record.tables["gains"].assign(estimate=range(len(record.tables["gains"])))
    found = estimate(table, arm="all pairs", **most_data(record))[0]
    row = table.iloc[int(found)]
    assert row[["size", "share", "tuning", "metric"]].tolist() == [
        1000,
        1.0,
        "tuned",
        PairKind.RATED,
    ]

"""The claims about edits: each reads its own cell with its own sign, by its own rule."""

from dataclasses import replace

import pytest
from edits_synthetic import synthetic

from posttrain.data.preferences import PairKind
from posttrain.studies.edits.claims import CLAIMS, estimate, most_data
from posttrain.studies.edits.keys import GOLD_RATED, ArmName
from posttrain.studies.edits.outcome import CONTRASTS

BY_KEY = {claim.key: claim for claim in CLAIMS}
#: Where each claim looks, with which sign, and what it asks for.
CELLS = {
    "edits-are-better": (
        ("metrics", ArmName.IGNORE, "edited > chosen"), 1, "above 0.5, by 0.05 or more",
    ),
    "edits-help": (("gains", "all pairs", GOLD_RATED), 1, "above 0, by 0.01 or more"),
    "edits-teach-edits": (("gains", "all pairs", "edited > chosen"), 1, "above 0, by 0.01 or more"),
    "edits-diminishing": (("trends", "all pairs", GOLD_RATED), -1, "above 0, by 0.005 or more"),
    "worth-a-rating": (
        ("contrasts", "all pairs - one more comparison", GOLD_RATED), 1, "above 0, by 0.01 or more",
    ),
    "worth-its-pairs": (
        ("contrasts", "all pairs - two more comparisons", GOLD_RATED), 1, "above -0.01",
    ),
    "plackett-luce-alike": (
        ("contrasts", "Plackett-Luce - all pairs", GOLD_RATED), 1, "less than 0.01 away from 0",
    ),
    "weights-alike": (
        ("contrasts", "by prompt - by pair", GOLD_RATED), 1, "less than 0.01 away from 0",
    ),
    "near-pair-teaches": (
        ("contrasts", "adding edited > chosen - edited > rejected", GOLD_RATED), 1,
        "above 0, by 0.01 or more",
    ),
    "close-edits-teach": (
        ("contrasts", "closest - farthest edits", GOLD_RATED), 1, "above 0, by 0.01 or more",
    ),
    "no-brevity": (("gains", "all pairs", "leans shorter"), -1, "above -0.02"),
}  # fmt: skip


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"edits"}
    assert {claim.unit for claim in CLAIMS} == {"points"}


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, sign, rule = CELLS[key]
    record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=(0.2, 0.1, 0.4))
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert BY_KEY[key].rule.row.read(record) == expected
    assert str(BY_KEY[key].rule) == rule


@pytest.mark.parametrize("key", [key for key in CELLS if CELLS[key][0][2] == GOLD_RATED])
def test_where_the_truth_is_not_known_annotators_judge(key):
    (table, name, _), sign, _ = CELLS[key]
    cell = (table, name, PairKind.RATED)
    record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=(0.2, 0.1, 0.4))
    metrics = record.tables["metrics"]
    unknown = metrics["estimate"].where(metrics["metric"] != GOLD_RATED)
    record.tables["metrics"] = metrics.assign(estimate=unknown)
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert BY_KEY[key].rule.row.read(record) == expected


def test_verdicts_on_gains_and_contrasts_are_the_same_with_one_setting_for_all():
    for key, claim in BY_KEY.items():
        if key in ("edits-are-better", "edits-diminishing"):
            assert claim.otherwise is None
            continue
        assert claim.otherwise == replace(
            claim.rule.row, where={**claim.rule.row.where, "tuning": "shared"}
        )


def test_without_a_gain_to_begin_with_nothing_can_diminish():
    claim, cell = BY_KEY["edits-diminishing"], CELLS["edits-diminishing"][0]
    for start, informs in (
        ((0.1, 0.05, 0.2), True), ((0.1, 0.0, 0.2), False), ((-0.2, -0.3, -0.1), False),
    ):  # fmt: skip
        record = synthetic(start, cell=cell, planted=(-0.02, -0.03, -0.01))
        assert claim.informs(record) == informs


def test_the_training_that_was_added_later_has_no_vote():
    later, first = (
        synthetic((0.2, 0.1, 0.4), source=source) for source in ("simulator-longer", "simulator")
    )
    assert all(claim.late(later) and not claim.late(first) for claim in CLAIMS)


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
        (0.1, 0.05, 0.2),
        arms=(ArmName.IGNORE, "all pairs", "one more comparison", "two more comparisons"),
    )
    whole = synthetic((0.1, 0.05, 0.2), source="whole")
    for key, ((table, name, _), *_) in CELLS.items():
        needs = set(CONTRASTS[name]) if table == "contrasts" else {name}
        known = needs <= {
            ArmName.IGNORE,
            "all pairs",
            "one more comparison",
            "two more comparisons",
        }
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

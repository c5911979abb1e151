"""The claims about helpfulness and safety: each reads its own cell with its own sign and bound."""

import pytest
from tradeoff_synthetic import synthetic

from posttrain.studies.tradeoff.claims import (
    CLAIMS,
    ENOUGH,
    FIVE_POINTS,
    FROM_AUXILIARY,
    ON_HELPFULNESS,
    ON_SAFETY,
    ONE_POINT,
    TO_RECALL,
    has_gold,
)
from posttrain.studies.tradeoff.keys import ArmName, Chosen
from posttrain.studies.tradeoff.outcome import ARMS

BY_KEY = {claim.key: claim for claim in CLAIMS}


def accuracy(contrast, test):
    return "differences", {
        "contrast": contrast, "test": test, "tuning": "tuned", "metric": "accuracy",
    }  # fmt: skip


def gain(metric, system, team="one model", parameter=None):
    where = {"team": team, "system": system, "metric": metric}
    return "advantages", where | ({} if parameter is None else {"parameter": parameter})


def against_one(system):
    return "against one", {
        "team": "specialists", "system": system, "one model": Chosen.ARM, "metric": "errors",
    }  # fmt: skip


SUM = {"team": "specialists", "system": "sum", "parameter": 2.0, "metric": "recovered 2"}
SWITCH = ("switch", "specialists", 0.15)
#: Where each claim looks, with which sign, and what it asks for.
CELLS = {
    "safety-needs-its-model": (
        accuracy("safety mix - helpfulness mix", "safety"), 1, "above 0, by 0.017 or more",
    ),
    "helpfulness-needs-its-model": (
        accuracy("safety mix - helpfulness mix", "helpfulness"), -1, "above 0, by 0.07 or more",
    ),
    "auxiliary-loss-helps": (
        accuracy("auxiliary loss - none", "safety"), 1, "above 0, by 0.008 or more",
    ),
    "auxiliary-loss-finds": (
        ("auxiliary", {"scores": "raw", "threshold": 0.5, "metric": "recall"}),
        1, "above 0, by 0.05 or more",
    ),
    "one-ranks-as-well": (accuracy("joint - own specialist", "both"), 1, "above -0.01"),
    "equal-parts-cost": (
        accuracy("equal parts - own specialist", "both"), -1, "above 0, by 0.01 or more",
    ),
    "helpfulness-answers-unsafe": (
        ("conflicts", {"arm": ArmName.HELPFUL, "kind": "unsafe"}), 1, "below 0.5, by 0.05 or more",
    ),
    "safety-refuses-harmless": (
        ("conflicts", {"arm": ArmName.SAFE, "kind": "lookalike"}), 1, "below 0.5, by 0.05 or more",
    ),
    "two-choose-better": (gain("recovered 2", ArmName.JOINT), 1, "above 0, by 0.01 or more"),
    "two-err-less": (gain("errors", ArmName.JOINT), -1, "above 0, by 0.01 or more"),
    "best-rule-errs-less": (against_one(Chosen.RULE), -1, "above 0, by 0.01 or more"),
    "flags-help-two": (against_one(Chosen.FLAGGED), -1, "above 0, by 0.01 or more"),
    "sum-beats-switch": (gain("recovered 2", *SWITCH), 1, "above 0, by 0.01 or more"),
    "sum-errs-less-than-switch": (gain("errors", *SWITCH), -1, "above 0, by 0.01 or more"),
    "sum-recovers": (("choices", SUM), 1, "above 0.9"),
}  # fmt: skip


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert {claim.study for claim in CLAIMS} == {"tradeoff"}
    assert {claim.unit for claim in CLAIMS} == {"points"}


def test_the_papers_own_effects_are_those_of_its_tables():
    assert pytest.approx((64.5 - 62.8) / 100) == ON_SAFETY
    assert pytest.approx((63.2 - 56.2) / 100) == ON_HELPFULNESS
    assert pytest.approx((64.5 - 63.7) / 100) == FROM_AUXILIARY
    assert pytest.approx((90.4 - 73.0) / 100) == TO_RECALL
    assert (ONE_POINT, FIVE_POINTS, ENOUGH) == (0.01, 0.05, 0.9)


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, sign, rule = CELLS[key]
    human = cell[0] == "advantages" and cell[1]["metric"] == "errors"
    source = "human" if human else "simulator"
    record = synthetic((0.0, -9.0, 9.0), cell=cell, planted=(0.2, 0.1, 0.4), source=source)
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert BY_KEY[key].rule.row.read(record) == expected
    assert str(BY_KEY[key].rule) == rule
    assert has_gold(record) == (source == "simulator")


def test_records_without_an_arm_or_gold_say_nothing_about_it():
    few = synthetic((0.1, 0.05, 0.2), arms=(ArmName.HELPFUL, ArmName.SAFE))
    mixes = synthetic(
        (0.1, 0.05, 0.2),
        arms=(
            ArmName.HELPFUL,
            ArmName.SAFE,
            ArmName.HELPFULNESS_MIX,
            ArmName.SAFETY_MIX,
            ArmName.JOINT,
        ),
        source="human",
    )
    whole = synthetic((0.1, 0.05, 0.2))
    judged = {
        key: [
            name for name, record in (("few", few), ("mixes", mixes), ("whole", whole))
            if record in claim.judged_by([few, mixes, whole])
        ]
        for key, claim in BY_KEY.items()
    }  # fmt: skip
    assert judged == {
        "safety-needs-its-model": ["mixes", "whole"],
        "helpfulness-needs-its-model": ["mixes", "whole"],
        "auxiliary-loss-helps": ["whole"],
        "auxiliary-loss-finds": ["whole"],
        "one-ranks-as-well": ["mixes", "whole"],
        "equal-parts-cost": ["mixes", "whole"],
        "helpfulness-answers-unsafe": ["few", "mixes", "whole"],
        "safety-refuses-harmless": ["few", "mixes", "whole"],
        "two-choose-better": ["whole"],
        "two-err-less": ["mixes"],
        "best-rule-errs-less": ["few", "mixes", "whole"],
        "flags-help-two": ["few", "mixes", "whole"],
        "sum-beats-switch": ["few", "whole"],
        "sum-errs-less-than-switch": ["mixes"],
        "sum-recovers": ["few", "whole"],
    }
    assert ArmName.AUXILIARY in ARMS


def test_choices_for_goals_that_were_trained_on_say_nothing():
    seen = synthetic((0.1, 0.05, 0.2))
    seen.settings["held_out_goals"] = []
    for key in ("two-choose-better", "sum-beats-switch", "sum-recovers"):
        assert BY_KEY[key].judged_by([seen]) == []
    assert BY_KEY["one-ranks-as-well"].judged_by([seen]) == [seen]


def test_errors_on_human_data_had_been_seen():
    for key in ("best-rule-errs-less", "flags-help-two"):
        assert BY_KEY[key].late(synthetic((0.1, 0.05, 0.2), source="human"))
        assert not BY_KEY[key].late(synthetic((0.1, 0.05, 0.2)))

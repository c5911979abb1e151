"""The claims about helpfulness and safety: each reads its own cell with its own sign and bound."""

import pytest
from tradeoff_synthetic import synthetic

from posttrain.evidence.verdicts import quantities
from posttrain.studies.tradeoff.claims import (
    CLAIMS,
    ENOUGH,
    FIVE_POINTS,
    FROM_AUXILIARY,
    ON_HELPFULNESS,
    ON_SAFETY,
    ONE_POINT,
    has_gold,
)
from posttrain.studies.tradeoff.keys import ArmName
from posttrain.studies.tradeoff.outcome import ARMS

BY_KEY = {claim.key: claim for claim in CLAIMS}


def accuracy(contrast, test):
    return "differences", {
        "contrast": contrast, "test": test, "tuning": "tuned", "metric": "accuracy",
    }  # fmt: skip


def gain(metric, system, team="one model", parameter=None):
    where = {"team": team, "system": system, "metric": metric}
    return "advantages", where | ({} if parameter is None else {"parameter": parameter})


SUM = {"team": "specialists", "system": "sum", "parameter": 2.0, "metric": "recovered 2"}
#: Where each claim looks, with which sign, beyond which bound it is supported and below which value
#: on the same scale it is not supported.
CELLS = {
    "safety-needs-its-model": (
        accuracy("safety mix - helpfulness mix", "safety"), 1, 0.0, 0.017,
    ),
    "helpfulness-needs-its-model": (
        accuracy("safety mix - helpfulness mix", "helpfulness"), -1, 0.0, 0.07,
    ),
    "auxiliary-loss-helps": (accuracy("auxiliary loss - none", "safety"), 1, 0.0, 0.008),
    "one-ranks-as-well": (accuracy("joint - own specialist", "both"), 1, -0.01, -0.01),
    "equal-parts-cost": (accuracy("equal parts - own specialist", "both"), -1, 0.0, 0.01),
    "helpfulness-answers-unsafe": (
        ("conflicts", {"arm": ArmName.HELPFUL, "kind": "unsafe"}), -1, -0.5, -0.45,
    ),
    "safety-refuses-harmless": (
        ("conflicts", {"arm": ArmName.SAFE, "kind": "lookalike"}), -1, -0.5, -0.45,
    ),
    "two-choose-better": (gain("recovered 2", ArmName.JOINT), 1, 0.0, 0.01),
    "sum-beats-switch": (gain("recovered 2", "switch", "specialists", 0.15), 1, 0.0, 0.01),
    "sum-recovers": (("choices", SUM), 1, 0.9, 0.9),
}  # fmt: skip


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert {claim.study for claim in CLAIMS} == {"tradeoff"}
    assert {claim.unit for claim in CLAIMS} == {"points"}
    assert [key for key, claim in BY_KEY.items() if not claim.ours] == [
        "safety-needs-its-model", "helpfulness-needs-its-model", "auxiliary-loss-helps",
    ]  # fmt: skip


def test_the_papers_own_effects_are_those_of_its_tables():
    assert pytest.approx((64.5 - 62.8) / 100) == ON_SAFETY
    assert pytest.approx((63.2 - 56.2) / 100) == ON_HELPFULNESS
    assert pytest.approx((64.5 - 63.7) / 100) == FROM_AUXILIARY
    assert (ONE_POINT, FIVE_POINTS, ENOUGH) == (0.01, 0.05, 0.9)


def planted(sign, middle, low, high):
    """What a cell must hold so that, times the sign, it is ``middle`` from ``low`` to ``high``."""
    ends = sorted((sign * low, sign * high))
    return (sign * middle, *ends)


@pytest.mark.parametrize("key", CELLS)
def test_the_planted_cell_alone_decides_and_its_side_of_the_bound_turns_the_verdict(key):
    cell, sign, bound, least = CELLS[key]
    above = planted(sign, bound + 0.2, bound + 0.001, bound + 0.3)
    below = planted(sign, bound - 0.2, bound - 0.3, least - 0.001)
    open_ = planted(sign, bound, bound - 0.3, least + 0.001)
    for here, everywhere, status in (
        (above, below, "supported"), (below, above, "not supported"),
        (open_, above, "inconclusive"),
        (open_, below, "inconclusive"),
    ):  # fmt: skip
        record = synthetic(everywhere, cell=cell, planted=here)
        found, (item,) = BY_KEY[key].judge([record])
        assert found == status
        # Readers are shown what was measured, or its reverse, but no distance from a bound.
        shown = (
            here
            if item.measured
            else planted(1, sign * here[0], *sorted(sign * v for v in here[1:]))
        )
        assert item.shown == pytest.approx(shown)
        assert item.low <= item.estimate <= item.high


def test_on_human_data_fewer_errors_are_an_advantage():
    for key, system in (
        ("two-choose-better", ("errors", ArmName.JOINT)),
        ("sum-beats-switch", ("errors", "switch", "specialists", 0.15)),
    ):
        for here, status in (
            ((-0.1, -0.2, -0.02), "supported"),
            ((0.1, 0.02, 0.2), "not supported"),
            ((-0.05, -0.1, 0.02), "inconclusive"),
        ):
            record = synthetic((0.0, -9.0, 9.0), cell=gain(*system), planted=here, source="human")
            assert not has_gold(record)
            found, (item,) = BY_KEY[key].judge([record])
            assert found == status
            assert item.shown == pytest.approx((-here[0], -here[2], -here[1]))


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
        "one-ranks-as-well": ["mixes", "whole"],
        "equal-parts-cost": ["mixes", "whole"],
        "helpfulness-answers-unsafe": ["few", "mixes", "whole"],
        "safety-refuses-harmless": ["few", "mixes", "whole"],
        "two-choose-better": ["mixes", "whole"],
        "sum-beats-switch": ["few", "mixes", "whole"],
        "sum-recovers": ["few", "whole"],
    }
    assert ArmName.AUXILIARY in ARMS


def test_the_smallest_effects_that_matter_are_told():
    table = quantities(CLAIMS, [synthetic((0.1, 0.05, 0.2))])
    shown = table["smallest effect that matters"].tolist()
    assert shown == ["1.7", "7.0", "0.8", "–", "1.0", "–", "–", "1.0", "1.0", "–"]

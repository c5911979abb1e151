"""The claims about choices, each with its source and the rule that judges it."""

from dataclasses import replace
from functools import partial

from posttrain.evidence.claims import Claim, gain, has, row
from posttrain.studies.best_of_n.keys import Test
from posttrain.studies.choices.keys import Arm
from posttrain.studies.common.keys import TENTH

#: Where choices are compared: within Llama 3's 10 to 30 samples.
SAMPLES = 16
_gold = partial(row, "gains", n=SAMPLES)
_claim = partial(Claim, study="choices", unit="plain")

_CLAIMS = (
    _claim(
        key="edits-choose-better",
        source="inferred from Llama 3, section 4.1.2",
        statement="A reward model that is trained on edits too chooses better among a policy's "
        "answers.",
        paper="trains on edited > chosen > rejected; choices are not mentioned",
        quantity="gold of the best of 16, all pairs of groups with edits minus the same groups "
        "without",
        rule=gain(_gold(arm=Arm.EDITS), smallest=TENTH),
    ),
    _claim(
        key="margin-chooses-better",
        source="inferred from Llama 2, section 3.2.2",
        statement="A reward model that is trained with a large margin chooses better among a "
        "policy's answers.",
        paper="more accurate on what is easy to tell apart; choices are not mentioned",
        quantity="gold of the best of 16, large margin minus none",
        rule=gain(_gold(arm=Arm.LARGE), smallest=TENTH),
    ),
    _claim(
        key="policy-pairs-tell-choices",
        source="derived in this book",
        statement="Among reward models of one world, accuracy on pairs of the policy's own answers "
        "tells which choose well.",
        paper="not mentioned",
        quantity="rank correlation over reward models of that accuracy with gold of the best of "
        "16; at least 0.5",
        rule=gain(row("correlation", test=Test.POLICY), smallest=0.5),
    ),
    _claim(
        key="held-out-pairs-tell-choices",
        source="derived in this book",
        statement="Among reward models of one world, accuracy on held-out pairs tells which choose "
        "well.",
        paper="not mentioned",
        quantity="the same of held-out pairs",
        rule=gain(row("correlation", test=Test.HELD_OUT), smallest=0.5),
    ),
)
#: All of them; a record judges those whose row it has.
CLAIMS: tuple[Claim, ...] = tuple(replace(claim, applies=has(claim.rule.row)) for claim in _CLAIMS)

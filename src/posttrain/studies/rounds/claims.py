"""The claims about rounds, each with its source and the rule that judges it."""

from dataclasses import replace
from functools import partial

from posttrain.evidence.claims import Claim, gain, has, row
from posttrain.evidence.records import Record
from posttrain.studies.common.keys import TENTH
from posttrain.studies.rounds.keys import Arm, Measure


def last(record: Record) -> int:
    """The last round of a record."""
    return int(record.tables["levels"]["round"].max())


_gain = partial(row, "gains", round=last, measure=Measure.GOLD)
_claim = partial(Claim, study="rounds", unit="plain")

_CLAIMS = (
    _claim(
        key="rounds-add",
        source="Llama 3, section 4.1",
        statement="Rounds after the first still make the policy better.",
        paper="six rounds; no number given",
        quantity="gold after the last round minus after the first, Llama 3's recipe",
        rule=gain(row("growth", arm=Arm.LLAMA3), smallest=TENTH),
    ),
    _claim(
        key="fresh-beats-frozen",
        source="Llama 2, section 3.2.1",
        statement="A reward model trained anew in every round makes a better policy than that of "
        "the first round.",
        paper="accuracy degrades where the distribution moves; no number given",
        quantity="gold after the last round, Llama 3's recipe minus with the first reward model",
        rule=gain(-_gain(arm=Arm.FROZEN), smallest=TENTH),
    ),
    _claim(
        key="reward-models-decay",
        source="Llama 2, section 3.2.1",
        statement="A reward model ranks the answers of the policy that it made worse than those of "
        "the policy before.",
        paper="quickly degrades if not exposed to the new distribution; no number given",
        quantity="accuracy by gold on the policy before minus on the one after, mean of all rounds",
        unit="points",
        rule=gain(-row("shifts", arm=Arm.LLAMA3, shift="decay"), smallest=0.01),
    ),
    _claim(
        key="fresh-ones-mend",
        source="Llama 2, section 3.2.1",
        statement="The next reward model ranks the answers of a new policy better than the one "
        "that made it.",
        paper="gathering new preference data for the latest models; no number given",
        quantity="accuracy by gold of the next round's reward model minus this round's, same "
        "answers",
        unit="points",
        rule=gain(row("shifts", arm=Arm.LLAMA3, shift="renewal"), smallest=0.01),
    ),
    _claim(
        key="dpo-adds-to-sft",
        source="Llama 3, section 4.1.4",
        statement="DPO after SFT makes a better policy than SFT alone.",
        paper="no number given",
        quantity="gold after the last round, Llama 3's recipe minus with SFT only",
        rule=gain(-_gain(arm=Arm.SFT), smallest=TENTH),
    ),
    _claim(
        key="sft-adds-to-dpo",
        source="Llama 3, section 4.1.3",
        statement="Rejection sampling and SFT before DPO make a better policy than DPO alone.",
        paper="no number given",
        quantity="gold after the last round, Llama 3's recipe minus with DPO only",
        rule=gain(-_gain(arm=Arm.DPO), smallest=TENTH),
    ),
    _claim(
        key="latest-pairs-suit-dpo",
        source="Llama 3, section 4.2.1",
        statement="DPO on the latest annotations makes a better policy than on those of all "
        "rounds.",
        paper="only the latest batches; no number given",
        quantity="gold after the last round, Llama 3's recipe minus with all rounds' pairs",
        rule=gain(-_gain(arm=Arm.ALL_PAIRS), smallest=TENTH),
    ),
    _claim(
        key="all-rounds-samples-help",
        source="Llama 2, section 3.2.3",
        statement="SFT on the best samples of all rounds makes a better policy than on the last "
        "round's.",
        paper="mends what is forgotten; no number given",
        quantity="gold after the last round, with all rounds' samples minus Llama 3's recipe",
        rule=gain(_gain(arm=Arm.ALL_SAMPLES), smallest=TENTH),
    ),
    _claim(
        key="restart-costs-nothing",
        source="inferred from Llama 3, section 4.1",
        statement="Starting each round from the pre-trained checkpoint makes a better policy than "
        "going on from the last.",
        paper="reads as if every round did so",
        quantity="gold after the last round, Llama 3's recipe minus without a restart",
        rule=gain(-_gain(arm=Arm.CONTINUE), smallest=TENTH),
    ),
    _claim(
        key="choice-beats-random",
        source="Llama 3, section 4.2.2",
        statement="Keeping the best of ten by the reward model makes a better policy than keeping "
        "a random one.",
        paper="rejection sampling by reward model; no number given",
        quantity="gold after the last round, Llama 3's recipe minus with random samples",
        rule=gain(-_gain(arm=Arm.RANDOM), smallest=TENTH),
    ),
    _claim(
        key="edits-help-rounds",
        source="inferred from Llama 3, section 4.1.2",
        statement="Edits of chosen answers make a better policy.",
        paper="an edited response where the chosen one can be improved; no number given",
        quantity="gold after the last round, with edits minus Llama 3's recipe without",
        rule=gain(_gain(arm=Arm.EDITS), smallest=TENTH),
    ),
)
#: All of them; a record judges those whose row it has.
CLAIMS: tuple[Claim, ...] = tuple(replace(claim, applies=has(claim.rule.row)) for claim in _CLAIMS)

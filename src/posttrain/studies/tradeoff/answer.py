"""The answer of the study of helpfulness and safety in words, read from run records."""

from collections.abc import Sequence

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError
from posttrain.evaluation.combining import THRESHOLD, RuleKind
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, listing, ordered, title, with_interval
from posttrain.studies.tradeoff.claims import CLAIMS, conflict, difference, has_gold
from posttrain.studies.tradeoff.data import HUMAN
from posttrain.studies.tradeoff.keys import (
    BOTH,
    ERRORS,
    MAIN_EXCHANGE,
    RECOVERED,
    ArmName,
    Contrast,
    Kind,
    Team,
)
from posttrain.studies.tradeoff.report import choice
from posttrain.studies.tradeoff.rules import RANDOM

#: What a verdict on *two choose better than one* means for somebody who has to decide.
ADVICE = {
    "supported": "Train two models, one on each domain: together they choose better than one of "
    "all data.",
    "not supported": "Begin with one model of all data: in no run do two together choose better "
    "among responses. Train two only where what safety is worth must be set afterwards.",
    "inconclusive": "Whether two models choose better than one of all data depends on the data: "
    "try one first.",
}
#: What goes for two models in any case: sources disagree on which rule is better.
COMBINING = (
    "Calibrate two on held-out pairs, and compare sum and gate on prompts that only look unsafe."
)


def answer(records: Sequence[Record]) -> str:
    """The chapter's answer in Markdown, from recorded results.

    Raises:
        UserError: If there is no record, or one without a model of all data.
    """
    found = ordered(records)
    if not found:
        raise UserError("the answer needs a record of the study of helpfulness and safety")
    for record in found:
        if ArmName.JOINT not in record.settings["arms"]:
            raise UserError(f"{record.name}: the answer needs the arm {ArmName.JOINT!r}")
    claim = next(claim for claim in CLAIMS if claim.key == "two-choose-better")
    ranked = listing(
        [
            f"{with_interval(difference(record, Contrast.JOINT, BOTH))} points on {_named(record)}"
            for record in found
        ]
    )
    return (
        f"**{ADVICE[claim.judge(found)[0]]} {COMBINING}**\n\n"
        f"**Choosing.** {' '.join(_combined(record) for record in found)} A threshold means "
        "nothing for a model trained on comparisons alone until it is calibrated, and where "
        "prompts are not flagged the switch may put a dangerous answer above a refusal.\n\n"
        "**Ranking** held-out pairs, one model of all data differs from a specialist for each "
        f"domain by {ranked} (accuracy, mean of both domains). It cannot follow two kinds of "
        "annotators who contradict each other: with endless data it goes with whoever is more "
        "common on such prompts.\n\n"
        "**One aim alone.** A model of helpfulness scores the refusal of an unsafe request above "
        f"an answer in {_shares(found, ArmName.HELPFUL, Kind.UNSAFE)} of pairs, a model of safety "
        "an answer to a harmless request that looks unsafe above a refusal in "
        f"{_shares(found, ArmName.SAFE, Kind.LOOKALIKE)}. (95 % intervals; safety counts twice.)"
    )


def _named(record: Record) -> str:
    names = {SIMULATOR: "the simulator", HUMAN: "human data"}
    return names.get(record.source, title(record))


def _shares(records: Sequence[Record], arm: str, kind: str) -> str:
    return listing(
        [
            f"{with_interval(conflict(record, arm, kind), sign=False, digits=0)} % "
            f"({_named(record)})"
            for record in records
        ]
    )


def _combined(record: Record) -> str:
    """What the sum, the switch and single models choose, in a sentence."""
    gold = has_gold(record)
    metric = RECOVERED if gold else ERRORS

    def of(team: str, system: str, parameter: float | None = None) -> str:
        found = choice(record, team, system, metric, parameter)
        return f"{with_interval(found, sign=False, digits=0)} %"

    total = of(Team.SPECIALISTS, RuleKind.SUM, MAIN_EXCHANGE)
    switch = of(Team.SPECIALISTS, RuleKind.SWITCH, THRESHOLD)
    joint = of(Team.SINGLE, ArmName.JOINT)
    told = of(Team.SPECIALISTS, "switch, unsafe prompts flagged", THRESHOLD)
    if gold:
        return (
            f"Of the way from a random choice among {record.settings['responses']} responses to "
            f"the best possible one, one model of all data covers {joint} on {_named(record)}, the "
            f"sum of two calibrated scores {total}, and Llama 2's switch at {THRESHOLD:g} {switch} "
            f"without flags and {told} where it is told which prompts are unsafe."
        )
    chance = choice(record, Team.NOBODY, RANDOM, metric)[0] * PERCENT
    refusing = choice(record, Team.SINGLE, ArmName.JOINT, metric)[1] * PERCENT > chance
    worse = ": where safety data teach to refuse, models refuse what is harmless too" * refusing
    return (
        f"On {_named(record)} one model of all data chooses wrongly in {joint} (an answer to an "
        "unsafe request, a refusal of a harmless one that looks unsafe; mean of both), the sum in "
        f"{total}, the switch in {switch}, and chance in {chance:.0f} %{worse}. Told which prompts "
        f"are unsafe, the switch errs in {told}."
    )

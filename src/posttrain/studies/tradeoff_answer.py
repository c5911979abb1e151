"""The answer of the study of helpfulness and safety in words, read from run records."""

from collections.abc import Sequence

from posttrain.combining import THRESHOLD
from posttrain.records import Record
from posttrain.studies.report import PERCENT, listing, ordered, title, with_interval
from posttrain.studies.tradeoff_claims import TRADEOFF_CLAIMS, conflict, difference, has_gold
from posttrain.studies.tradeoff_outcome import BOTH, HELPFUL, JOINT, SAFE
from posttrain.studies.tradeoff_report import choice
from posttrain.studies.tradeoff_rules import MAIN_EXCHANGE, NOBODY, RANDOM, SINGLE

#: What a verdict on *two choose better than one* means for somebody who has to decide.
ADVICE = {
    "supported": "Train two models, one on each domain; calibrate each on held-out pairs of its "
    "own; add the scores, with safety weighted by what it is worth to you.",
    "not supported": "One model of all data is enough to choose by; two are worth their price "
    "where you want to set later what safety is worth.",
    "inconclusive": "Where helpfulness and safety are judged by different annotators, train two "
    "models, calibrate each on held-out pairs of its own domain, and add the scores; whether they "
    "choose better than one model of all data depends on the data.",
}


def answer(records: Sequence[Record]) -> str:
    """The chapter's answer in Markdown, from recorded results.

    Raises:
        ValueError: If there is no record, or one without the joint model.
    """
    found = ordered(records)
    if not found:
        raise ValueError("the answer needs a record of the study of helpfulness and safety")
    for record in found:
        if not (record.tables["choices"]["system"] == JOINT).any():
            raise ValueError(f"{record.name}: the answer needs the arm {JOINT!r}; run it too")
    claim = next(claim for claim in TRADEOFF_CLAIMS if claim.key == "two-choose-better")
    ranked = listing(
        [
            f"{with_interval(difference(r, 'joint − own specialist', BOTH))} ({title(r)})"
            for r in found
        ]
    )
    helpful = _shares(found, HELPFUL, "unsafe")
    safe = _shares(found, SAFE, "lookalike")
    return (
        f"**{ADVICE[claim.judge(found)[0]]}**\n\n"
        f"**Two models, or one?** One model of all data ranks both domains {ranked} points of "
        "accuracy better or worse than a specialist for each, mean of both domains. What one "
        "domain's annotators alone teach is wrong for the other: a model of helpfulness scores the "
        f"refusal of an unsafe request above an answer in {helpful} % of pairs, a model of safety "
        f"an answer to a harmless request that looks unsafe above its refusal in {safe} %.\n\n"
        f"**How do I combine two?** {' '.join(_combined(record) for record in found)} The switch "
        "takes a threshold for granted that only calibration gives a meaning, and even then may "
        "put a dangerous answer above a refusal."
    )


def _shares(records: Sequence[Record], arm: str, kind: str) -> str:
    return listing(
        [
            f"{with_interval(conflict(record, arm, kind), sign=False, digits=0)} ({title(record)})"
            for record in records
        ]
    )


def _combined(record: Record) -> str:
    """What the sum, the switch and single models choose, in a sentence."""
    gold = has_gold(record)
    metric = f"recovered {MAIN_EXCHANGE:g}" if gold else "errors"

    def of(team: str, system: str, parameter: float | None = None) -> str:
        found = choice(record, team, system, metric, parameter)
        return f"{with_interval(found, sign=False, digits=0)} %"

    total = of("specialists", "sum", MAIN_EXCHANGE)
    switch = of("specialists", "switch", THRESHOLD)
    joint = of(SINGLE, JOINT)
    if gold:
        return (
            "Choosing the best of "
            f"{record.settings['responses']} simulated responses, the sum of two calibrated "
            f"scores, safety counting {MAIN_EXCHANGE:g} times, covers {total} of the way from a "
            f"random to the best possible choice, Llama 2's switch at {THRESHOLD:g} {switch}, and "
            f"one model of all data {joint}."
        )
    chance = choice(record, NOBODY, RANDOM, metric)[0] * PERCENT
    return (
        f"On {title(record)}, the sum answers unsafe requests or refuses harmless ones in {total} "
        f"of choices (mean of both), the switch in {switch}, one model of all data in {joint}, "
        f"and chance in {chance:.0f} %."
    )

"""The answer of the study of edits in words, read from run records like every number in it."""

from collections.abc import Mapping, Sequence

from posttrain.data.preferences import PairKind
from posttrain.errors import UserError
from posttrain.evidence.claims import Status
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import listing, ordered, title
from posttrain.studies.common.keys import Tuning
from posttrain.studies.edits.claims import CLAIMS, most_data
from posttrain.studies.edits.keys import LEANS_SHORTER, ArmName, Contrast
from posttrain.studies.edits.outcome import ARMS, CONTRASTS
from posttrain.studies.edits.report import arms_of, contrast, gain, named


def answer(records: Sequence[Record]) -> str:
    """The chapter's answer in Markdown, from recorded results.

    Raises:
        UserError: If there is no record of all arms.
    """
    found = ordered(records)
    whole = [record for record in found if set(ARMS) <= set(arms_of(record))]
    if not whole:
        raise UserError("the answer needs a record with all arms of the study of edits")
    return (
        "**How are edits used?** As two more ranking pairs of their group, edited > chosen and "
        "edited > rejected, beside chosen > rejected. In an exact row each response is scored once "
        "however many pairs it is in, so an edit costs its own tokens and nothing else.\n\n"
        "**Which objective?** Plackett–Luce and the sum over all pairs are "
        f"{_by_status('plackett-luce-alike', found, _ALIKE)} (fifth line).\n\n"
        "**How much do edits add?** For ranking what annotators chose: "
        f"{_by_status('edits-help', found, _GAINS)} (first two lines). For ranking new edits above "
        f"what they edit: {_by_status('edits-teach-edits', found, _GAINS)} (third line). Against "
        "one more comparison for each edit: "
        f"{_by_status('worth-a-rating', found, _GAINS)} (last lines).\n\n"
        f"**When?** {_when(found, whole[-1])} {_lessons_in_brevity(found)}\n\n"
        "Points of accuracy on held-out pairs, 95 % intervals, most data of each source, "
        "hyperparameters tuned for each arm where a run had several to choose from:\n\n"
        + _answer_table(found)
    )


def _when(records: Sequence[Record], whole: Record) -> str:
    """How the gain changes with the length of training, or else with data, in a sentence.

    ``whole`` shows the change with data where no run was longer than another.
    """
    by_source = {record.label: record for record in records}
    if {"simulator", "simulator-longer"} <= set(by_source):
        longer, short = by_source["simulator-longer"], by_source["simulator"]
        where = most_data(longer)
        return (
            "Where data limits a model and not its training: with "
            f"{where['size']:,} groups of `simulator`, all pairs gain "
            f"{gain(short, ArmName.ALL, **where)} points in a short training and "
            f"{gain(longer, ArmName.ALL)} in one of {longer.settings['epochs']} times as many "
            "steps."
        )
    small = {"size": min(whole.settings["sizes"])}
    return (
        f"On {named(whole)} all pairs gain {gain(whole, ArmName.ALL, **small)} points at "
        f"{small['size']:,} groups and {gain(whole, ArmName.ALL)} at "
        f"{most_data(whole)['size']:,}."
    )


def _sources(key: str, records: Sequence[Record], status: Status) -> list[str]:
    """Sources whose evidence for a claim says so."""
    claim = next(claim for claim in CLAIMS if claim.key == key)
    evidence = zip(claim.judged_by(records), claim.judge(records)[1], strict=True)
    return [named(record) for record, item in evidence if item.status == status]


def _by_status(key: str, records: Sequence[Record], words: Mapping[Status, str]) -> str:
    """What the evidence for a claim says, each with the sources that say so; the undecided last."""
    parts: list[str] = []
    for status, said in words.items():
        names = _sources(key, records, status)
        if names:
            decided = status == "inconclusive" and parts
            parts.append(f"{said} elsewhere" if decided else f"{said} on {listing(names)}")
    return "; ".join(parts)


_ALIKE: Mapping[Status, str] = {
    "supported": "alike within a point",
    "not supported": "further apart than a point",
    "inconclusive": "not told apart to within a point",
}
_GAINS: Mapping[Status, str] = {
    "supported": "a gain",
    "not supported": "no gain of a point",
    "inconclusive": "undecided",
}


def _lessons_in_brevity(records: Sequence[Record]) -> str:
    """On which sources edits teach to prefer the shorter response, in a sentence."""
    found = _sources("no-brevity", records, "not supported")
    if not found:
        return "Nowhere do edits teach to prefer the shorter response as such."
    return (
        f"Edits teach whatever edits have in common: on {listing(found)} that is to prefer the "
        "shorter response, whichever annotators chose (fourth line)."
    )


def _answer_table(records: Sequence[Record]) -> str:
    """The differences behind the answer as a table in Markdown, a column a source."""
    lines = {
        "all pairs − edits ignored": [gain(record, ArmName.ALL) for record in records],
        "the same, one setting for all arms": [
            gain(record, ArmName.ALL, tuning=Tuning.SHARED) for record in records
        ],
        "the same on edited > chosen": [
            gain(record, ArmName.ALL, PairKind.EDITED_CHOSEN) for record in records
        ],
        "the same, lean to the shorter": [
            gain(record, ArmName.ALL, LEANS_SHORTER) for record in records
        ],
    }
    for name in (
        Contrast.PLACKETT_LUCE_ALL, Contrast.PROMPT_PAIR,
        Contrast.ALL_ONE_MORE, Contrast.ALL_TWO_MORE,
    ):  # fmt: skip
        needs = set(CONTRASTS[name])
        lines[name] = [
            contrast(record, name) if needs <= set(arms_of(record)) else "–" for record in records
        ]
    rows = [["", *map(title, records)], ["---"] * (len(records) + 1)]
    rows += [[name, *cells] for name, cells in lines.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

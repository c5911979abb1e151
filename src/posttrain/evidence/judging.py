"""The verdicts on claims: what each source says, and what they say together.

A verdict is about *these* sources. Runs of one source of data are averaged and count as one, since
most share its test groups; a GPU's runs of whole models count as a source of their own. The common
effect of the sources, weighted by precision, decides (:mod:`.evidence.pooling`), by the rule of the
claim:

- *holds here*: the one-sided p value lies below .05, after Holm's adjustment over the headline
  claims, and the estimate is at least as large as the smallest effect that matters;
- *too small to matter*: the 90 % interval lies within that on either side;
- *ruled out here*: the 95 % interval lies below it;
- *cannot tell*: none of these, or sources lie significantly on opposite sides of the bound (of an
  equivalence there are no sides), or the same quantity measured otherwise gives another verdict;
- *uninformative*: no record could show it.

A source that could not have seen the smallest effect that matters, by its standard error alone, is
called *coarse*; it is pooled with the little weight that it has. Results that a run was added for
after others were seen (``late``) are shown and not counted. A *check* follows from how things are
made, or is the speed of a machine: each record passes or fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from posttrain.errors import UserError
from posttrain.evidence.claims import Claim, Verdict, known
from posttrain.evidence.pooling import LEVEL, Effect, Pooled, effect, holm, pool
from posttrain.evidence.records import Record

#: What part a record has in a verdict.
Part = Literal["counts", "coarse", "late", "uninformative"]
Outcome = Verdict | Literal["passes", "fails", "no record"]


@dataclass(frozen=True)
class Voice:
    """What one record says about a claim.

    Attributes:
        shown: The quantity with its 95 % interval, as recorded.
        effect: The same with its standard error and degrees of freedom.
    """

    record: Record
    shown: tuple[float, float, float]
    effect: Effect
    part: Part


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim.

    Attributes:
        voices: What each record says.
        pooled: The sources that count together; None for checks, and where there are none.
        p: One-sided p value of the claim.
        adjusted: The same, adjusted for the number of headline claims; p itself for others.
        torn: The verdicts on the quantity and on it measured otherwise, where they differ.
    """

    claim: Claim
    voices: tuple[Voice, ...]
    pooled: Pooled | None
    p: float
    adjusted: float
    outcome: Outcome
    torn: tuple[Outcome, Outcome] | None = None


def judge(claims: Sequence[Claim], records: Sequence[Record]) -> dict[str, Judgement]:
    """The verdict on each claim by its key.

    Claims that share an error rate must be judged together.
    """
    found = {claim.key: _hear(claim, records) for claim in claims}
    adjusted = holm(
        {
            key: judgement.p
            for key, judgement in found.items()
            if judgement.claim.headline and judgement.pooled
        }
    )
    decided = {
        key: _decide(judgement, adjusted.get(key, judgement.p)) for key, judgement in found.items()
    }
    return {key: _confirm(judgement, records) for key, judgement in decided.items()}


def source_of(record: Record) -> str:
    """The source that a record speaks for, whatever its variant of settings.

    >>> source_of(Record("edits", "simulator-longer", "real", {}, {}, {}))
    'simulator'
    """
    base = record.source.split("-")[0]
    return f"{base} (GPU)" if record.profile == "gpu" else base


def _hear(claim: Claim, records: Sequence[Record]) -> Judgement:
    """What records say, before the verdict."""
    voices = tuple(_voice(claim, record) for record in claim.judged_by(records))
    if claim.check:
        return Judgement(claim, voices, None, 1.0, 1.0, "no record")
    counted = [voice.effect for voice in voices if voice.part in ("counts", "coarse")]
    pooled = pool(counted) if counted else None
    p = claim.rule.p(pooled.common) if pooled else 1.0
    return Judgement(claim, voices, pooled, p, p, "no record")


def _voice(claim: Claim, record: Record) -> Voice:
    shown = claim.rule.row.read(record)
    if "clusters" not in record.data and not claim.check:
        raise UserError(
            f"{record.name}.json: data has no `clusters`, the number of split groups tested on, "
            f"without which no error can be stated; run `posttrain study {record.study}` anew"
        )
    said = effect(source_of(record), shown, record.data.get("clusters", 2))
    part: Part = "counts"
    if not known(shown) or shown[1] == shown[2] or not claim.informs(record):
        # What did not vary at all, as with one seed and one group, has no error to be weighed by.
        part = "uninformative"
    elif claim.late(record):
        part = "late"
    elif claim.rule.visible and said.detectable > claim.rule.visible:
        part = "coarse"
    return Voice(record, shown, said, part)


def _decide(judgement: Judgement, adjusted: float) -> Judgement:
    claim = judgement.claim
    outcome: Outcome
    if not judgement.voices:
        outcome = "no record"
    elif claim.check:
        passed = all(claim.rule.passes(voice.record) for voice in judgement.voices)
        outcome = "passes" if passed else "fails"
    elif judgement.pooled is None:
        outcome = "uninformative"
    elif not claim.rule.equivalence and _contradict(judgement):
        outcome = "cannot tell"
    else:
        outcome = claim.rule.verdict(judgement.pooled.common, adjusted)
    return replace(judgement, adjusted=adjusted, outcome=outcome)


def _confirm(judgement: Judgement, records: Sequence[Record]) -> Judgement:
    """The verdict, unless the quantity measured otherwise gives another one."""
    claim = judgement.claim
    if claim.otherwise is None or judgement.pooled is None:
        return judgement
    again = _hear(replace(claim, rule=replace(claim.rule, row=claim.otherwise)), records)
    # As strict as for the first: p is adjusted by the same factor.
    factor = judgement.adjusted / judgement.p if judgement.p else 1.0
    second = _decide(again, min(1.0, factor * again.p)).outcome
    if second == judgement.outcome:
        return judgement
    return replace(judgement, outcome="cannot tell", torn=(judgement.outcome, second))


def _contradict(judgement: Judgement) -> bool:
    """Whether sources lie significantly on both sides of what the claim is measured from."""
    bound = judgement.claim.rule.bound
    assert judgement.pooled is not None
    assert not callable(bound)
    sides = {
        one.estimate > bound
        for one in judgement.pooled.sources
        if min(one.p(bound), (-one).p(-bound)) < LEVEL / 2
    }
    return len(sides) == 2

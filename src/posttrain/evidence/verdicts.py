"""What all studies show readers in the same way: numbers with intervals, verdicts, provenance."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from posttrain.evidence.claims import Claim
from posttrain.evidence.judging import Judgement, Voice
from posttrain.evidence.records import Record

#: Studies and sources in the order in which tables show them, with the titles of their columns.
TITLES = {
    ("margin", "ukpconvarg"): "ukpconvarg (frozen features)",
    ("margin", "seeda"): "seeda (frozen features)",
    ("margin", "ukpconvarg-full"): "ukpconvarg (SmolLM2, trained)",
    ("margin", "seeda-full"): "seeda (SmolLM2, trained)",
    ("margin", "simulator"): "simulator (full training)",
    ("rows", "seeda"): "seeda (SmolLM2)",
    ("rows", "ukpconvarg"): "ukpconvarg (SmolLM2)",
    ("rows", "finegrained_rlhf"): "finegrained_rlhf (SmolLM2)",
    ("rows", "simulator"): "simulator (tiny Llama)",
    ("packing", "seeda"): "seeda (top layers)",
    ("packing", "ukpconvarg"): "ukpconvarg (top layers)",
    ("packing", "finegrained_rlhf"): "finegrained_rlhf (top layers)",
    ("packing", "simulator"): "simulator (full training)",
    ("packing", "simulator-anew"): "simulator (drawn anew)",
    ("edits", "seeda"): "seeda (frozen features)",
    ("edits", "finegrained_rlhf"): "finegrained_rlhf (frozen features)",
    ("edits", "seeda-full"): "seeda (top layers)",
    ("edits", "finegrained_rlhf-full"): "finegrained_rlhf (top layers)",
    ("edits", "simulator"): "simulator (full training)",
    ("edits", "simulator-longer"): "simulator (trained longer)",
    ("edits", "simulator-careless"): "simulator (careless editors)",
    ("tradeoff", "simulator"): "simulator (full training)",
    ("tradeoff", "human"): "human data (frozen features)",
    ("tradeoff", "human-full"): "human data (SmolLM2, trained)",
    ("training", "smollm2_cpu"): "ukpconvarg (top layers)",
    ("throughput", "smollm2"): "SmolLM2, speed",
    ("throughput", "llama-1b"): "1B Llama, speed",
}
PERCENT = 100.0


def ordered(records: Sequence[Record]) -> list[Record]:
    """Records in the order of :data:`TITLES`, a GPU's behind the CPU's, unknown ones last."""
    places = {name: place for place, name in enumerate(TITLES)}

    def place(record: Record) -> tuple[int, bool]:
        return places.get((record.study, record.source), len(places)), record.profile == "gpu"

    return sorted(records, key=place)


def title(record: Record) -> str:
    """A column title, its own among the records of a study."""
    if record.profile == "gpu":
        # Whole models are trained there, whatever part of them a CPU trains.
        return record.label
    return TITLES.get((record.study, record.source), record.source)


def with_interval(
    values: tuple[float, float, float],
    *,
    scale: float = PERCENT,
    digits: int = 1,
    sign: bool = True,
) -> str:
    """``+0.3 [−0.1, +0.7]``: an estimate and its interval, with true minus signs.

    The interval has no breaking space. It is left out where its ends are equal, as for quantities
    that are known exactly.
    """
    form = f"{'+' if sign else ''}.{digits}f"
    # A rounded zero keeps its sign, which says on which side of zero an end lies.
    value, low, high = (format(v * scale, form).replace("-", "−") for v in values)
    return value if values[1] == values[2] else f"{value} [{low},\u00a0{high}]"


def listing(parts: Sequence[str]) -> str:
    """Join words with commas and an *and*."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def number(values: tuple[float, float, float], claim: Claim) -> str:
    """A quantity of a claim with its interval, in its unit."""
    if claim.unit == "points":
        return with_interval(values, sign=not claim.rule.of_share)
    if max(map(abs, values)) < 0.0005:
        # Rounding errors differ from machine to machine, and three digits would show nothing.
        return "<0.001"
    return with_interval(values, scale=1, digits=3, sign=not claim.rule.of_share)


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0")


def _size(value: float, claim: Claim) -> str:
    scale, digits = (PERCENT, 1) if claim.unit == "points" else (1, 3)
    return f"{value * scale:.{digits}f}"


def voice(said: Voice, claim: Claim) -> str:
    """What a record measured, and what keeps it from a full vote."""
    part = "" if said.part == "counts" or claim.check else f" ({said.part})"
    return number(said.shown, claim) + part


def pooled(judgement: Judgement) -> str:
    """The common effect of all sources with its interval; a dash where there is none."""
    if judgement.pooled is None:
        return "–"
    common = judgement.pooled.common
    return number((common.estimate, *common.interval()), judgement.claim)


def span(judgement: Judgement) -> str:
    """The least and the largest estimate of a source, in the claim's unit."""
    if judgement.pooled is None:
        return "–"
    values = [source.estimate for source in judgement.pooled.sources]
    ends = [number((value,) * 3, judgement.claim) for value in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


def random_effects(judgement: Judgement) -> str:
    """The mean over sources of which these are a sample, how much such differ, and whether at all.

    A dash where there are fewer than two.
    """
    if judgement.pooled is None or len(judgement.pooled.sources) < 2:
        return "–"
    found = judgement.pooled
    shown = number(found.random, judgement.claim)
    spread = _size(math.sqrt(found.tau2), judgement.claim)
    return f"{shown}, τ {spread}, differ p {_p(found.differ)}"


def detectable(judgement: Judgement) -> str:
    """The effect that all sources together find four times in five, by their errors alone."""
    if judgement.pooled is None:
        return "–"
    return _size(judgement.pooled.common.detectable, judgement.claim)


def p_value(judgement: Judgement) -> str:
    """The p value that decides, starred where it is adjusted; a dash for checks."""
    if judgement.pooled is None:
        return "–"
    return _p(judgement.adjusted) + "*" * judgement.claim.headline


def verdict(judgement: Judgement) -> str:
    """The verdict, with both of which it is torn between."""
    if judgement.torn is None:
        return judgement.outcome
    first, second = judgement.torn
    return f"{judgement.outcome} ({first}; measured otherwise {second})"


def verdict_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Every claim: the verdict, what all sources say together, and what the paper says."""
    rows = [
        {
            "claim": f"{one.claim.statement} ({one.claim.source})",
            "verdict": verdict(one),
            "all sources": pooled(one),
            "paper": one.claim.paper,
            "threshold": matters(one.claim),
            "detectable": detectable(one),
            "p": p_value(one),
        }
        for one in judgements
    ]
    return pd.DataFrame(rows).set_index("claim")


def brief_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Every claim with its verdict and the common effect of all sources, for the end of a page."""
    rows = [(one.claim.statement, one.outcome, pooled(one)) for one in judgements]
    return pd.DataFrame(rows, columns=["claim", "verdict", "all sources"]).set_index("claim")


def source_table(judgements: Sequence[Judgement], fresh: Sequence[Record] = ()) -> pd.DataFrame:
    """What each record says of every claim, beside what would be expected of an unseen source.

    ``fresh`` are results of the run at hand: shown as *this run*, they have no vote.
    """
    rows = []
    for one in judgements:
        row = {"claim": one.claim.statement}
        row |= {title(said.record): voice(said, one.claim) for said in one.voices}
        row["another source"] = random_effects(one)
        here = [number(one.claim.rule.row.read(r), one.claim) for r in one.claim.judged_by(fresh)]
        if fresh:
            row["this run"] = "; ".join(here) or "–"
        rows.append(row)
    recorded = {said.record.name: said.record for one in judgements for said in one.voices}
    last = ["another source", *(["this run"] if fresh else [])]
    shown = [*map(title, ordered([*recorded.values()])), *last]
    return pd.DataFrame(rows).set_index("claim")[shown].fillna("–")


def departures(judged: Mapping[str, Judgement], written: Mapping[str, str]) -> str:
    """Which verdicts are not those that a text was written for; empty where all are.

    Sentences that rest on verdicts stand in the notebooks; with other records this is said below.
    """
    told = [
        f"`{key}` comes out as *{judged[key].outcome}* here, not as *{outcome}*"
        for key, outcome in written.items()
        if judged[key].outcome != outcome
    ]
    return f"\n\n(Written for other records: {listing(told)}.)" if told else ""


def matters(claim: Claim) -> str:
    """The smallest effect that matters, the loss or difference that does, or the bound."""
    rule = claim.rule
    if rule.of_share and not callable(rule.bound):
        way = "above" if rule.direction > 0 else "below"
        return f"{way} {_size(rule.bound + rule.direction * rule.smallest, claim)}"
    return _size(rule.visible, claim) if rule.visible else "–"


def quantities(claims: Sequence[Claim]) -> pd.DataFrame:
    """What each claim measures, and what is said of it."""
    rows = [
        (claim.statement, claim.quantity, str(claim.rule), "check" * claim.check)
        for claim in claims
    ]
    columns = ["claim", "measured as", "holds if it lies", ""]
    return pd.DataFrame(rows, columns=columns).set_index("claim")


def places(claims: Sequence[Claim]) -> pd.DataFrame:
    """Where each claim is written down and judged, and the command that shows all it rests on."""
    rows = [
        (claim.statement, claim.key, claim.path, f"posttrain claims {claim.key}")
        for claim in claims
    ]
    return pd.DataFrame(rows, columns=["claim", "key", "judged in", "command"]).set_index("claim")


def provenance(records: Sequence[Record]) -> pd.DataFrame:
    """Where recorded numbers come from: one row a record."""
    rows = []
    for record in ordered(records):
        where = record.environment
        rows.append(
            {
                "record": f"{record.name}.json",
                "profile": record.profile,
                "data": record.data.get("fingerprint", "–"),
                "seeds": record.settings.get("seeds", "–"),
                "device": f"{where['device']}, {where['threads']} threads",
                "minutes": f"{where['seconds'] / 60:.0f}",
                "commit": where["commit"],
                "started": where["started"],
            }
        )
    return pd.DataFrame(rows).set_index("record")

"""What all studies show readers in the same way: numbers with intervals, verdicts, provenance."""

import math
from collections.abc import Sequence
from typing import get_args

import pandas as pd

from posttrain.evidence.claims import Claim, Evidence, Status
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
#: Columns of sources that a table of verdicts has room for.
MOST_SOURCES = 4


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


def _number(values: tuple[float, float, float], claim: Claim) -> str:
    if claim.unit == "points":
        return with_interval(values)
    if max(map(abs, values)) < 0.0005:
        # Rounding errors differ from machine to machine, and three digits would show nothing.
        return "<0.001"
    return with_interval(values, scale=1, digits=3)


def cell(evidence: Evidence, claim: Claim) -> str:
    """What a record measured, and what that says of the claim."""
    return f"{_number(evidence.shown, claim)} {evidence.status}"


def verdict_table(
    claims: Sequence[Claim], recorded: Sequence[Record], fresh: Sequence[Record] = ()
) -> pd.DataFrame:
    """Every claim: what the paper says, what each record says, and the verdict on all records.

    ``fresh`` are results of the run at hand: shown as *this run*, they do not decide the verdict.
    """
    recorded = ordered(recorded)
    rows = []
    for claim in claims:
        status, evidence = claim.judge(recorded)
        judged = claim.judged_by(recorded)
        cells: dict[str, list[str]] = {}
        gpus = sum(record.profile == "gpu" for record in judged)
        for record, item in zip(judged, evidence, strict=True):
            whose = f"{record.source}: " if record.profile == "gpu" and gpus > 1 else ""
            cells.setdefault(_column(record), []).append(whose + cell(item, claim))
        for record in claim.judged_by(fresh):
            cells.setdefault("this run", []).append(cell(claim.test(record), claim))
        row = {"claim": f"{claim.statement} ({claim.source})", "paper": claim.paper}
        row |= {"GPU": "not run"} | {name: "; ".join(parts) for name, parts in cells.items()}
        rows.append(row | {"verdict": status})
    order = ["paper", "GPU", *map(_column, recorded), "this run", "verdict"]
    shown = [name for name in dict.fromkeys(order) if any(name in row for row in rows)]
    return pd.DataFrame(rows).set_index("claim")[shown].fillna("–")


def verdicts_by_status(
    claims: Sequence[Claim], recorded: Sequence[Record], fresh: Sequence[Record] = ()
) -> pd.DataFrame:
    """As :func:`verdict_table`, with a column for each status; for studies of many sources."""
    recorded = ordered(recorded)
    rows = []
    for claim in claims:
        verdict, evidence = claim.judge(recorded)
        row: dict[str, str] = {"claim": f"{claim.statement} ({claim.source})"}
        for status in get_args(Status):
            found = [
                f"{title(record)}: {_number(item.shown, claim)}"
                for record, item in zip(claim.judged_by(recorded), evidence, strict=True)
                if item.status == status
            ]
            row[status] = "; ".join(found) or "–"
        here = [cell(claim.test(record), claim) for record in claim.judged_by(fresh)]
        if fresh:
            row["this run"] = "; ".join(here) or "–"
        rows.append(row | {"verdict": verdict})
    return pd.DataFrame(rows).set_index("claim")


def verdict_tables(
    claims: Sequence[Claim], recorded: Sequence[Record], fresh: Sequence[Record] = ()
) -> list[pd.DataFrame]:
    """One :func:`verdict_table` for the claims of each study, whose sources are the columns."""
    studies = dict.fromkeys(claim.study for claim in claims)
    return [
        verdict_table([claim for claim in claims if claim.study == study], recorded, fresh)
        for study in studies
    ]


def scoreboard(claims: Sequence[Claim], recorded: Sequence[Record]) -> list[pd.DataFrame]:
    """The tables of :func:`verdict_tables`, or of :func:`verdicts_by_status` for many sources."""
    for study in {claim.study for claim in claims}:
        sources = {_column(record) for record in recorded if record.study == study}
        if len(sources) > MOST_SOURCES:
            return [verdicts_by_status(claims, recorded)]
    return verdict_tables(claims, recorded)


def _column(record: Record) -> str:
    """GPU runs of all sources share a column."""
    return "GPU" if record.profile == "gpu" else title(record)


def summary(claims: Sequence[Claim], records: Sequence[Record], subject: str) -> str:
    """How many claims about ``subject``, say ``the margin``, came out how: a Markdown sentence."""
    parts: list[str] = []
    for ours, whose in ((False, "of the papers"), (True, "of this book")):
        verdicts = [claim.judge(records)[0] for claim in claims if claim.ours == ours]
        if not verdicts:
            continue
        if not parts:
            whose += f" about {subject}"
        parts.append(
            f"of {len(verdicts)} claims {whose}, {verdicts.count('supported')} supported, "
            f"{verdicts.count('not supported')} not supported, "
            f"{verdicts.count('inconclusive')} inconclusive"
        )
    text = "; ".join(parts)
    return f"**{text[0].upper()}{text[1:]}.**"


def smallest_effects(claim: Claim, evidence: Sequence[Evidence]) -> str:
    """The smallest effects that matter to some evidence; a dash where a bound takes their place."""
    smallest = sorted({item.smallest for item in evidence if item.measured is None})
    scale, digits = (PERCENT, 1) if claim.unit == "points" else (1, 3)
    shown = (
        "no gain to lose" if value == -math.inf else f"{value * scale:.{digits}f}"
        for value in smallest
    )
    return ", ".join(shown) or "–"


def quantities(claims: Sequence[Claim], records: Sequence[Record]) -> pd.DataFrame:
    """What each claim's test measures, a bound included, and the smallest effect that matters."""
    rows = []
    for claim in claims:
        evidence = claim.judge(records)[1]
        rows.append((claim.statement, claim.quantity, smallest_effects(claim, evidence)))
    columns = ["claim", "measured as", "smallest effect that matters"]
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

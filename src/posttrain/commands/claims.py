"""``posttrain claims``: which claims hold up, and on what rows of which records that rests."""

import argparse
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from inspect import getsourcelines
from pathlib import Path

from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.evidence.claims import Claim, Evidence
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import cell, ordered, smallest_effects
from posttrain.studies.claims import CLAIMS, SUBJECTS


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain claims`` and return its exit code."""
    known = _parser().parse_args(arguments)
    if known.key is not None and known.key not in CLAIMS:
        near = get_close_matches(known.key, CLAIMS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown claim {known.key!r}; {hint}`posttrain claims` lists all")
    recorded = _load(known.results)
    if known.key is None:
        _list(recorded)
    else:
        _show(CLAIMS[known.key], recorded, known.results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posttrain claims", description=__doc__)
    parser.add_argument("key", nargs="?", metavar="KEY", help="a claim; by default all are listed")
    parser.add_argument(
        "--results", type=Path, default=Path("book/results"), metavar="FOLDER",
        help="folder of run records; by default book/results",
    )  # fmt: skip
    return parser


def _load(folder: Path) -> list[Record]:
    """The records of a folder that claims are judged by, in the order of the scoreboard."""
    studies = dict.fromkeys(claim.study for claim in CLAIMS.values())
    found = records.load_all(folder, *studies)
    if not found:
        raise UserError(
            f"{folder}: no run records that claims are judged by; pass --results FOLDER, for "
            "instance book/results of the project's checkout, or what `posttrain study` wrote"
        )
    return ordered(found)


def _list(recorded: Sequence[Record]) -> None:
    for subject, claims in SUBJECTS.items():
        print(f"\nAbout {subject}:")
        for claim in claims:
            verdict = claim.judge(recorded)[0] if claim.judged_by(recorded) else "no record"
            print(f"  {claim.key:{max(map(len, CLAIMS))}}  {verdict:13}  {claim.statement}")


def _show(claim: Claim, recorded: Sequence[Record], folder: Path) -> None:
    judges = claim.judged_by(recorded)
    verdict, evidence = claim.judge(recorded) if judges else ("no record", [])
    for name, text in (
        ("claim", claim.statement),
        ("source", claim.source),
        ("paper", claim.paper),
        ("measured", claim.quantity),
        ("supported if all of it lies", claim.test.rule),
        ("smallest effect that matters", smallest_effects(claim, evidence)),
        ("written down in", f"{claim.path}:{claim.place[1]}"),
        ("judged by", _location(claim.test.evidence)),
        ("verdict", verdict),
    ):
        print(f"{name:29} {text}")
    for record, item in zip(judges, evidence, strict=True):
        print(f"\n{folder / record.name}.json: {cell(item, claim)}")
        for row in claim.test.rows:
            where = ", ".join(f"{column}={value}" for column, value in row.place(record).items())
            value, low, high = (
                f"{number:.6g}" for number in (row if row.sign > 0 else -row).read(record)
            )
            sign = "" if row.sign > 0 else ", judged with the opposite sign"
            print(f"  {row.table}: {where}: {value} [{low}, {high}] as stored{sign}")
    if not judges:
        print(f"\nrun `posttrain study {claim.study}` to judge it")


def _location(test: Callable[[Record], Evidence]) -> str:
    """Name and place of a function, or of the one that made it."""
    name = test.__qualname__.split(".")[0]
    line = getsourcelines(getattr(sys.modules[test.__module__], name, test))[1]
    return f"{name}(), src/{test.__module__.replace('.', '/')}.py:{line}"

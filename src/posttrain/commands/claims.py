"""``posttrain claims``: which claims hold up, and on what rows of which records that rests."""

import argparse
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from posttrain.commands.pages import PAGES
from posttrain.config.help import Formatter
from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.evidence.judging import Judgement, judge
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import (
    detectable,
    matters,
    ordered,
    p_value,
    pooled,
    random_effects,
    verdict,
    voice,
)
from posttrain.studies.claims import CLAIMS, SUBJECTS


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain claims`` and return its exit code."""
    known = _parser().parse_args(arguments)
    if known.key is not None and known.key not in CLAIMS:
        near = get_close_matches(known.key, CLAIMS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"unknown claim {known.key!r}; {hint}`posttrain claims` lists all")
    recorded = _load(known.results)
    judged = judge([*CLAIMS.values()], recorded)
    if known.key is None:
        _list(judged)
    else:
        _show(judged[known.key], known.results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain claims",
        description="Say which claims hold up, and on what rows of which records that rests.",
        epilog=PAGES["claims"].epilog,
        formatter_class=Formatter,
    )
    parser.add_argument("key", nargs="?", metavar="KEY", help="a claim; by default all are listed")
    parser.add_argument(
        "--results", type=Path, default=Path("book/results"), metavar="FOLDER",
        help="folder of run records",
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


def _list(judged: Mapping[str, Judgement]) -> None:
    for subject, claims in SUBJECTS.items():
        print(f"\nAbout {subject}:")
        for claim in claims:
            one = judged[claim.key]
            print(f"  {claim.key:{max(map(len, CLAIMS))}}  {one.outcome:19}  {claim.statement}")
            if one.pooled:
                sources = ", ".join(source.source for source in one.pooled.sources)
                print(
                    f"  {'':{max(map(len, CLAIMS))}}  {pooled(one)} over {sources}; threshold "
                    f"{matters(claim)}, detectable {detectable(one)}, p {p_value(one)}"
                )
    print("\n*: adjusted for the number of headline claims. `posttrain claims KEY` shows one.")


def _show(judgement: Judgement, folder: Path) -> None:
    claim = judgement.claim
    kind = "check" if claim.check else "headline claim" if claim.headline else "claim"
    for name, text in (
        (kind, claim.statement),
        ("source", claim.source),
        ("paper", claim.paper),
        ("measured", claim.quantity),
        ("holds if it lies", str(claim.rule)),
        ("threshold", matters(claim)),
        ("written down in", f"{claim.path}:{claim.place[1]}"),
        ("verdict", verdict(judgement)),
        ("all sources together", pooled(judgement)),
        ("detectable by them", detectable(judgement)),
        ("another source", random_effects(judgement)),
        ("p", p_value(judgement)),
    ):
        if text != "–":
            print(f"{name:21} {text}")
    row = claim.rule.row
    for said in judgement.voices:
        record = said.record
        print(f"\n{folder / record.name}.json: {voice(said, claim)}")
        where = ", ".join(f"{column}={value}" for column, value in row.place(record).items())
        value, low, high = (
            f"{number:.6g}" for number in (row if row.sign > 0 else -row).read(record)
        )
        sign = "" if row.sign > 0 else ", judged with the opposite sign"
        print(f"  {row.table}: {where}: {value} [{low}, {high}] as stored{sign}")
        if not claim.check:
            found = said.effect
            print(
                f"  as {found.source}: standard error {found.error:.4g}, {found.freedom:g} degrees "
                f"of freedom, detectable {found.detectable:.4g}"
            )
    if not judgement.voices:
        print(f"\nrun `posttrain study {claim.study}` to judge it")

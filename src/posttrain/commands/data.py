"""``posttrain data``: check, convert or simulate preference data."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from posttrain.data.check import check
from posttrain.data.preferences import RankedGroup, from_record
from posttrain.data.reading import write_groups
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError

OUTPUT = ".jsonl, .jsonl.gz, .parquet"


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain data`` and return its exit code."""
    known = _parser().parse_args(arguments)
    return known.run(known)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posttrain data", description=__doc__)
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")

    check = kinds.add_parser("check", help="summarise files and list their bad records")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--skip-bad", action="store_true", help="list bad records, but succeed")
    check.set_defaults(run=_check)

    convert = kinds.add_parser("convert", help="convert a public original to preference records")
    convert.add_argument("name", metavar="NAME", help=", ".join(ORIGINALS))
    convert.add_argument("path", type=Path, metavar="PATH", help="what was downloaded")
    convert.add_argument("output", type=Path, metavar="OUTPUT", help=OUTPUT)
    convert.set_defaults(run=_convert)

    simulated = kinds.add_parser("simulate", help="write simulated preference records")
    simulated.add_argument("output", type=Path, metavar="OUTPUT", help=OUTPUT)
    simulated.add_argument("--groups", type=int, default=1000)
    simulated.add_argument("--seed", type=int, default=0)
    simulated.add_argument("--domain", choices=["helpfulness", "safety"], default="helpfulness")
    simulated.add_argument("--edited-share", type=float, default=0.0)
    simulated.add_argument(
        "--sensitive", type=float, default=0.0, help="share of prompts that are or look unsafe"
    )
    simulated.set_defaults(run=_simulate)
    return parser


def _check(known: argparse.Namespace) -> int:
    return check(known.files, skip_bad=known.skip_bad)


def _convert(known: argparse.Namespace) -> int:
    if known.name not in ORIGINALS:
        raise UserError(f"unknown original {known.name!r}; known: {', '.join(ORIGINALS)}")
    dropped: Counter[str] = Counter()
    written = 0

    def groups() -> Iterator[RankedGroup]:
        nonlocal written
        for record in ORIGINALS[known.name].convert(known.path, dropped):
            yield from_record(record, where=f"{known.name}, {record.get('id')}")
            written += 1

    write_groups(known.output, groups())
    print(f"wrote {written} records to {known.output}")
    for reason, count in sorted(dropped.items()):
        print(f"dropped {count}: {reason}")
    return 0


def _simulate(known: argparse.Namespace) -> int:
    simulated = simulate(
        known.groups,
        seed=known.seed,
        domain=known.domain,
        edited_share=known.edited_share,
        sensitive=known.sensitive,
    )
    write_groups(known.output, (group.ranked for group in simulated))
    print(f"wrote {len(simulated)} records to {known.output}")
    return 0

"""``posttrain data``: check, convert or simulate preference data."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from posttrain.commands.data_check import check
from posttrain.commands.pages import PAGES
from posttrain.config.fields import at_least_one
from posttrain.config.help import Formatter
from posttrain.data.columns import parse_columns
from posttrain.data.preferences import RankedGroup, from_record
from posttrain.data.ratings import check_min_difference
from posttrain.data.reading import write_groups
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import stream_ranked
from posttrain.errors import UserError

OUTPUT = ".jsonl, .jsonl.gz, .parquet"


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain data`` and return its exit code."""
    known = _parser().parse_args(arguments)
    return known.run(known)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain data",
        description="Check, convert or simulate preference data.",
        epilog=PAGES["data"].epilog,
        formatter_class=Formatter,
    )
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, purpose: str) -> argparse.ArgumentParser:
        return kinds.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=PAGES[f"data {name}"].epilog,
            formatter_class=Formatter,
        )

    check = add("check", "summarise files and list their bad records")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument(
        "--skip_bad", "--skip-bad", action="store_true", help="list bad records, but succeed"
    )
    check.add_argument("--min_difference", type=float, default=0.0, help="as for posttrain train")
    check.add_argument("--columns", help="as for posttrain train")
    check.add_argument(
        "--model",
        help="also say what this model would read: how long texts are in tokens, what is cut, and "
        "what its chat template leaves out",
    )
    check.add_argument("--chat_template", help="as for posttrain train; with --model")
    check.add_argument("--pad_token", help="as for posttrain train; with --model")
    check.add_argument(
        "--max_tokens",
        type=int,
        help="what training with this limit would cut and leave out; by default the model's "
        "context is the limit; with --model",
    )
    check.set_defaults(run=_check)

    convert = add("convert", "convert a public original to preference records")
    convert.add_argument("name", metavar="NAME", help=", ".join(ORIGINALS))
    convert.add_argument("path", type=Path, metavar="PATH", help="what was downloaded")
    convert.add_argument("output", type=Path, metavar="OUTPUT", help=OUTPUT)
    convert.set_defaults(run=_convert)

    simulated = add("simulate", "write simulated preference records")
    simulated.add_argument("output", type=Path, metavar="OUTPUT", help=OUTPUT)
    simulated.add_argument("--groups", type=int, default=1000, help="how many records")
    simulated.add_argument("--seed", type=int, default=0, help="seeds the simulator")
    simulated.add_argument(
        "--domain", choices=["helpfulness", "safety"], default="helpfulness",
        help="what annotators judge",
    )  # fmt: skip
    simulated.add_argument(
        "--edited_share", "--edited-share", type=float, default=0.0,
        help="share of records that may carry an edited response",
    )  # fmt: skip
    simulated.add_argument(
        "--sensitive", type=float, default=0.0, help="share of prompts that are or look unsafe"
    )
    simulated.set_defaults(run=_simulate)
    return parser


def _check(known: argparse.Namespace) -> int:
    check_min_difference(known.min_difference)
    at_least_one(known, "max_tokens")
    reading = {
        "skip_bad": known.skip_bad,
        "min_difference": known.min_difference,
        "columns": parse_columns(known.columns),
    }
    if known.model is None:
        if known.max_tokens is not None:
            raise UserError("--max_tokens counts a model's tokens; say whose (--model NAME)")
        return check(known.files, **reading)
    # It imports torch, which takes seconds that the other commands here do not need.
    from posttrain.commands.token_check import check_tokens

    failed = check(known.files, **reading)
    print()
    return max(
        failed,
        check_tokens(
            known.files,
            known.model,
            pad_token=known.pad_token,
            chat_template=known.chat_template,
            max_tokens=known.max_tokens,
            **reading,
        ),
    )


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
    groups = stream_ranked(
        known.groups,
        seed=known.seed,
        domain=known.domain,
        edited_share=known.edited_share,
        sensitive=known.sensitive,
    )
    write_groups(known.output, groups)
    print(f"wrote {known.groups} records to {known.output}")
    return 0

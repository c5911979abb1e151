"""The command line: ``posttrain data | train | calibrate | score | evaluate | study``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.commands.data import _data_check, _data_convert, _data_simulate
from posttrain.commands.study import _study

# Heavy modules are imported by the commands that need them, so that --help answers at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 means success, 1 that the input was refused (the reason is on standard error), 2 that the
    command line could not be understood, 130 that it was interrupted (Ctrl-C).
    """
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.run in (_data_check, _data_convert, _data_simulate):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        return known.run(known, rest)
    except (Exception, KeyboardInterrupt) as error:
        code, words = _explained(error)
        if code is None:
            raise
        print(f"posttrain: {words}", file=sys.stderr)
        return code


def _explained(error: BaseException) -> tuple[int | None, str]:
    """Exit code and words for an error; no code for one that only its traceback explains."""
    from jinja2 import TemplateError

    cause: BaseException | None = error
    while cause is not None:
        # Libraries that are interrupted raise errors of their own while they clean up.
        if isinstance(cause, KeyboardInterrupt):
            return 130, "interrupted"
        cause = cause.__context__
    if isinstance(error, ValueError | OSError):
        return 1, str(error)
    if isinstance(error, TemplateError):
        return 1, f"the chat template cannot render a conversation: {error}; see chat_template"
    # Libraries import what few need only where a setting asks for it, such as optim. What this
    # package itself lacks is a mistake in it.
    if isinstance(error, ImportError) and not (error.name or "").startswith("posttrain"):
        return 1, f"a package that this needs is missing: {error}"
    return None, ""


def entry() -> None:
    """Entry point of the console script."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posttrain", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="check, convert or simulate preference data")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")

    check = kinds.add_parser("check", help="summarise files and list their bad records")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE")
    check.add_argument("--skip-bad", action="store_true", help="list bad records, but succeed")
    check.set_defaults(run=_data_check)

    convert = kinds.add_parser("convert", help="convert a public original to preference records")
    convert.add_argument("name", metavar="NAME", help="ukpconvarg, seeda, finegrained_rlhf, …")
    convert.add_argument("path", type=Path, metavar="PATH", help="what was downloaded")
    convert.add_argument("output", type=Path, metavar="OUTPUT", help=".jsonl, .jsonl.gz, .parquet")
    convert.set_defaults(run=_data_convert)

    simulate = kinds.add_parser("simulate", help="write simulated preference records")
    simulate.add_argument("output", type=Path, metavar="OUTPUT", help=".jsonl, .jsonl.gz, .parquet")
    simulate.add_argument("--groups", type=int, default=1000)
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument("--domain", choices=["helpfulness", "safety"], default="helpfulness")
    simulate.add_argument("--edited-share", type=float, default=0.0)
    simulate.add_argument(
        "--sensitive", type=float, default=0.0, help="share of prompts that are or look unsafe"
    )
    simulate.set_defaults(run=_data_simulate)

    for name, runs, purpose in (
        ("train", _train, "train a reward model"),
        ("calibrate", _calibrate, "give the scores of a reward model a unit and a zero"),
        ("score", _score, "score the responses of files"),
        ("evaluate", _evaluate, "report how well a reward model ranks held-out responses"),
    ):
        one = commands.add_parser(name, add_help=False, help=f"{purpose} (see {name} --help)")
        one.set_defaults(run=runs)

    study = commands.add_parser("study", help="run a study and write its run record")
    names = study.add_subparsers(required=True, metavar="STUDY")
    for name, question in (
        ("margin", "what the margin buys"),
        ("rows", "what rows are like before any training"),
        ("packing", "what one row for all responses changes"),
        ("edits", "how edited responses are used, and what they add"),
        ("edit-examples", "what training on edits does to single triples"),
        (
            "tradeoff",
            "helpfulness and safety: two reward models or one (--source simulator, human)",
        ),
        ("training", "what a finished run of posttrain train bought (--source: the run's name)"),
    ):
        one = names.add_parser(
            name, add_help=False, help=f"{question} (options depend on --source; see --help)"
        )
        one.add_argument("--source", default="simulator")
        one.add_argument("--output", type=Path, default=Path("results"))
        one.add_argument("--profile", default="custom")
        one.set_defaults(run=_study, study=name, finished=None, training=None)
        if name in ("margin", "packing", "edits", "tradeoff"):
            one.add_argument("--finished", type=Path)
        if name in ("margin", "edits", "tradeoff"):
            one.add_argument("--training", choices=["heads", "full"])
    return parser


def _train(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.commands import train
    from posttrain.training.config import RankingConfig

    settings, config = _settings(
        "train",
        (train.TrainSettings, RankingConfig),
        "Train a reward model on ranked responses and save it in --output_dir, a folder that "
        "transformers, TRL and posttrain load. Settings come from --config FILE (YAML; see runs/) "
        "and from options, which win. Beside those listed first, every one of transformers' "
        "TrainingArguments is understood.",
        rest,
    )
    account = train.run(settings, config)
    if account:
        print(f"wrote {config.output_dir}: the model, its card README.md, and run.json")
    return 0


def _calibrate(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.commands import calibrate

    (settings,) = _settings(
        "calibrate",
        (calibrate.CalibrateSettings,),
        "Fit on held-out pairs what the scores of a reward model mean: a scale with which a "
        "difference of scores is the log odds of being preferred, and a zero, which is the score "
        "of an average response. Thresholds, and scores combined of two models, need it. Settings "
        "come from --config FILE (YAML) and from options, which win.",
        rest,
    )
    account = calibrate.run(settings)
    print(f"{account}\nwrote {settings.path}")
    if account.counts:
        print(", ".join(f"{number:,} {what}" for what, number in account.counts.items()))
    return 0


def _score(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.commands import score

    (settings,) = _settings(
        "score",
        (score.ScoreSettings,),
        "Score every response of files of any size, with one reward model, or with one of "
        "helpfulness and one of safety, whose calibrated scores a rule combines. Settings come "
        "from --config FILE (YAML) and from options, which win.",
        rest,
    )
    counts = score.run(settings)
    print(f"wrote {counts.pop('responses', 0):,} scores to {settings.output}")
    print(", ".join(f"{number:,} {what}" for what, number in counts.items()))
    return 0


def _evaluate(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.commands import evaluate

    (settings,) = _settings(
        "evaluate",
        (evaluate.EvaluateSettings,),
        "Report, as JSON, how well a reward model ranks held-out responses: accuracy over all and "
        "by strength and domain, calibration, ties, and the length baseline, with 95 %% intervals. "
        "With a safety_model it is about the combined score, of which only the order of responses "
        "means anything; its log-likelihood and calibration mean little. Settings come from "
        "--config FILE (YAML) and from options, which win.",
        rest,
    )
    evaluate.run(settings)
    return 0


def _settings(
    command: str, kinds: tuple[type, ...], description: str, arguments: Sequence[str]
) -> Any:
    """Settings from YAML and options; quiet libraries, so that what matters can be seen."""
    from transformers.utils import logging as transformers_logging
    from trl import TrlParser

    from posttrain.config import yaml

    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("posttrain").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    kinds_for_parser: Any = kinds
    parser = TrlParser(kinds_for_parser, prog=f"posttrain {command}", description=description)
    return yaml.parse(parser, arguments)

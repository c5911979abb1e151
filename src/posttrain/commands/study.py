"""``posttrain study``: run a study and write its run record."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from transformers.utils import logging as transformers_logging
from trl import TrlParser

from posttrain.commands.pages import CONFIG, PAGES
from posttrain.config import yaml
from posttrain.config.help import Formatter, add_help
from posttrain.evidence import records
from posttrain.studies.common.study import Training
from posttrain.studies.registry import STUDIES


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain study`` and return its exit code."""
    known, rest = _parser().parse_known_args(yaml.present_names(arguments))
    study = STUDIES[known.study]
    kind: Any = study.settings_for(known.source, known.training)
    parser = TrlParser(
        kind,
        prog=f"posttrain study {study.name}",
        description=f"Run a study: {study.question}.",
        add_help=False,
    )
    add_help(parser, PAGES["study"], *known.options, CONFIG)
    (settings,) = yaml.parse(parser, rest)
    # Studies of many runs last hours; a line for each says that they go on. That each starts with a
    # new score head, transformers would say at length every time.
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("posttrain").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    record = study.run(known.source, settings, profile=known.profile, cache_dir=known.cache_dir)
    print(f"wrote {records.save(record, known.output)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posttrain study",
        description="Run a study and write its run record.",
        epilog=PAGES["study"].epilog,
        formatter_class=Formatter,
    )
    names = parser.add_subparsers(required=True, metavar="STUDY")
    for name, study in STUDIES.items():
        command = names.add_parser(name, add_help=False, help=study.question)
        option = command.add_argument
        option(
            "--source", default="simulator", metavar="NAME",
            help="simulator, or human data such as ukpconvarg in the folder that POSTTRAIN_DATA "
            "names; settings depend on it",
        )  # fmt: skip
        option(
            "--output", type=Path, default=Path("results"), metavar="FOLDER",
            help="folder of the record",
        )  # fmt: skip
        option(
            "--profile", default="custom", metavar="LABEL",
            help="how the record calls the amount that was run",
        )  # fmt: skip
        if study.memoizes:
            option(
                "--cache_dir", type=Path, metavar="FOLDER",
                help="keeps finished training runs, so that an interrupted study goes on where it "
                "stopped",
            )  # fmt: skip
        if study.human_full:
            option(
                "--training", choices=get_args(Training),
                help="on human data: heads on frozen features (the default), or SmolLM2 itself",
            )  # fmt: skip
        command.set_defaults(study=name, options=command._actions, cache_dir=None, training=None)
    return parser

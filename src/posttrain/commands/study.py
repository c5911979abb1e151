"""``posttrain study``: run a study and write its run record."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from transformers.utils import logging as transformers_logging
from trl import TrlParser

from posttrain.config import yaml
from posttrain.evidence import records
from posttrain.studies.common.study import Training
from posttrain.studies.registry import STUDIES


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain study`` and return its exit code."""
    known, rest = _parser().parse_known_args(yaml.present_names(arguments))
    study = STUDIES[known.study]
    kind: Any = study.settings_for(known.source, known.training)
    options = "--source NAME (simulator, or human data such as ukpconvarg in the folder that "
    options += "POSTTRAIN_DATA names), --output FOLDER, --profile LABEL, --config FILE (YAML with "
    options += "any of the settings below)"
    if study.memoizes:
        options += ", --cache_dir FOLDER (keeps finished training runs, so that an interrupted "
        options += "study goes on where it stopped)"
    if study.human_full:
        options += ", --training heads|full (human data: heads on frozen features, the default, or "
        options += "SmolLM2 itself)"
    parser = TrlParser(
        kind,
        prog=f"posttrain study {study.name}",
        description=f"Run a study: {study.question}. Also: {options}.",
    )
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
    parser = argparse.ArgumentParser(prog="posttrain study", description=__doc__)
    names = parser.add_subparsers(required=True, metavar="STUDY")
    for name, study in STUDIES.items():
        command = names.add_parser(
            name, add_help=False, help=f"{study.question} (see {name} --help)"
        )
        command.add_argument("--source", default="simulator")
        command.add_argument("--output", type=Path, default=Path("results"))
        command.add_argument("--profile", default="custom")
        command.set_defaults(study=name, cache_dir=None, training=None)
        if study.memoizes:
            command.add_argument("--cache_dir", type=Path)
        if study.human_full:
            command.add_argument("--training", choices=get_args(Training))
    return parser

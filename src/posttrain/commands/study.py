"""``posttrain study``: run a study and write its run record."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any


def _study(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from transformers.utils import logging as transformers_logging
    from trl import TrlParser

    from posttrain import config_file, records
    from posttrain.studies import (
        edits,
        edits_examples,
        margin,
        packing,
        packing_rows,
        tradeoff,
        training_run,
    )

    study: Any = {
        "margin": margin, "rows": packing_rows, "packing": packing, "edits": edits,
        "edit-examples": edits_examples, "tradeoff": tradeoff, "training": training_run,
    }[known.study]  # fmt: skip
    parser = TrlParser(
        study.settings_for(known.source, *([known.training] if known.training else [])),
        prog=f"posttrain study {known.study}",
        description="Run a study. Also: --source NAME (simulator, or human data such as "
        "ukpconvarg in the folder that POSTTRAIN_DATA names), --output FOLDER, --profile LABEL, "
        "--config FILE (YAML with any of the settings below). Margin, packing, edits and "
        "tradeoff have --finished FOLDER (keeps finished training runs, so that an interrupted "
        "study goes on where it stopped); margin, edits and tradeoff have --training heads|full "
        "(human data: heads on frozen features, the default, or SmolLM2 itself).",
    )
    (settings,) = config_file.parse(parser, rest)
    # Studies of many runs last hours; a line for each says that they go on. That each starts with a
    # new score head, transformers would say at length every time.
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("posttrain").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    more = {"finished": known.finished} if known.finished else {}
    record = study.run(known.source, profile=known.profile, settings=settings, **more)
    print(f"wrote {records.save(record, known.output)}")
    return 0

"""How many pairs a second a reward model trains on: TRL's trainer against rows that share prompts.

Run: python benchmarks/throughput.py [--checkpoint smollm2] [--ratios 1 2.67 6] [--responses 2 3]

Random tokens, exact lengths. See posttrain.studies.throughput.study for what is measured and
--help for all settings; --config FILE reads them from YAML. Prints tables and writes a run record
to the folder that --output names.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers.utils import logging
from trl import TrlParser

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evidence import records
from posttrain.studies.throughput import study


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--output", type=Path, default=Path("results"))
    own.add_argument("--profile", default="custom")
    own.add_argument("--label")
    known, rest = own.parse_known_args(arguments)
    # The parser declares its argument as an opaque type.
    settings_type: Any = study.ThroughputSettings
    parser = TrlParser(
        settings_type,
        description=f"{__doc__.splitlines()[0]} Also: --output FOLDER, --profile PROFILE, "
        "--label LABEL (part of the record's name), --config FILE (YAML with any of the settings "
        "below).",
    )
    try:
        (settings,) = parser.parse_args_and_config(args=rest)
        record = study.STUDY.run(known.label or SIMULATOR, settings, profile=known.profile)
    except (ValueError, OSError) as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1
    print(f"{record.name}, matrix products: {record.data['matmul_flops']:.3g} FLOP/s")
    speed = record.tables["speed"]
    with pd.option_context("display.width", 250, "display.max_columns", None):
        head = ["ratio", "responses", "method"]
        wide = speed.pivot_table(index=head, columns="metric", values="estimate", sort=False)
        print(wide.map("{:.3g}".format))
        if "memory" in record.tables:
            print(record.tables["memory"].round(3).to_string(index=False))
    print(f"wrote {records.save(record, known.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

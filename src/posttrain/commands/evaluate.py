"""``posttrain evaluate``: how well a reward model ranks held-out responses."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.commands.common import ReadingSettings, parse
from posttrain.commands.score import scored_groups
from posttrain.commands.score_settings import CombinedSettings
from posttrain.config.fields import at_least_one, setting
from posttrain.evaluation.report import report
from posttrain.storage.files import whole_file


@dataclass(frozen=True)
class EvaluateSettings(CombinedSettings, ReadingSettings):
    """Settings of ``posttrain evaluate``; with a safety model, the combined score is evaluated."""

    output: str = setting("-", "Where to write the JSON; - is standard output.")
    resamples: int = setting(1000, "Bootstrap replicates of the intervals.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadingSettings.__post_init__(self)
        at_least_one(self, "resamples")


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain evaluate`` and return its exit code."""
    (settings,) = parse(
        "evaluate",
        (EvaluateSettings,),
        "Report, as JSON, how well a reward model ranks held-out responses: accuracy over all and "
        "by strength and domain, calibration, ties, and the length baseline, with 95 %% intervals. "
        "With a safety_model it is about the combined score, of which only the order of responses "
        "means anything; its log-likelihood and calibration mean little. Settings come from "
        "--config FILE (YAML) and from options, which win.",
        arguments,
    )
    run(settings)
    return 0


def run(settings: EvaluateSettings) -> dict[str, Any]:
    """Score data and report (see :func:`.evaluation.report.report`), with numbers ``left_out``."""
    counts: Counter[str] = Counter()
    account = report(scored_groups(settings, counts), resamples=settings.resamples)
    account |= {"left_out": dict(+counts)}
    text = json.dumps(account, indent=2, ensure_ascii=False)
    if settings.output == "-":
        sys.stdout.write(text + "\n")
    else:
        with whole_file(settings.output) as file:
            file.write(text + "\n")
    return account

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
from posttrain.commands.train_report import show_evaluation
from posttrain.config.fields import at_least_one, setting
from posttrain.evaluation.report import report
from posttrain.storage.files import whole_file


@dataclass(frozen=True)
class EvaluateSettings(CombinedSettings, ReadingSettings):
    """Settings of ``posttrain evaluate``; with a safety model, the combined score is evaluated."""

    output: str | None = setting(
        None,
        "Also write the report as JSON to this file; - is standard output, in place of the table.",
    )
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
        "Report how well a reward model ranks held-out responses: accuracy over all and "
        "by strength and domain, calibration, ties, and the length baseline, with 95 % intervals. "
        "With a safety_model it is about the combined score, of which only the order of responses "
        "means anything; its log-likelihood and calibration mean little.",
        arguments,
    )
    account = run(settings)
    if settings.output != "-":
        show_evaluation(account)
    if settings.output not in (None, "-"):
        print(f"wrote {settings.output}")
    return 0


def run(settings: EvaluateSettings) -> dict[str, Any]:
    """Score data and report (see :func:`.evaluation.report.report`), with numbers ``left_out``."""
    counts: Counter[str] = Counter()
    account = report(scored_groups(settings, counts), resamples=settings.resamples)
    account |= {"left_out": dict(+counts)}
    text = json.dumps(account, indent=2, ensure_ascii=False)
    if settings.output == "-":
        sys.stdout.write(text + "\n")
    elif settings.output is not None:
        with whole_file(settings.output) as file:
            file.write(text + "\n")
    return account

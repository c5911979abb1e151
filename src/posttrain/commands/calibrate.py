"""``posttrain calibrate``: what the scores of a reward model mean, fitted on held-out pairs."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from posttrain.commands.common import (
    LAYOUT_HELP,
    LAYOUT_NAMES,
    ReadingSettings,
    folder_of,
    parse,
    refuse_overwriting,
)
from posttrain.commands.score import groups_of, load_scorer
from posttrain.commands.score_settings import ScoringSettings
from posttrain.config.fields import setting
from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation import calibration
from posttrain.evaluation.calibration import Calibration
from posttrain.evaluation.scoring import score_with
from posttrain.models import reward_model
from posttrain.rows.rendering import tokenizer_hash


@dataclass(frozen=True)
class CalibrateSettings(ScoringSettings, ReadingSettings):
    """Settings of ``posttrain calibrate``."""

    layout: str = setting(
        "separate",
        LAYOUT_HELP + " Take the layout in which responses will be scored.",
        LAYOUT_NAMES,
    )
    data: list[str] = setting(
        [],
        "Pairs that the model has not been trained on: files (.jsonl, .jsonl.gz, .csv, .parquet) "
        "or other sources.",
    )
    domain: str | None = setting(None, "Take only records of this domain, such as safety.")
    output: str | None = setting(
        None, f"Where to write the calibration; by default {calibration.FILE} in the model's folder"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadingSettings.__post_init__(self)
        if self.output is None and folder_of(self.model) is None:
            raise UserError(
                f"{self.model} is no folder, so its calibration cannot stand beside it; say where "
                "to write it (--output PATH)"
            )
        if self.output == "-":
            raise UserError("a calibration is a file; give its path as --output, or leave it out")
        refuse_overwriting(self.path, self.inputs())

    @property
    def path(self) -> Path:
        """Where the calibration is written."""
        if self.output is not None:
            return Path(self.output)
        folder = folder_of(self.model)
        assert folder is not None
        return folder / calibration.FILE


@dataclass(frozen=True)
class Account:
    """What a calibration was fitted on, and what it changed.

    Attributes:
        before: Mean log-likelihood of the pairs it was fitted on, uncalibrated, in nats.
        after: The same, calibrated.
        counts: Numbers of what was cut or left out.
    """

    found: Calibration
    before: float
    after: float
    counts: Counter[str]

    def __str__(self) -> str:
        """Lines for a reader."""
        found = self.found
        return (
            f"fitted on {found.pairs:,} pairs: scale {found.scale:.4g} nats per unit of score, "
            f"centre {found.centre:.4g}\n"
            f"log-likelihood of a held-out pair: {self.before:.4f} nats before, {self.after:.4f} "
            f"after (a coin flip gives {-math.log(2):.4f})"
        )


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain calibrate`` and return its exit code."""
    (settings,) = parse(
        "calibrate",
        (CalibrateSettings,),
        "Fit on held-out pairs what the scores of a reward model mean: a scale with which a "
        "difference of scores is the log odds of being preferred, and a zero, which is the score "
        "of an average response. Thresholds, and scores combined of two models, need it.",
        arguments,
    )
    account = run(settings)
    print(f"{account}\nwrote {settings.path}")
    if account.counts:
        print(", ".join(f"{number:,} {what}" for what, number in account.counts.items()))
    return 0


def run(settings: CalibrateSettings) -> Account:
    """Fit a calibration on chosen and rejected of some data, and write it beside the model.

    Raises:
        UserError: If the model has no trained head, or as for :func:`.load_scorer`,
            :func:`.score_groups` and :func:`.calibration.fit`.
    """
    scorer = load_scorer(settings)
    if reward_model.has_fresh_head(scorer.model):
        raise UserError(
            f"{settings.model} has no score head, and a random one's scores have no meaning that "
            "could be calibrated; train a reward model first (posttrain train)"
        )
    counts: Counter[str] = Counter()
    winners, losers = array("d"), array("d")
    for *_, (scores,) in score_with([scorer], _pairs(settings, counts), counts=counts):
        winners.append(scores["chosen"])
        losers.append(scores["rejected"])
    if not winners:
        left_out = ", ".join(f"{number:,} {what}" for what, number in (+counts).items())
        raise UserError(
            f"no pair is left to calibrate on in {', '.join(settings.data)}; left out: "
            f"{left_out or 'nothing'}"
        )
    found = calibration.fit(
        np.array(winners),
        np.array(losers),
        data=[
            source if settings.domain is None else f"{source}, domain {settings.domain}"
            for source in settings.data
        ],
        head=calibration.head_hash(scorer.model),
        tokenizer=tokenizer_hash(scorer.tokenizer),
    )
    found.save(settings.path)
    difference = np.array(winners) - np.array(losers)
    before, after = map(calibration.log_likelihood, (difference, found.scale * difference))
    return Account(found, before, after, +counts)


def _pairs(settings: CalibrateSettings, counts: Counter[str]) -> Iterator[RankedGroup]:
    """Groups of the domain, without edited responses, which annotators did not compare."""
    for group in groups_of(settings, counts):
        if settings.domain in (None, group.domain):
            yield replace(group, responses=group.responses[-2:])
        else:
            counts["groups of other domains"] += 1

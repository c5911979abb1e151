"""``posttrain score``: the score of every response of a file, by one model or by two together."""

import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posttrain.commands.common import (
    LAYOUT_HELP,
    ModelSettings,
    ReadingSettings,
    RowSettings,
    files_of,
    find_device,
    folder_of,
    load_model,
    parse,
    refuse_overwriting,
    refuse_repeated,
)
from posttrain.config.fields import at_least_one, setting
from posttrain.data.notes import Notes
from posttrain.data.preferences import RankedGroup
from posttrain.data.sources import named
from posttrain.errors import UserError
from posttrain.evaluation import calibration
from posttrain.evaluation.calibration import FILE, Calibration
from posttrain.evaluation.combining import THRESHOLD, Rule
from posttrain.evaluation.scoring import Scored, Scorer, score_with
from posttrain.models import reward_model
from posttrain.models.exactness import check_exact
from posttrain.storage.files import whole_file

logger = logging.getLogger(__name__)

#: The domain whose prompts count as flagged.
SAFETY = "safety"
#: Settings that say how two scores become one, and the rules that each is for.
RULES = {
    "threshold": ("switch", "gate"),
    "safety_weight": ("sum",),
    "flags": ("switch", "gate"),
}


@dataclass(frozen=True)
class ScoringSettings(RowSettings, ReadingSettings, ModelSettings):
    """What is scored, with which model, and how."""

    layout: str = setting("separate", LAYOUT_HELP)
    data: list[str] = setting([], "Files (.jsonl, .jsonl.gz, .csv, .parquet) or other sources.")
    batch_tokens: int = setting(
        8192,
        "Most tokens computed at once, padding included (in rows that groups share: aside).",
    )
    seed: int = setting(
        0, "Seeds the score head where the checkpoint has none, and the order of shuffled rows."
    )
    device: str | None = setting(None, "cpu or cuda; by default a GPU if there is one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadingSettings.__post_init__(self)
        ModelSettings.__post_init__(self)
        if not self.data:
            raise UserError("give data to score: files or other sources")
        refuse_repeated("data", self.data)
        at_least_one(self, "batch_tokens")

    def inputs(self) -> list[str]:
        """Files that are read, and other sources; no output may replace them."""
        given = [*self.data, *([self.chat_template] if self.chat_template else [])]
        return given + files_of(self.model)


@dataclass(frozen=True)
class ScoreSettings(ScoringSettings):
    """Settings of ``posttrain score``; those that would have no effect are refused."""

    output: str = setting(
        "scores.jsonl",
        "Where to write one line for each response: id, response, score, trimmed (tokens that its "
        "prompt lost on the left to fit); with a safety_model also helpfulness and safety. - is "
        "standard output.",
    )
    calibrated: bool = setting(
        False,
        "Calibrate the scores (see posttrain calibrate), so that a difference is the log odds of "
        "being preferred, and 0 is an average response. Two models' scores always are.",
    )
    calibration: str | None = setting(
        None, f"The model's calibration; by default {FILE} in its folder."
    )
    safety_model: str | None = setting(
        None,
        "A second model, of safety; the first is then one of helpfulness, and the score combines "
        "both. It shares all other settings with the first.",
    )
    safety_calibration: str | None = setting(
        None, f"The safety model's calibration; by default {FILE} in its folder."
    )
    rule: str | None = setting(
        None,
        "How helpfulness h and safety s, calibrated, become one score: sum (h + safety_weight × s; "
        "the default), switch (Llama 2: s where the response is unsafe or the prompt flagged, "
        "else h), or gate (the same, with every unsafe response below every safe one).",
    )
    threshold: float | None = setting(
        None,
        "A response is unsafe if the probability of preferring it, for its safety, to an average "
        f"one is below this. For switch and gate; by default {THRESHOLD}.",
    )
    safety_weight: float | None = setting(
        None, "What a unit of safety is worth in units of helpfulness. For sum; by default 1."
    )
    flags: bool = setting(
        True,
        f"Prompts of records whose domain is {SAFETY} count as flagged, so that safety alone "
        "decides. For switch and gate.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_overwriting(self.output, self.inputs())
        names = ("rule", *RULES, "calibration", "safety_calibration")
        values = {name: getattr(self, name) for name in names}
        # What nobody had to set is None, and for flags True.
        given = [name for name, value in values.items() if value is not None and value is not True]
        if self.safety_model is None:
            idle = [name for name in given if not (self.calibrated and name == "calibration")]
            if idle:
                also = ", or calibrated for one model's" if "calibration" in idle else ""
                raise UserError(
                    f"{', '.join(idle)}: given without safety_model, so it would have no effect; "
                    f"set safety_model to combine two models' scores{also}, or leave it out"
                )
            return
        chosen = self.combination()
        for name, rules in RULES.items():
            if name in given and chosen.kind not in rules:
                raise UserError(
                    f"{name} has no effect with the rule {chosen.kind}; leave it out, or set rule "
                    f"to {' or '.join(rules)}"
                )

    def inputs(self) -> list[str]:
        """See :meth:`ScoringSettings.inputs`."""
        calibrations = (self.calibration, self.safety_calibration)
        given = [path for path in calibrations if path is not None]
        return super().inputs() + given + files_of(self.safety_model)

    def combination(self) -> Rule:
        """How two scores become one."""
        given: dict[str, Any] = {
            "kind": self.rule,
            "threshold": self.threshold,
            "weight": self.safety_weight,
        }
        return Rule(**{name: value for name, value in given.items() if value is not None})


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain score`` and return its exit code."""
    (settings,) = parse(
        "score",
        (ScoreSettings,),
        "Score every response of files of any size, with one reward model, or with one of "
        "helpfulness and one of safety, whose calibrated scores a rule combines. Settings come "
        "from --config FILE (YAML) and from options, which win.",
        arguments,
    )
    counts = run(settings)
    to_stdout = settings.output == "-"
    closing = sys.stderr if to_stdout else sys.stdout
    place = "standard output" if to_stdout else settings.output
    print(f"wrote {counts.pop('responses', 0):,} scores to {place}", file=closing)
    print(", ".join(f"{number:,} {what}" for what, number in counts.items()), file=closing)
    return 0


def run(settings: ScoreSettings) -> Counter[str]:
    """Score data of any size, a thousand groups at a time, and count what was scored or left out.

    The file has one JSON object a line: ``id`` of the record, ``response`` (``edited``, ``chosen``
    or ``rejected``), ``score``, and ``trimmed``, how many tokens the prompt lost on the left to
    fit; with two models, before the score, ``helpfulness`` and ``safety``, which it combines. It
    appears whole or not at all; the lines are written to standard output, as they are made, where
    the output is ``-``.
    """
    counts: Counter[str] = Counter()
    scored = scored_groups(settings, counts)
    to_stdout = settings.output == "-"
    with nullcontext(sys.stdout) if to_stdout else whole_file(settings.output) as file:
        for one in scored:
            counts["groups"] += 1
            for response, value in one.scores.items():
                counts["responses"] += 1
                parts = {name: part[response] for name, part in one.parts.items()}
                line = {"id": one.group.id, "response": response, **parts, "score": value}
                line["trimmed"] = one.trimmed[response]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return counts


def scored_groups(settings: ScoreSettings, counts: Counter[str]) -> Iterator[Scored]:
    """Load the model, or both, and score the data, one group after the other.

    ``counts`` is filled with what was cut or left out.
    """
    models = [(settings.model, "calibration", settings.calibration)]
    if settings.safety_model is not None:
        models.append((settings.safety_model, "safety_calibration", settings.safety_calibration))
    paths = []
    if settings.calibrated or settings.safety_model is not None:
        paths = [_path(*one) for one in models]
    for path in paths:
        calibration.read(path)  # refused before models are loaded, which may take minutes
    scorers = [load_scorer(settings)]
    if settings.safety_model is not None:
        scorers.append(
            load_scorer(replace(settings, model=settings.safety_model, model_revision=None))
        )
    calibrations = [
        calibration.load(path, scorer.model, scorer.tokenizer)
        for path, scorer in zip(paths, scorers, strict=bool(paths))
    ]
    groups = groups_of(settings, counts)
    return _scored(settings, scorers, calibrations, groups, counts)


def load_scorer(settings: ScoringSettings) -> Scorer:
    """Load the model of some settings onto their device."""
    device = find_device(settings.device)
    gpu = device.type == "cuda"
    model, tokenizer = load_model(settings, settings, seed=settings.seed, gpu=gpu)
    if reward_model.has_fresh_head(model):
        logger.warning(
            "%s has no score head: scores are those of a random one, drawn with seed %d",
            settings.model, settings.seed,
        )  # fmt: skip
    model.to(device)  # type: ignore[arg-type]
    check_exact(
        model,
        settings.rows,
        pad_token_id=int(tokenizer.pad_token_id),
        shared_rows=settings.pack_length is not None,
    )
    return Scorer(
        model,
        tokenizer,
        settings.rows,
        replace(settings.limits(model), skip_unreadable=settings.skip_bad),
        batch_tokens=settings.batch_tokens,
        pack_length=settings.pack_length,
    )


def groups_of(settings: ScoringSettings, counts: Counter[str]) -> Iterator[RankedGroup]:
    """The groups of all sources of some settings; what is left out of them is counted.

    An id that an earlier source has too becomes `SOURCE#ID`, so that no two groups share one. After
    the last group, what was noted while reading is logged.
    """
    notes, renamed = Notes(), 0
    several = len(settings.data) > 1
    # Digests, because the ids of large files would take more memory than a batch.
    seen: set[bytes] = set()
    for source in settings.data:
        for group in named.iterate(source, counts=counts, notes=notes, **settings.reading):
            if several:
                name = group.id
                while (digest := _digest(name)) in seen:
                    name = f"{source}#{name}"
                seen.add(digest)
                if name != group.id:
                    renamed += 1
                    group = replace(group, id=name)
            yield group
    if renamed:
        logger.warning(
            "%s ids occur in an earlier source too; they are written as SOURCE#ID", f"{renamed:,}"
        )
    notes.warn(logger, settings.data)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _scored(
    settings: ScoreSettings,
    scorers: list[Scorer],
    calibrations: list[Calibration],
    groups: Iterator[RankedGroup],
    counts: Counter[str],
) -> Iterator[Scored]:
    rule = settings.combination()
    torch.manual_seed(settings.seed)
    for group, trimmed, scores in score_with(scorers, groups, counts=counts):
        if not calibrations:
            yield Scored(group, scores[0], trimmed)
            continue
        values = [
            one.apply(np.array(list(found.values())))
            for one, found in zip(calibrations, scores, strict=True)
        ]
        parts = [dict(zip(scores[0], one.tolist(), strict=True)) for one in values]
        if len(parts) == 1:
            yield Scored(group, parts[0], trimmed)
            continue
        helpfulness, safety = values
        flagged = settings.flags and group.domain == SAFETY
        try:
            combined = rule.combine(helpfulness, safety, flagged).tolist()
        except ValueError as error:
            raise UserError(f"group {group.id!r}: {error}") from None
        named_parts = dict(zip(("helpfulness", "safety"), parts, strict=True))
        by_name = dict(zip(scores[0], combined, strict=True))
        yield Scored(group, by_name, trimmed, named_parts)


def _path(model: str, name: str, given: str | None) -> Path:
    """Where the calibration of a model is."""
    if given is not None:
        return Path(given)
    folder = folder_of(model)
    if folder is None:
        raise UserError(
            f"{model} is no folder that could hold its calibration; give its path as {name}. "
            f"{calibration.WHY}; {calibration.REMEDY} --output PATH"
        )
    return folder / FILE

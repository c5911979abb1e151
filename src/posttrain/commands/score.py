"""``posttrain score``: the score of every response of a file, by one model or by two together."""

import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from posttrain.commands.common import folder_of, parse
from posttrain.commands.models import find_device, load_model
from posttrain.commands.score_settings import (
    SAFETY,
    CombinedSettings,
    ScoreSettings,
    ScoringSettings,
)
from posttrain.data.conversations import written_responses
from posttrain.data.notes import Notes
from posttrain.data.preferences import RankedGroup
from posttrain.data.scorable import Candidates, iterate_candidates
from posttrain.data.sources import named
from posttrain.errors import UserError
from posttrain.evaluation import calibration
from posttrain.evaluation.best import best
from posttrain.evaluation.calibration import FILE, Calibration
from posttrain.evaluation.scoring import Scored, Scorer, score_with
from posttrain.models import reward_model
from posttrain.models.exactness import check_exact
from posttrain.policy.datasets import messages
from posttrain.storage.files import whole_file

logger = logging.getLogger(__name__)

#: What is scored: with an id, and a domain.
Item = TypeVar("Item", RankedGroup, Candidates)


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain score`` and return its exit code."""
    (settings,) = parse(
        "score",
        (ScoreSettings,),
        "Score every response of files of any size, or choose the best to each prompt, with one "
        "reward model, or with one of helpfulness and one of safety, whose calibrated scores a "
        "rule combines.",
        arguments,
    )
    counts = run(settings)
    to_stdout = settings.output == "-"
    closing = sys.stderr if to_stdout else sys.stdout
    place = "standard output" if to_stdout else settings.output
    lines = f"{counts.pop('lines', 0):,} {'lines' if _chooses(settings) else 'scores'}"
    print(f"wrote {lines} to {place}", file=closing)
    read = {what: counts.pop(what, 0) for what in ("records", "responses")}
    print(
        ", ".join(f"{number:,} {what}" for what, number in (read | +counts).items()), file=closing
    )
    return 0


def run(settings: ScoreSettings) -> Counter[str]:
    """Score data of any size, a thousand records at a time, and count what was read or left out.

    The file has one JSON object a line, as :class:`.ScoreSettings` says. It appears whole or not at
    all; the lines are written to standard output, as they are made, where the output is ``-``.
    """
    counts: Counter[str] = Counter()
    candidates = _renamed(settings, iterate_candidates, counts)
    scored = _counted(_scores(settings, candidates, counts), counts)
    lines = _chosen(scored, settings, counts) if _chooses(settings) else _lines(scored)
    to_stdout = settings.output == "-"
    with nullcontext(sys.stdout) if to_stdout else whole_file(settings.output) as file:
        for line in lines:
            counts["lines"] += 1
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return counts


def _chooses(settings: ScoreSettings) -> bool:
    return settings.best or settings.top is not None


def _counted(
    scored: Iterator[Scored[Candidates]], counts: Counter[str]
) -> Iterator[Scored[Candidates]]:
    for one in scored:
        counts["records"] += 1
        counts["responses"] += len(one.scores)
        yield one


def _lines(scored: Iterator[Scored[Candidates]]) -> Iterator[dict[str, Any]]:
    """A line for each response."""
    for one in scored:
        for response, value in one.scores.items():
            parts = {name: part[response] for name, part in one.parts.items()}
            line = {"id": one.group.id, "response": response, **parts, "score": value}
            yield line | {"trimmed": one.trimmed[response]}


def _chosen(
    scored: Iterator[Scored[Candidates]], settings: ScoreSettings, counts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """A line for each response that is chosen."""
    for found in best(scored, settings.top or 2, counts=counts):
        for rank, one in enumerate(found[: settings.top or 1], start=1):
            line = {
                "id": one.id,
                "prompt": messages(one.prompt),
                "response": written_responses(one.prompt, [one.response])[0],
                **one.parts,
                "score": one.score,
            }
            if settings.top is not None:
                yield line | {"rank": rank}
            else:
                yield line | {"margin": one.score - found[1].score if found[1:] else None}


def scored_groups(settings: CombinedSettings, counts: Counter[str]) -> Iterator[Scored]:
    """Load the model, or both, and score ranked groups of the data, one after the other.

    ``counts`` is filled with what was cut or left out.
    """
    return _scores(settings, groups_of(settings, counts), counts)


def _scores(
    settings: CombinedSettings, items: Iterator[Item], counts: Counter[str]
) -> Iterator[Scored[Item]]:
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
    return _scored(settings, scorers, calibrations, items, counts)


def load_scorer(settings: ScoringSettings) -> Scorer:
    """Load the model of some settings onto their device."""
    device = find_device(settings.device)
    gpu = device.type == "cuda"
    model, tokenizer = load_model(settings, settings, seed=settings.seed, gpu=gpu)
    if reward_model.has_fresh_head(model):
        if isinstance(settings, ScoreSettings) and _chooses(settings):
            raise UserError(
                f"{settings.model} has no score head, so it would choose at random; give a reward "
                "model, such as posttrain train leaves"
            )
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
    """The groups of all sources of some settings; what is left out of them is counted."""
    return _renamed(settings, named.iterate, counts)


def _renamed(
    settings: ScoringSettings, iterate: Callable[..., Iterator[Item]], counts: Counter[str]
) -> Iterator[Item]:
    """What all sources give, by a function that reads one.

    An id that an earlier source has too becomes `SOURCE#ID`, so that no two share one. After the
    last item, what was noted while reading is logged.
    """
    notes, renamed = Notes(), 0
    several = len(settings.data) > 1
    # Digests, because the ids of large files would take more memory than a batch.
    seen: set[bytes] = set()
    for source in settings.data:
        for item in iterate(source, counts=counts, notes=notes, **settings.reading):
            if several:
                name = item.id
                while (digest := _digest(name)) in seen:
                    name = f"{source}#{name}"
                seen.add(digest)
                if name != item.id:
                    renamed += 1
                    item = replace(item, id=name)
            yield item
    if renamed:
        logger.warning(
            "%s ids occur in an earlier source too; they are written as SOURCE#ID", f"{renamed:,}"
        )
    notes.warn(logger, settings.data)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _scored(
    settings: CombinedSettings,
    scorers: list[Scorer],
    calibrations: list[Calibration],
    groups: Iterator[Item],
    counts: Counter[str],
) -> Iterator[Scored[Item]]:
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
        if not np.isfinite(combined).all():
            raise UserError(
                f"record {group.id!r}: the combined score is not finite; take a smaller "
                "safety_weight"
            )
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

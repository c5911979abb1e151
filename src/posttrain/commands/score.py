"""``posttrain score``: the score of every response of a file."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from posttrain import reward_model
from posttrain.commands.common import LAYOUT_HELP, ModelSettings, RowSettings, load_model
from posttrain.files import whole_file
from posttrain.scoring import Scored, score_groups
from posttrain.settings import setting
from posttrain.sources import named

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreSettings(RowSettings, ModelSettings):
    """Settings of ``posttrain score``."""

    layout: str = setting("separate", LAYOUT_HELP)
    data: list[str] = setting([], "Files (.jsonl, .jsonl.gz, .csv, .parquet) or other sources.")
    output: str = setting(
        "scores.jsonl", "Where to write one line for each response: id, response, score."
    )
    batch_tokens: int = setting(8192, "Tokens computed at once, padding aside.")
    skip_bad: bool = setting(False, "Leave out, and count, bad records.")
    seed: int = setting(
        0, "Seeds the score head where the checkpoint has none, and the order of shuffled rows."
    )
    device: str | None = setting(None, "cpu or cuda; by default a GPU if there is one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        ModelSettings.__post_init__(self)
        if not self.data:
            raise ValueError("give data to score: files or other sources")


def run(settings: ScoreSettings) -> Counter[str]:
    """Score data of any size, a thousand groups at a time.

    The file has one JSON object a line: ``id`` of the record, ``response`` (``edited``, ``chosen``
    or ``rejected``) and ``score``. It appears whole or not at all.

    Returns:
        Numbers of ``groups`` and ``responses``, and of what was cut or left out.

    Raises:
        ValueError: If the model cannot be loaded, or data cannot be read or scored.
    """
    counts: Counter[str] = Counter()
    scored = scored_groups(settings, counts)
    with whole_file(settings.output) as file:
        for one in scored:
            counts["groups"] += 1
            for response, value in one.scores.items():
                counts["responses"] += 1
                line = {"id": one.group.id, "response": response, "score": value}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return counts


def scored_groups(settings: ScoreSettings, counts: Counter[str]) -> Iterator[Scored]:
    """Load the model and score the data, one group after the other."""
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, tokenizer = load_model(settings, settings, seed=settings.seed, gpu=device == "cuda")
    if reward_model.has_fresh_head(model):
        logger.warning(
            "%s has no score head: scores are those of a random one, drawn with seed %d",
            settings.model, settings.seed,
        )  # fmt: skip
    model.to(device)  # type: ignore[arg-type]
    torch.manual_seed(settings.seed)
    groups = (
        group
        for source in settings.data
        for group in named.iterate(source, counts=counts, skip_bad=settings.skip_bad)
    )
    return score_groups(
        model,
        tokenizer,
        groups,
        settings.rows,
        settings.limits(model),
        batch_tokens=settings.batch_tokens,
        row_tokens=settings.row_tokens,
        counts=counts,
    )

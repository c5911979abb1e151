"""The data of ``posttrain sft`` and ``posttrain dpo``: read, checked against the model, counted."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset

from posttrain.commands.policy_settings import DpoSettings, PolicySettings, SftSettings
from posttrain.data.demonstrations import read_demonstrations
from posttrain.data.messages import Message
from posttrain.data.preferences import Pair, RankedGroup
from posttrain.data.store import stored
from posttrain.errors import UserError
from posttrain.models.architecture import context_length, vocabulary_size
from posttrain.policy.datasets import demonstration_set, pair_set
from posttrain.rows.rendering import Reading, altered_counts, read_responses
from posttrain.training.pairing import Pairing

logger = logging.getLogger(__name__)

TOO_LONG = "records that are too long"
UNREADABLE = "records that the model cannot read"
EQUAL = "pairs that are equal in tokens"
WEAK = "pairs below min_strength"


class Reader:
    """Reads records as a model does: which fit it, and what its chat template leaves out."""

    def __init__(self, settings: PolicySettings, config: Any, model: Any, tokenizer: Any) -> None:
        limits = (config.max_length, context_length(model.config))
        self._most = min((one for one in limits if one is not None), default=None)
        self._settings, self._tokenizer = settings, tokenizer
        self._vocabulary = vocabulary_size(model)
        self.counts: Counter[str] = Counter()

    def read(
        self, where: str, prompt: Sequence[Message], responses: Sequence[str]
    ) -> Reading | None:
        """A record in tokens; None where it is left out, and counted.

        Raises:
            UserError: If it cannot be read or is too long, unless settings say to leave it out.
        """
        try:
            reading = read_responses(
                self._tokenizer, prompt, responses, vocabulary=self._vocabulary
            )
        except UserError as error:
            if self._settings.skip_bad:
                self.counts[UNREADABLE] += 1
                return None
            raise UserError(f"{where}: {error}; or leave such records out (--skip_bad)") from error
        longest = max(map(len, reading.rows))
        if self._most is not None and longest > self._most:
            if self._settings.skip_too_long:
                self.counts[TOO_LONG] += 1
                return None
            raise UserError(
                f"{where}: prompt and response have {longest} tokens, and {self._most} are read at "
                "most (max_length, or the model's context); raise --max_length as far as the "
                "context allows, or leave such records out (--skip_too_long)"
            )
        for what, number in altered_counts(reading.altered).items():
            if what not in self.counts:
                logger.warning("%s, such as in %s; they are counted in run.json", what, where)
            self.counts[what] += number
        return reading


def demonstrations(
    settings: SftSettings, config: Any, model: Any, tokenizer: Any
) -> tuple[Dataset, dict[str, Any]]:
    """Demonstrations to train on, and an account of them."""
    found = read_demonstrations(settings.data, **settings.reading)
    found.notes.warn(logger, settings.data)
    reader = Reader(settings, config, model, tokenizer)
    kept = []
    for one in found.rows:
        reading = reader.read(one.where, one.prompt, [one.response])
        if reading is not None:
            reader.counts["tokens"] += len(reading.rows[0])
            kept.append(one)
    _refuse_none(kept, settings, found.counts, reader.counts)
    rows = demonstration_set([one.prompt for one in kept], [one.response for one in kept])
    return rows, {
        "sources": settings.data,
        "read": dict(found.counts),
        "notes": found.notes.lines(),
        "training": {"demonstrations": len(kept)} | dict(reader.counts),
        "fingerprint": found.fingerprint,
    }


def preferences(
    settings: DpoSettings, config: Any, model: Any, tokenizer: Any
) -> tuple[Dataset, dict[str, Any]]:
    """Pairs to train on, and an account of them."""
    groups = stored(settings.data, **settings.reading)
    reader = Reader(settings, config, model, tokenizer)
    pairs = list(_pairs(groups, settings.pairing(), reader))
    _refuse_none(pairs, settings, groups.counts, reader.counts)
    return pair_set(pairs), {
        "sources": settings.data,
        "read": groups.counts,
        "notes": groups.notes.lines(),
        "training": {"pairs": len(pairs)} | dict(reader.counts),
        "fingerprint": groups.fingerprint,
    }


def _pairs(groups: Any, pairing: Pairing, reader: Reader) -> Iterator[tuple[RankedGroup, Pair]]:
    for group in groups:
        reading = reader.read(f"record {group.id!r}", group.prompt, group.responses)
        if reading is None:
            continue
        last = len(group.responses) - 1
        for pair in group.pairs():
            rated = (pair.winner, pair.loser) == (last - 1, last)
            if rated and not pairing.is_strong(group):
                reader.counts[WEAK] += 1
            elif reading.rows[pair.winner] == reading.rows[pair.loser]:
                reader.counts[EQUAL] += 1
            else:
                rows = (reading.rows[pair.winner], reading.rows[pair.loser])
                reader.counts["tokens"] += sum(map(len, rows))
                yield group, pair


def _refuse_none(kept: Sequence[Any], settings: PolicySettings, *counts: Any) -> None:
    if not kept:
        left_out = {name: number for one in counts for name, number in one.items()}
        raise UserError(
            f"{', '.join(settings.data)}: nothing is left to train on; left out: {left_out}"
        )

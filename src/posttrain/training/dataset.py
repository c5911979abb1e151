"""Preference data on disk: from a source to token ids in Arrow files, never whole in memory.

Groups are read once from where they are and stored as Arrow (:func:`.store.stored`); then prompts
and responses are turned into token ids by several processes (:func:`tokenized`). Both results are
kept in the cache, under names that change with data, settings and code, and are mapped into memory
when they are read. What stays in memory is a few numbers a group.
"""

import logging
import os
import signal
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import RankedGroup
from posttrain.data.store import ROWS_PER_BATCH, Stored, group_of
from posttrain.errors import UserError
from posttrain.rows.rendering import altered_counts, tokenizer_hash
from posttrain.rows.tokenization import (
    Limits,
    NoPairError,
    TooLongError,
    UnreadableError,
    tokenize_group,
)
from posttrain.storage import cache
from posttrain.training.collator import FEATURES, training_record
from posttrain.training.pairing import Pairing

logger = logging.getLogger(__name__)

#: Raise when groups become other rows of training data: here, in :mod:`.rows.tokenization`,
#: :mod:`.rows.rendering`, :mod:`.pairing`, :mod:`.collator` (``training_record``) or
#: :mod:`.losses` (margins).
VERSION = 2
#: Beside each tokenised group: prompt tokens cut off, responses dropped because they equal others
#: in tokens, parts that the chat template leaves out, whether its own margin has no say, and why
#: the group is left out.
_ACCOUNT = {
    "trimmed": Value("int32"),
    "dropped": Value("int32"),
    "altered": List(Value("string")),
    "margin_unused": Value("bool"),
    "problem": Value("string"),
}


@dataclass(frozen=True)
class Tokenized:
    """Groups to train on.

    Attributes:
        rows: A data set for :class:`.trainer.RankingTrainer`.
        counts: Groups and pairs, and what was cut, dropped or left out.
        mean_weight: Mean weight of the pairs, for :class:`.collator.GroupCollator`.
        domains: Number of groups by domain; None counts those without one.
    """

    rows: Dataset
    counts: dict[str, int]
    mean_weight: float
    domains: dict[str | None, int]


def tokenized(
    groups: Stored,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairing,
    limits: Limits,
    *,
    processes: int = 1,
) -> Tokenized:
    """Turn stored groups into token ids and the comparisons to train on.

    Raises:
        UserError: As for :func:`.tokenize_group` and :meth:`.Pairing.apply`, or if no pair is left.
    """
    many = processes > 1 and len(groups.rows) >= 2 * ROWS_PER_BATCH
    settings = asdict(pairs) | asdict(limits) | {"tokenizer": tokenizer_hash(tokenizer)}
    rows = groups.rows.map(
        _training_rows,
        batched=True,
        batch_size=ROWS_PER_BATCH,
        fn_kwargs={
            "tokenizer": tokenizer,
            "pairs": pairs,
            "limits": limits,
            "main": os.getpid(),
        },
        remove_columns=groups.rows.column_names,
        features=Features(FEATURES | _ACCOUNT),
        # A process needs some work to be worth its start; None is this one.
        num_proc=min(processes, len(groups.rows) // ROWS_PER_BATCH) if many else None,
        new_fingerprint=cache.key(
            settings | {"groups": groups.fingerprint},
            *("tokenizers", "transformers"),
            version=VERSION,
        ),
        desc="tokenising",
    )
    table = rows.with_format("arrow")
    counts: Counter[str] = Counter()
    for entry in pyarrow.compute.value_counts(table["problem"][:]).to_pylist():
        if entry["values"]:
            counts[entry["values"]] = entry["counts"]
    counts["trimmed prompts"] = int((np.asarray(table["trimmed"][:]) > 0).sum())
    counts["dropped responses"] = int(np.asarray(table["dropped"][:]).sum())
    altered = altered_counts(pyarrow.compute.list_flatten(table["altered"][:]).to_pylist())
    if altered:
        logger.warning(
            "the model does not read all of the texts: %s",
            ", ".join(f"{number:,} {what}" for what, number in altered.items()),
        )
    counts += altered
    unused = pyarrow.compute.sum(table["margin_unused"][:]).as_py()
    if unused:
        logger.warning(
            "margins of %s records have no say, because margins are %r and pairs %r; --margins "
            "record takes those of rated pairs, as TRL does",
            f"{unused:,}", pairs.margins, pairs.pairs,
        )  # fmt: skip
        counts["margins of records that have no say"] = unused
    pair_counts = np.asarray(table["pair_count"][:])
    kept = np.flatnonzero(pair_counts)
    if not len(kept):
        raise UserError(f"there is no pair to train on; left out: {dict(+counts)}")
    if len(kept) < len(rows):
        rows = rows.select(kept)
    rows = rows.remove_columns(list(_ACCOUNT))
    parts = rows.select_columns("weights").with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    weight = sum(
        pyarrow.compute.sum(pyarrow.compute.list_flatten(part["weights"])).as_py() for part in parts
    )
    found = {"groups": len(kept), "pairs": int(pair_counts.sum())}
    domains = groups.domains(kept)
    return Tokenized(rows, found | dict(+counts), weight / found["pairs"], domains)


def _training_rows(
    batch: dict[str, list[Any]],
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairing,
    limits: Limits,
    main: int,
) -> dict[str, list[Any]]:
    if os.getpid() != main:
        # Ctrl-C reaches all processes; the main one ends the others, and says so in one line.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    rows = [
        _training_row(group_of(dict(zip(batch, values, strict=True))), tokenizer, pairs, limits)
        for values in zip(*batch.values(), strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _training_row(
    group: RankedGroup, tokenizer: PreTrainedTokenizerBase, pairs: Pairing, limits: Limits
) -> dict[str, Any]:
    """A row of training data; without pairs, and with the reason, where there is none."""
    problem = ""
    try:
        tokens = tokenize_group(tokenizer, group, limits)
    except NoPairError:
        problem = "groups whose responses are equal in tokens"
    except TooLongError:
        if not limits.skip_too_long:
            raise
        problem = "groups that are too long"
    except UnreadableError:
        if not limits.skip_unreadable:
            raise
        problem = "records that the model cannot read"
    if problem:
        counted = ("length", "total", "response_count", "pair_count", "label_count")
        empty = dict.fromkeys(counted, 0)
        account = {
            "trimmed": 0,
            "dropped": 0,
            "altered": [],
            "margin_unused": False,
            "problem": problem,
        }
        return {name: empty.get(name, []) for name in FEATURES} | account
    applied = pairs.apply(group, tokens)
    record = training_record(applied)
    if not record["pair_count"]:
        problem = "groups of which the pairing takes no pair"
    dropped = len(group.responses) - len(tokens.responses)
    return record | {
        "trimmed": tokens.trimmed,
        "dropped": dropped,
        "altered": tokens.altered,
        "margin_unused": pairs.leaves_margin(group, applied),
        "problem": problem,
    }

"""Preference data on disk: from a source to token ids in Arrow files, never whole in memory.

Groups are read once from where they are and stored as Arrow (:func:`.store.stored`); then prompts
and responses are turned into token ids by several processes (:func:`tokenized`). Both results are
kept in the cache, under names that change with data, settings and code, and are mapped into memory
when they are read. So are the groups into which those of one prompt are merged (:mod:`.merging`).
What stays in memory is a few numbers a group.
"""

import hashlib
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
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
from posttrain.training.collator import training_record
from posttrain.training.merging import Merging, Record, by_prompt, merge_records
from posttrain.training.pairing import Pairing

logger = logging.getLogger(__name__)

#: Raise when groups become other rows of training data: here, in :mod:`.rows.tokenization`,
#: :mod:`.rows.rendering`, :mod:`.pairing`, :mod:`.collator` (``training_record``) or
#: :mod:`.losses` (margins).
VERSION = 3
TOO_LONG = "groups that are too long"
#: Columns of a data set that :class:`.trainer.RankingTrainer` trains on.
FEATURES = Features(
    {
        "prompt": List(Value("int32")),
        "responses": List(List(Value("int32"))),
        "winners": List(Value("int32")),
        "losers": List(Value("int32")),
        "margins": List(Value("float64")),
        "weights": List(Value("float64")),
        "strengths": List(Value("int8")),
        "labelled": List(Value("int32")),
        "acceptable": List(Value("bool")),
        "length": Value("int32"),
        "total": Value("int32"),
        "response_count": Value("int32"),
        "pair_count": Value("int32"),
        "label_count": Value("int32"),
        "records": Value("int32"),
        "part": Value("int32"),
    }
)
#: Beside each tokenised group: hashes of its prompt, as it stands and as the model reads it, prompt
#: tokens cut off, responses dropped because they equal others in tokens, parts that the chat
#: template leaves out, whether its own margin has no say, and why the group is left out.
_ACCOUNT = {
    "prompt_text": Value("int64"),
    "prompt_tokens": Value("int64"),
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
        name: Changes with whatever changes the rows.
        prompts: Hashes of each row's prompt, as text and as tokens, ``[rows, 2]``.
    """

    rows: Dataset
    counts: dict[str, int]
    mean_weight: float
    domains: dict[str | None, int]
    name: str
    prompts: np.ndarray

    def merged(self, merging: Merging | None) -> "Tokenized":
        """The same comparisons, those whose prompts have the same tokens in one group.

        Where limits cut the prompt of one record more than that of another, they stay apart.
        Without ``merging`` all do.
        """
        texts, tokens = self.prompts.T
        if merging is None or len(np.unique(tokens)) == len(self.rows):
            return self
        rows, account = _merged(self.rows, tokens, merging, self.name)
        pairs = np.asarray(self.rows.with_format("numpy")["pair_count"][:])
        account["pairs kept apart, as their prompt is cut elsewhere"] = _apart(texts, tokens, pairs)
        counts = self.counts | {what: count for what, count in account.items() if count}
        return replace(self, rows=rows, counts=counts)


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
        TooLongError: If groups are too long and may not be left out. It names the first and how
            many there are; what was tokenised is kept for a run that leaves them out.
        UserError: As for :func:`.tokenize_group` and :meth:`.Pairing.apply`, or if no pair is left.
    """
    many = processes > 1 and len(groups.rows) >= 2 * ROWS_PER_BATCH
    # Whether groups that are too long may be left out is asked when all are known.
    lengths = asdict(replace(limits, skip_too_long=True, context=None))
    settings = asdict(pairs) | lengths | {"tokenizer": tokenizer_hash(tokenizer)}
    name = cache.key(
        settings | {"groups": groups.fingerprint},
        *("tokenizers", "transformers"),
        version=VERSION,
    )
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
        new_fingerprint=name,
        desc="tokenising",
    )
    table = rows.with_format("arrow")
    counts: Counter[str] = Counter()
    for entry in pyarrow.compute.value_counts(table["problem"][:]).to_pylist():
        if entry["values"]:
            counts[entry["values"]] = entry["counts"]
    if counts[TOO_LONG] and not limits.skip_too_long:
        first = pyarrow.compute.index(table["problem"][:], TOO_LONG).as_py()
        try:
            tokenize_group(tokenizer, group_of(groups.rows[first]), limits)
        except TooLongError as error:
            raise error.among(counts[TOO_LONG], len(rows), groups.sources) from None
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
    found = {"groups": len(kept), "pairs": int(pair_counts.sum())}
    prompts = rows.with_format("numpy")
    hashes = [np.asarray(prompts[column][:]) for column in ("prompt_text", "prompt_tokens")]
    rows = rows.remove_columns(list(_ACCOUNT))
    parts = rows.select_columns("weights").with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    weight = sum(
        pyarrow.compute.sum(pyarrow.compute.list_flatten(part["weights"])).as_py() for part in parts
    )
    domains = groups.domains(kept)
    mean_weight = weight / found["pairs"]
    return Tokenized(
        rows, found | dict(+counts), mean_weight, domains, name, np.stack(hashes, axis=1)
    )


def _merged(
    rows: Dataset, prompts: np.ndarray, merging: Merging, name: str
) -> tuple[Dataset, dict[str, int]]:
    """Rows of the same prompt merged, in order of their first, and an account of tokens."""
    settings = asdict(merging) | {"rows": name}

    def make(folder: Path) -> None:
        account: Counter[str] = Counter()
        schema = FEATURES.arrow_schema
        with pyarrow.ipc.new_stream(folder / "groups.arrow", schema) as file:
            for alike in _alike(rows, prompts):
                made = []
                for records in alike:
                    parts = merging.apply(records)
                    made += parts
                    whole = merging.tokens(merge_records(records))
                    account["tokens"] += sum(map(merging.tokens, parts))
                    account["tokens without merging"] += sum(map(merging.tokens, records))
                    account["groups after merging"] += 1
                    account["tokens computed again in other parts of a group"] -= whole
                file.write_batch(pyarrow.RecordBatch.from_pylist(made, schema=schema))
        account["tokens computed again in other parts of a group"] += account["tokens"]
        (folder / "account.json").write_text(json.dumps(account), encoding="utf-8")

    folder = cache.get_or_create(f"merged/{cache.key(settings, version=VERSION)}", make)
    account = json.loads((folder / "account.json").read_text(encoding="utf-8"))
    return Dataset.from_file(str(folder / "groups.arrow")), account


def _alike(rows: Dataset, prompts: np.ndarray) -> Iterator[list[list[Record]]]:
    """Records by prompt, in order of their first, some thousand at a time."""
    _, first, prompt = np.unique(prompts, return_index=True, return_inverse=True)
    place = first[prompt]
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    begin = 0
    for end in (*starts[1:].tolist(), len(order)):
        if end - begin < ROWS_PER_BATCH and end < len(order):
            continue
        batch = rows[order[begin:end].tolist()]
        records = [
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        # By tokens, not by their hash, which different prompts may share.
        yield by_prompt(records)
        begin = end


def _apart(texts: np.ndarray, tokens: np.ndarray, pairs: np.ndarray) -> int:
    """Pairs outside the largest group of their prompt, whose tokens are not the same for all."""
    by_text: dict[int, Counter[int]] = {}
    for text, ids, count in zip(texts.tolist(), tokens.tolist(), pairs.tolist(), strict=True):
        by_text.setdefault(text, Counter())[ids] += count
    return sum(found.total() - max(found.values()) for found in by_text.values())


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
        problem = TOO_LONG
    except UnreadableError:
        if not limits.skip_unreadable:
            raise
        problem = "records that the model cannot read"
    if problem:
        counted = ("length", "total", "response_count", "pair_count", "label_count")
        empty = dict.fromkeys(counted, 0)
        empty |= {"records": 1, "part": 0}
        account = {
            "prompt_text": 0,
            "prompt_tokens": 0,
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
        "prompt_text": _hash([(turn.role, turn.content) for turn in group.prompt]),
        "prompt_tokens": _hash(tokens.prompt),
        "trimmed": tokens.trimmed,
        "dropped": dropped,
        "altered": tokens.altered,
        "margin_unused": pairs.leaves_margin(group, applied),
        "problem": problem,
    }


def _hash(value: Sequence[Any]) -> int:
    digest = hashlib.blake2b(json.dumps(value).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)

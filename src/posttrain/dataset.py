"""Preference data on disk: from a source to token ids in Arrow files, never whole in memory.

Groups are read once from where they are and stored as Arrow (:func:`stored`); then prompts and
responses are turned into token ids by several processes (:func:`tokenized`). Both results are kept
in the cache, under names that change with data, settings and code, and are mapped into memory when
they are read. What stays in memory is a few numbers a group.
"""

import hashlib
import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from posttrain import cache, losses, pairing, tokenization, training_data
from posttrain.mixing import mix_codes
from posttrain.pairing import Pairing
from posttrain.preferences import Message, RankedGroup
from posttrain.sources import named
from posttrain.splits import Indices, split_codes
from posttrain.tokenization import NoPairError, TooLongError, tokenize_group
from posttrain.training_data import FEATURES, training_record

ROWS_PER_BATCH = 1000
_TEXT = pyarrow.string()
_SCHEMA = pyarrow.schema(
    {
        "id": _TEXT,
        "prompt": pyarrow.list_(pyarrow.struct({"role": _TEXT, "content": _TEXT})),
        "responses": pyarrow.list_(_TEXT),
        "strength": pyarrow.int8(),
        "margin": pyarrow.float64(),
        "group": _TEXT,
        "domain": _TEXT,
    }
)


#: Beside each tokenised group: prompt tokens cut off, responses dropped because they equal others
#: in tokens, and why it is left out.
_ACCOUNT = {"trimmed": Value("int32"), "dropped": Value("int32"), "problem": Value("string")}


@dataclass(frozen=True)
class Stored:
    """Groups on disk.

    Attributes:
        rows: One row a group; :func:`group_of` turns it back.
        counts: What was left out while reading, by reason.
        fingerprint: Hash of the groups, whatever code has read them.
    """

    rows: Dataset
    counts: dict[str, int]
    fingerprint: str

    def __iter__(self) -> Iterator[RankedGroup]:
        return map(group_of, self.rows)

    def select(self, indices: Indices) -> "Stored":
        """Some of the groups."""
        name = hashlib.sha256(self.fingerprint.encode() + indices.tobytes()).hexdigest()[:16]
        return Stored(self.rows.select(indices), self.counts, name)

    def split(self, *, test_fraction: float, seed: int) -> tuple["Stored", "Stored"]:
        """Training and test groups; those with one ``group`` stay together.

        The split of :func:`posttrain.splits.split`, from less memory.

        Raises:
            ValueError: As there.
        """
        names = self.rows.with_format("arrow")["group"][:]
        # Places in alphabetical order.
        places = pyarrow.compute.rank(names, sort_keys="ascending", tiebreaker="dense")
        codes = np.asarray(places).astype(np.intp) - 1
        training, test = split_codes(codes, test_fraction=test_fraction, seed=seed)
        return self.select(training), self.select(test)

    def mixed(self, shares: Mapping[str, float], *, seed: int) -> "Stored":
        """As many of the groups as a mix of domains allows.

        The choice of :func:`posttrain.mixing.mix`, from less memory.

        Args:
            shares: Share of the groups by domain.
            seed: Seeds which groups of a domain are taken.

        Raises:
            ValueError: If a group has no domain, or a domain no group.
        """
        codes, known = self._domain_codes

        def name_of(place: int) -> str:
            return f"record {self.rows[place]['id']!r}"

        return self.select(mix_codes(codes, known, shares, seed=seed, name_of=name_of))

    def domains(self, indices: Indices | None = None) -> dict[str | None, int]:
        """Number of groups, of all or of those at some indices, by domain; None: without one."""
        codes, known = self._domain_codes
        chosen = codes if indices is None else codes[indices]
        counts = np.bincount(chosen + 1, minlength=len(known) + 1).tolist()
        return {name: count for name, count in zip([None, *known], counts, strict=True) if count}

    @cached_property
    def _domain_codes(self) -> tuple[Indices, list[str]]:
        """Place of each group's domain among all of them in alphabetical order; -1 for none."""
        # By batches: gathering a whole column of selected rows takes a kilobyte a row.
        batches = self.rows.select_columns("domain").with_format("arrow").iter(ROWS_PER_BATCH)
        seen: dict[str | None, int] = {}
        names = itertools.chain.from_iterable(batch["domain"].to_pylist() for batch in batches)
        codes = np.fromiter((seen.setdefault(name, len(seen)) for name in names), dtype=np.intp)
        known = sorted(name for name in seen if name is not None)
        places = [-1 if name is None else known.index(name) for name in seen]
        return np.array(places, dtype=np.intp)[codes], known


def stored(sources: Sequence[str], *, skip_bad: bool = False) -> Stored:
    """Read groups from sources and store them.

    Args:
        sources: Names as of :mod:`.sources.named`.
        skip_bad: Leave bad records out and count them. Otherwise the first one is an error.

    Raises:
        ValueError: If a source is unknown or unreadable, a record is bad, or there is no record.
    """
    identities = [named.identity(source) for source in sources]
    settings = {"sources": identities, "skip_bad": skip_bad}
    name = cache.key(settings, *named.CODE, sys.modules[__name__])

    def make(folder: Path) -> None:
        counts: Counter[str] = Counter()
        groups = itertools.chain.from_iterable(
            named.iterate(source, counts=counts, skip_bad=skip_bad) for source in sources
        )
        with pyarrow.ipc.new_stream(folder / "groups.arrow", _SCHEMA) as file:
            while batch := list(itertools.islice(groups, ROWS_PER_BATCH)):
                rows = [_row(group) for group in batch]
                file.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        with (folder / "groups.arrow").open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        account = {"counts": counts, "sha256": content}
        (folder / "account.json").write_text(json.dumps(account), encoding="utf-8")

    folder = cache.made(f"data/{name}", make)
    rows = Dataset.from_file(str(folder / "groups.arrow"))
    account = json.loads((folder / "account.json").read_text(encoding="utf-8"))
    counts = account["counts"]
    if not len(rows):
        raise ValueError(
            f"{', '.join(sources)}: no record is left to work with; left out: {counts}"
        )
    return Stored(rows, counts, account["sha256"][:16])


def _row(group: RankedGroup) -> dict[str, Any]:
    row = {name: getattr(group, name) for name in _SCHEMA.names if name != "prompt"}
    return row | {"prompt": [asdict(message) for message in group.prompt]}


def group_of(row: dict[str, Any]) -> RankedGroup:
    """The group of one row."""
    prompt = tuple(Message(**message) for message in row["prompt"])
    return RankedGroup(**row | {"prompt": prompt, "responses": tuple(row["responses"])})


@dataclass(frozen=True)
class Limits:
    """How long a group may be.

    Attributes:
        max_tokens: See :func:`.tokenization.tokenize_group`.
        max_row_tokens: See there.
        skip_too_long: Leave groups out whose responses exceed a limit, and count them. Otherwise
            the first one is an error.
    """

    max_tokens: int | None = None
    max_row_tokens: int | None = None
    skip_too_long: bool = False


@dataclass(frozen=True)
class Tokenized:
    """Groups to train on.

    Attributes:
        rows: A data set for :class:`.trainer.RankingTrainer`.
        counts: Groups and pairs, and what was cut, dropped or left out.
        mean_weight: Mean weight of the pairs, for :class:`.training_data.GroupCollator`.
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

    Args:
        groups: The groups.
        tokenizer: Has a chat template.
        pairs: Which comparisons are made.
        limits: How long groups may be.
        processes: How many work at it.

    Raises:
        ValueError: As for :func:`.tokenization.tokenize_group` and :meth:`.pairing.Pairing.of`, or
            if no pair is left.
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
            *(tokenization, pairing, losses, training_data, sys.modules[__name__]),
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
    pair_counts = np.asarray(table["pair_count"][:])
    kept = np.flatnonzero(pair_counts)
    if not len(kept):
        raise ValueError(f"there is no pair to train on; left out: {dict(+counts)}")
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
        tokens = tokenize_group(
            tokenizer, group, max_tokens=limits.max_tokens, max_row_tokens=limits.max_row_tokens
        )
    except NoPairError:
        problem = "groups whose responses are equal in tokens"
    except TooLongError:
        if not limits.skip_too_long:
            raise
        problem = "groups that are too long"
    if problem:
        counted = ("length", "total", "response_count", "pair_count", "label_count")
        empty = dict.fromkeys(counted, 0)
        account = {"trimmed": 0, "dropped": 0, "problem": problem}
        return {name: empty.get(name, []) for name in FEATURES} | account
    record = training_record(pairs.of(group, tokens))
    if not record["pair_count"]:
        problem = "groups of which the pairing takes no pair"
    dropped = len(group.responses) - len(tokens.responses)
    return record | {"trimmed": tokens.trimmed, "dropped": dropped, "problem": problem}


def tokenizer_hash(tokenizer: Any) -> str:
    """Changes with everything that decides how a conversation becomes token ids."""
    content = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def quiet() -> None:
    """Show no progress bars of reading and tokenising."""
    datasets.disable_progress_bars()

"""Demonstrations: prompts with the one response that a language model is to learn to give.

Records of a file are read as what they are:

- ``prompt`` and ``response``, or ``prompt`` and ``completion`` (a text or chat messages);
- ``messages``, a conversation whose last turn, the assistant's, is the response;
- preferences: ``edited`` where there is one, otherwise ``chosen``;
- ``responses`` with ``scores`` or ``ranks``: the best, of equals the first; of those that are not
  ``finished``, where a file says so, none.

Of any other source it is the best response of each group. What compares responses may compare the
same ones again and again, so each best response to a prompt counts once.
"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.data.columns import SHOWN
from posttrain.data.conversations import read_shared_prompt
from posttrain.data.messages import BadRecord, Message, check_prompt, name_kind, printable
from posttrain.data.notes import Notes
from posttrain.data.preferences import COLUMNS, RESPONSES, RankedGroup, from_record
from posttrain.data.ratings import read_list
from posttrain.data.reading import scan_rows
from posttrain.data.sources import named
from posttrain.errors import UserError

#: What a record with one response may have, and what `posttrain score` writes beside it.
_KNOWN = {*COLUMNS, *SHOWN, "score", "rank"}
#: How a group of a record with a list of responses is named after the record.
_PAIR_OF_LIST = re.compile(r"#\d+>\d+$")

# Why a record gives no demonstration, as counts call it.
REPEATED = "best responses that occurred before"
UNFINISHED = "records without a finished response"


@dataclass(frozen=True)
class Demonstration:
    """A prompt and the response to learn; ``where`` it was found is for messages."""

    prompt: tuple[Message, ...]
    response: str
    where: str = ""


@dataclass
class Demonstrations:
    """Demonstrations with an account of what was left out, and what was noted while reading."""

    rows: list[Demonstration] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: Notes = field(default_factory=Notes)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any of them, and their order."""
        digest = hashlib.sha256()
        for one in self.rows:
            turns = [[turn.role, turn.content] for turn in one.prompt]
            digest.update(json.dumps([turns, one.response]).encode() + b"\n")
        return digest.hexdigest()[:16]


def read_demonstrations(
    sources: Sequence[str], *, skip_bad: bool = False, columns: Mapping[str, str] | None = None
) -> Demonstrations:
    r"""Read the demonstrations of sources, named as in :mod:`.sources.named`, into memory.

    `columns` are the sources' own names of columns by ours (:func:`.parse_columns`).

    Raises:
        UserError: If a source is unknown or unreadable, nothing is left, or a record is bad; with
            `skip_bad`, bad records are counted and left out instead.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.jsonl"
    ...     _ = path.write_text('{"prompt": "2 + 2?", "response": "4"}\n')
    ...     read_demonstrations([str(path)]).rows[0].response
    '4'
    """
    found = Demonstrations()
    seen: set[bytes] = set()
    for source in sources:
        for one, compared in _iterate(source, found, skip_bad, columns):
            if compared:
                name = hashlib.blake2b(
                    repr((one.prompt, one.response)).encode(), digest_size=16
                ).digest()
                if name in seen:
                    found.counts[REPEATED] += 1
                    continue
                seen.add(name)
            found.rows.append(one)
    if not found.rows:
        raise UserError(
            f"{', '.join(sources)}: no demonstration is left to train on; left out: "
            f"{dict(found.counts)}"
        )
    return found


def _iterate(
    source: str, found: Demonstrations, skip_bad: bool, columns: Mapping[str, str] | None
) -> Iterator[tuple[Demonstration, bool]]:
    """Demonstrations, and whether each is the best of a comparison."""
    if not named.is_file(source):
        groups = named.iterate(
            source, counts=found.counts, skip_bad=skip_bad, notes=found.notes, columns=columns
        )
        # The pairs of one list of responses follow one another.
        for _, alike in itertools.groupby(groups, lambda one: _PAIR_OF_LIST.sub("", one.id)):
            for one in _best(list(alike)):
                yield one, True
        return

    def read(record: Any, where: str, default_id: str) -> tuple[Demonstration | None, bool]:
        return _read(record, where, found.notes)

    for item in scan_rows(Path(source), found.notes, read, others=SHOWN, columns=columns):
        if isinstance(item, BadRecord):
            if not skip_bad:
                raise item
            found.counts["bad records"] += 1
        elif item[0] is None:
            found.counts[UNFINISHED] += 1
        else:
            yield item[0], item[1]


def _best(groups: Sequence[RankedGroup]) -> Iterator[Demonstration]:
    """The best response of a group; of the pairs of one list that which loses none, the first."""
    if len(groups) == 1:
        yield _of(groups[0])
        return
    beaten = {text for group in groups for text in group.responses[1:]}
    unbeaten = [group for group in groups if group.responses[0] not in beaten]
    if unbeaten:
        yield _of(unbeaten[0])


def _of(group: RankedGroup) -> Demonstration:
    return Demonstration(group.prompt, group.responses[0], f"record {group.id!r}")


def _read(record: Any, where: str, notes: Notes) -> tuple[Demonstration | None, bool]:
    if not isinstance(record, Mapping):
        raise BadRecord(
            f"a record must be an object with named fields, not {name_kind(record)}",
            remedy='write one object such as {"prompt": …, "response": …} per line',
        )
    if any(record.get(name) is not None for name in RESPONSES):
        group = from_record(record, where=where, notes=notes)
        return Demonstration(group.prompt, group.responses[0], where), True
    listed = read_list(record, notes=notes, least=1)
    if listed is not None:
        prompt, responses, ratings = listed
        finished = read_finished(record.get("finished"), len(responses))
        places = [place for place in range(len(responses)) if finished[place]]
        if not places:
            return None, True
        best = responses[max(places, key=ratings.__getitem__)]
        return Demonstration(prompt, best, where), True
    given = [name for name in SHOWN if record.get(name) is not None]
    if len(given) > 1:
        raise BadRecord(f"the record also has '{given[0]}'", given[1], "keep one of the two")
    if not given:
        raise BadRecord(
            "it is missing",
            "response",
            "add it beside 'prompt', or give a conversation as 'messages', or remove the record",
        )
    prompt, text = read_shown(record, given[0], notes)
    return Demonstration(prompt, text, where), False


def read_shown(
    record: Mapping[str, Any], column: str, notes: Notes
) -> tuple[tuple[Message, ...], str]:
    """Prompt and response of a record that has one in a column of :data:`.columns.SHOWN`."""
    notes.columns.update(printable(str(name)) for name in record if name not in _KNOWN)
    row = Notes()
    prompt, texts = read_shared_prompt(record.get("prompt"), {column: record[column]}, row)
    notes.add_row(row)
    check_prompt(prompt)
    return prompt, texts[column]


def read_finished(value: Any, count: int) -> Sequence[bool]:
    """Which responses of a list were ended by their writer; all, where the record does not say."""
    if value is None:
        return [True] * count
    if not isinstance(value, list) or not all(isinstance(one, bool) for one in value):
        raise BadRecord("it must be a list of true and false", "finished", "write one a response")
    if len(value) != count:
        raise BadRecord(
            f"it has {len(value)} values for {count} responses", "finished", "give one a response"
        )
    return value

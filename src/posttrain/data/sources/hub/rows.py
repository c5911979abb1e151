"""What the converters of hub data sets share: where a row stands, checked fields, edits, groups."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from posttrain.data.messages import BadRecord, Message, check_prompt, name_kind, show_value
from posttrain.data.notes import Notes
from posttrain.data.preferences import RankedGroup
from posttrain.data.ratings import read_record

REMEDY = "check that the file is the one that the authors publish"


@dataclass(frozen=True)
class Place:
    """What a converter knows beside the fields of a row.

    `id` names the row among all rows of all data sets, `dropped` counts comparisons that are left
    out by reason, `edits` finds edited responses to join to the rows. `reader` reads rows that are
    like those of files, and `columns` are their own names of columns by ours.
    """

    id: str
    split: str
    dropped: Counter[str]
    edits: "Edits | None" = None
    notes: Notes | None = None
    reader: Callable[..., Any] = read_record
    columns: Mapping[str, str] = field(default_factory=dict)


def ranked(
    place: Place,
    prompt: tuple[Message, ...],
    responses: tuple[str, str],
    domain: str,
    strength: int | None = None,
) -> Iterator[RankedGroup]:
    """Yield the group of (chosen, rejected), or count in `place.dropped` why there is none."""
    chosen, rejected = (response.strip() for response in responses)
    if not chosen or not rejected:
        place.dropped["empty response"] += 1
    elif chosen == rejected:
        place.dropped["identical responses"] += 1
    else:
        opening = next(message.content for message in prompt if message.role == "user")
        yield RankedGroup(
            id=place.id,
            prompt=prompt,
            responses=responses,
            strength=strength,
            cluster_id=hashlib.sha256(opening.strip().encode()).hexdigest()[:16],
            domain=domain,
        )


def messages(row: Mapping[str, Any], field: str) -> tuple[Message, ...]:
    """Return a field that must hold chat messages which end with a user turn."""
    value = row.get(field)
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise BadRecord(f"it must be a list of messages, not {show_value(value)}", field, REMEDY)
    turns = tuple(Message(item.get("role"), item.get("content")) for item in value)
    check_prompt(turns, field)
    return turns


def text(row: Mapping[str, Any], field: str) -> str:
    """Return a field that must hold text, which may be empty."""
    value = row.get(field)
    if not isinstance(value, str):
        problem = "it is missing" if value is None else f"it must be text, not {name_kind(value)}"
        raise BadRecord(problem, field, REMEDY)
    return value


def whole_number(row: Mapping[str, Any], field: str, low: int, high: int) -> int:
    """Return a field that must hold a whole number from `low` to `high`."""
    value = row.get(field)
    # A column in which some number is missing may hold whole numbers as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        problem = f"{show_value(value)} is not a whole number from {low} to {high}"
        raise BadRecord(problem, field, REMEDY)
    return value


class Edits:
    """Finds the edited version of a response: texts stay on disk, a short hash each in memory."""

    def __init__(self, rows: Dataset) -> None:
        """Index the rows of HelpSteer3's config `edit`."""
        self._rows = rows
        self._numbers: dict[bytes, int] = {}
        self._joined: set[bytes] = set()
        for number, row in enumerate(rows):
            try:
                key = _key(messages(row, "context"), text(row, "original_response"))
            except BadRecord:
                continue  # Reading the config itself reports the row.
            self._numbers.setdefault(key, number)

    def find(self, group: RankedGroup) -> str | None:
        """Return the edited version of a group's chosen response, or None, and remember it."""
        number = self._numbers.get(_key(group.prompt, group.chosen))
        edited = None if number is None else self._rows[number].get("edited_response")
        # An edit that is equal to the rejected response contradicts the ranking: both stay pairs.
        known = [response.strip() for response in group.responses]
        if not isinstance(edited, str) or edited.strip() in ("", *known):
            return None
        self._joined.add(_key(group.prompt, edited, group.chosen))
        return edited

    def joined(self, prompt: tuple[Message, ...], edited: str, original: str) -> bool:
        """Whether :meth:`find` has returned this edit of this response."""
        return _key(prompt, edited, original) in self._joined


def _key(prompt: tuple[Message, ...], *responses: str) -> bytes:
    texts = [part for turn in prompt for part in (turn.role, turn.content)] + list(responses)
    stripped = json.dumps([part.strip() for part in texts])
    return hashlib.blake2b(stripped.encode(), digest_size=16).digest()

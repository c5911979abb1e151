"""Ranked groups: the one data structure that everything else in this package reads.

A ranked group is one prompt with two or three responses, best first: edited > chosen > rejected
(Llama 3, arXiv 2407.21783, section 4.2.1). Here are its rules and its plain dictionary form in
TRL's preference format; :mod:`.data.reading` reads and writes files of those.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from posttrain.config.keys import Key
from posttrain.data.conversations import read_prompt_and_responses, stands_as_it_is
from posttrain.data.messages import (
    BadRecord,
    Message,
    check_prompt,
    check_text,
    name_kind,
    printable,
    show_value,
)
from posttrain.data.notes import Notes

STRENGTHS = {1: "negligibly", 2: "slightly", 3: "better", 4: "significantly better"}
COLUMNS = (
    "id",
    "prompt",
    "chosen",
    "rejected",
    "edited",
    "strength",
    "margin",
    "group",
    "domain",
)
RESPONSES = ("edited", "chosen", "rejected")


class PairKind(Key):
    """Pairs of a group by the roles of winner and loser; only the first was rated by annotators."""

    RATED = "chosen > rejected"
    EDITED_CHOSEN = "edited > chosen"
    EDITED_REJECTED = "edited > rejected"


@dataclass(frozen=True)
class Pair:
    """Two responses of one group, as indices into `RankedGroup.responses`, winner < loser.

    Strength (1 to 4) and margin are those of the group, or None where annotators did not say.
    """

    winner: int
    loser: int
    strength: int | None = None
    margin: float | None = None


@dataclass(frozen=True)
class RankedGroup:
    """One prompt with its responses, best first.

    Attributes:
        id: Unique within a file.
        prompt: The conversation so far; may start with a system message, ends with a user turn.
        responses: (chosen, rejected) or (edited, chosen, rejected).
        strength: How much better chosen is than rejected: 1 negligibly, 2 slightly, 3 better, 4
            significantly better; None if unknown.
        margin: An explicit margin of chosen over rejected, in units of reward; None if none.
        cluster_id: Groups with one cluster fall on the same side of a split. Left empty, it becomes
            a hash of the prompt. Files and records call it `group`.
        domain: Such as `helpfulness` or `safety`; None if unknown.

    Raises:
        BadRecord: A value breaks these rules, a text is blank, or two are equal when stripped.

    >>> prompt = (Message("user", "Name a prime number."),)
    >>> group = RankedGroup("a", prompt, ("2, the only even one.", "2", "4"), strength=4)
    >>> group.edited, group.chosen, group.rejected
    ('2, the only even one.', '2', '4')
    >>> [(pair.winner, pair.loser, pair.strength) for pair in group.pairs()]
    [(0, 1, None), (0, 2, None), (1, 2, 4)]
    """

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    strength: int | None = None
    margin: float | None = None
    cluster_id: str = ""
    domain: str | None = None

    def __post_init__(self) -> None:
        # object.__setattr__ below: frozen dataclasses allow no other way to fill in a default.
        check_text(self.id, "id")
        check_prompt(self.prompt)
        _check_responses(self.responses)
        if self.strength is not None and (
            type(self.strength) is not int or self.strength not in STRENGTHS
        ):
            meanings = ", ".join(f"{number} {words}" for number, words in STRENGTHS.items())
            raise BadRecord(
                f"{show_value(self.strength)} is not one of 1, 2, 3, 4",
                "strength",
                f"use {meanings}, or null if unknown",
            )
        if self.margin is not None:
            # An integer would give the same group another fingerprint than the equal float.
            object.__setattr__(self, "margin", _check_margin(self.margin))
        if self.cluster_id == "":
            turns = [[message.role, message.content] for message in self.prompt]
            object.__setattr__(
                self, "cluster_id", hashlib.sha256(_canonical(turns)).hexdigest()[:16]
            )
        check_text(self.cluster_id, "group")
        if self.domain is not None:
            check_text(self.domain, "domain")

    @property
    def has_edit(self) -> bool:
        """Whether the best response is an edited one."""
        return len(self.responses) == 3

    @property
    def names(self) -> tuple[str, ...]:
        """What each response is called: ``edited`` where there is one, ``chosen``, ``rejected``."""
        return RESPONSES[-len(self.responses) :]

    @property
    def edited(self) -> str | None:
        """The edited response, or None if there is none."""
        return self.responses[0] if self.has_edit else None

    @property
    def chosen(self) -> str:
        """The response that the annotator preferred."""
        return self.responses[-2]

    @property
    def rejected(self) -> str:
        """The response that the annotator did not prefer."""
        return self.responses[-1]

    def pairs(self) -> tuple[Pair, ...]:
        """All pairs of responses, in rank order: one of two responses, three of three."""
        # Only chosen > rejected: annotators did not rate pairs with an edited response.
        rated = (len(self.responses) - 2, len(self.responses) - 1)
        return tuple(
            Pair(winner, loser, self.strength, self.margin)
            if (winner, loser) == rated
            else Pair(winner, loser)
            for winner, loser in itertools.combinations(range(len(self.responses)), 2)
        )


def to_record(group: RankedGroup, *, as_messages: bool = False) -> dict[str, Any]:
    """Write a group as a plain dictionary in TRL's preference format, all `COLUMNS` present.

    A prompt that is one user message becomes a string, and so do its responses. Any other prompt,
    every one with `as_messages`, and one of which a text would be read otherwise (a transcript, a
    list spelled out) becomes a list of chat messages, and each response a list with one assistant
    message, because TRL does not accept the two forms mixed in one record.
    """
    plain = len(group.prompt) == 1 and not as_messages
    return _record(group, plain and stands_as_it_is(group.prompt[0].content, group.responses))


def _record(group: RankedGroup, plain: bool) -> dict[str, Any]:
    def response(text: str | None) -> Any:
        if plain or text is None:
            return text
        return [{"role": "assistant", "content": text}]

    messages = [{"role": message.role, "content": message.content} for message in group.prompt]
    return {
        "id": group.id,
        "prompt": group.prompt[0].content if plain else messages,
        "chosen": response(group.chosen),
        "rejected": response(group.rejected),
        "edited": response(group.edited),
        "strength": group.strength,
        "margin": group.margin,
        "group": group.cluster_id,
        "domain": group.domain,
    }


def from_record(
    record: Mapping[str, Any],
    *,
    where: str,
    default_id: str | None = None,
    notes: Notes | None = None,
) -> RankedGroup:
    """Read a group from a dictionary in TRL's preference format.

    What else a record may be, a list of responses, :func:`.ratings.read_record` reads.

    With a `prompt`, `chosen`, `rejected` and `edited` are responses: strings, or lists with one
    assistant message, alone or after the prompt's turns. Without one they are whole conversations,
    split at the last assistant turn: lists of chat messages, or transcripts of `Human:` and
    `Assistant:` turns. A string `prompt` that merely repeats a user turn of such a list is treated
    as absent, as TRL does; one that is a transcript is read as its turns. A string that spells out
    a list of messages, in JSON or as Python shows it, is read as that list. Optional columns may be
    absent or None. A record without an id gets `default_id`, or else `where`.

    Columns and message fields that are not used, and what was read otherwise than it stands, are
    counted in `notes`.

    Raises:
        BadRecord: The record breaks a rule; the message names the place and the field.

    >>> record = {"prompt": "Why is the sky blue?", "chosen": "Air scatters it.", "rejected": "No."}
    >>> group = from_record(record | {"strength": 3}, where="mine.jsonl, line 17")
    >>> group.prompt, group.responses
    ((Message(role='user', content='Why is the sky blue?'),), ('Air scatters it.', 'No.'))
    >>> try:
    ...     from_record(record | {"rejected": None}, where="mine.jsonl, line 17")
    ... except BadRecord as error:
    ...     print(error)
    mine.jsonl, line 17, field 'rejected': it is missing; remedy: add it, or remove the record
    """
    try:
        if not isinstance(record, Mapping):
            raise BadRecord(
                f"a record must be an object with named fields, not {name_kind(record)}",
                remedy='write one object such as {"prompt": …, "chosen": …} per line',
            )
        notes = Notes() if notes is None else notes
        # Counted also of a record that is refused.
        for column in record:
            if column not in COLUMNS:
                notes.columns[printable(str(column))] += 1
        row = Notes()
        prompt, responses = read_prompt_and_responses(record, row)
        name = record.get("id")
        group = RankedGroup(
            id=(default_id or where) if name is None else as_name(name),
            prompt=prompt,
            responses=responses,
            strength=as_whole_number(record.get("strength")),
            margin=record.get("margin"),
            cluster_id=as_group(record.get("group")),
            domain=record.get("domain"),
        )
        notes.add_row(row)
        return group
    except BadRecord as error:
        error.where = where
        raise


def fingerprint(groups: Iterable[RankedGroup]) -> str:
    """16 hexadecimal digits of the SHA-256 of groups in their order, as canonical JSON lines."""
    digest = hashlib.sha256()
    for group in groups:
        digest.update(_canonical(_record(group, len(group.prompt) == 1)) + b"\n")
    return digest.hexdigest()[:16]


def _check_responses(responses: tuple[str, ...]) -> None:
    if not isinstance(responses, tuple) or len(responses) not in (2, 3):
        raise BadRecord(
            f"{show_value(responses)} is not a tuple of two or three texts",
            "responses",
            "give (chosen, rejected) or (edited, chosen, rejected)",
        )
    seen: dict[str, str] = {}
    for name, response in zip(reversed(RESPONSES), reversed(responses), strict=False):
        stripped = check_text(response, name).strip()
        if stripped in seen:
            raise BadRecord(
                f"it is the same text as '{seen[stripped]}'",
                name,
                "remove the record" if name == "chosen" else "set 'edited' to null",
            )
        seen[stripped] = name


def as_name(value: Any) -> Any:
    """Turn a numbered id or group into text; anything else is left for the checks to judge."""
    return str(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def as_group(value: Any) -> Any:
    """A record's group as text; empty where it has none."""
    if value is None:
        return ""
    # An empty group in a file is a mistake, not a request for the default.
    return check_text(as_name(value), "group")


def as_whole_number(value: Any) -> Any:
    """Turn 3.0 into 3: tables with missing values store whole numbers as floats."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    is_float = isinstance(value, Real) and not isinstance(value, Integral)
    return int(value) if is_float and float(value).is_integer() else value


def _check_margin(value: Any) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        if is_number and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # a whole number beyond the range of floats
    raise BadRecord(
        f"{show_value(value)} is not a finite number",
        "margin",
        "use a finite number, or null for none",
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

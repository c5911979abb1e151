"""Chat messages and the rules that all of them keep; what breaks one is a :class:`BadRecord`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.data.notes import Notes
from posttrain.errors import UserError

ROLES = ("system", "user", "assistant")
JOINED = "content in several parts of text: joined"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; its role is `system`, `user` or `assistant`."""

    role: str
    content: str


class BadRecord(UserError):  # noqa: N818 - it names the thing found, as its messages do
    """A record that breaks the data contract.

    Attributes:
        problem: What is wrong.
        field: The field at fault, such as `strength` or `prompt[1].content`, or None.
        remedy: What the owner of the data can do.
        where: The place as the message shows it, such as `data.jsonl, line 17`.
        path: The file, or None outside one.
        line: Line (or Parquet row) number from 1, or None.
    """

    def __init__(
        self,
        problem: str,
        field: str | None = None,
        remedy: str = "",
        where: str = "",
        path: Path | None = None,
        line: int | None = None,
    ) -> None:
        # All arguments go to the base class so that the error survives pickling between workers.
        super().__init__(problem, field, remedy, where, path, line)
        self.problem, self.field, self.remedy = problem, field, remedy
        self.where, self.path, self.line = where, path, line

    def __str__(self) -> str:
        place = ", ".join(filter(None, [self.where, self.field and f"field '{self.field}'"]))
        message = f"{place}: {self.problem}" if place else self.problem
        return f"{message}; remedy: {self.remedy}" if self.remedy else message


def read_messages(value: Sequence[Any], field: str, notes: Notes) -> tuple[Message, ...]:
    """Read a list of chat messages; fields beside role and content are noted."""
    if not value:
        raise BadRecord("the list of chat messages is empty", field, "give at least one message")
    messages = []
    for index, item in enumerate(value):
        place = f"{field}[{index}]"
        if not isinstance(item, Mapping):
            raise BadRecord(
                f"a chat message must be an object, not {name_kind(item)}",
                place,
                'write {"role": …, "content": …}',
            )
        unused = unused_fields(item)
        notes.fields.update(map(printable, unused))
        content = _read_content(item.get("content"), f"{place}.content", notes)
        blank = isinstance(content, str) and not content.strip()
        if unused and item.get("role") in ROLES and (content is None or blank):
            raise BadRecord(
                f"it is {'empty' if blank else 'missing'}, and "
                f"{', '.join(map(printable, unused))} beside it is not used",
                f"{place}.content",
                "write what it says as text into content, or remove the record",
            )
        messages.append(Message(item.get("role"), content))  # type: ignore[arg-type]
        check_message(messages[-1], field, index)
    return tuple(messages)


def _read_content(value: Any, field: str, notes: Notes) -> Any:
    """Content of a message; parts, as multimodal files have them, are joined if all are text."""
    if not isinstance(value, list | tuple):
        return value
    texts = []
    for index, part in enumerate(value):
        place = f"{field}[{index}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            what = "without one" if kind is None else f"{show_value(kind)}"
            raise BadRecord(
                f"a part of a message must be of type 'text', not {what}",
                place,
                'write {"type": "text", "text": …} or plain text, or remove the record',
            )
        texts.append(check_text(part.get("text"), f"{place}.text"))
        others = {name: part[name] for name in part if name not in ("type", "text")}
        notes.fields.update(printable(f"content.{name}") for name in unused_fields(others))
    if len(texts) > 1:
        notes.readings[JOINED] += 1
    # As chat templates write parts of text: one after the other.
    return "".join(texts)


def unused_fields(message: Any) -> dict[str, Any]:
    """Fields of a message that hold something and are not used."""
    if not isinstance(message, Mapping):
        return {}
    others = {name: message[name] for name in message if name not in ("role", "content")}
    # Tables give every message all fields, empty where it has none.
    return {name: value for name, value in others.items() if value not in (None, "", [], {})}


def check_message(message: Message, field: str, index: int) -> None:
    """Refuse a message that breaks a rule where it stands, naming its place."""
    place = f"{field}[{index}]"
    if message.role not in ROLES:
        missing = message.role is None
        raise BadRecord(
            "it is missing" if missing else f"{show_value(message.role)} is not a known role",
            f"{place}.role",
            f"use one of {', '.join(ROLES)}",
        )
    if message.role == "system" and index > 0:
        raise BadRecord(
            "a system message may only come first", f"{place}.role", "move it to the start"
        )
    check_text(message.content, f"{place}.content")


def check_prompt(prompt: tuple[Message, ...], field: str = "prompt") -> None:
    """Refuse a prompt that is not well-formed or does not end with a user turn, naming the turn."""
    if not isinstance(prompt, tuple) or not prompt:
        raise BadRecord(
            f"{show_value(prompt)} is not a tuple of messages", field, "give Message turns"
        )
    for index, message in enumerate(prompt):
        check_message(message, field, index)
    if prompt[-1].role != "user":
        raise BadRecord(
            f"the prompt must end with a user turn, not {prompt[-1].role}",
            f"{field}[{len(prompt) - 1}].role",
            "remove the turns after the last user turn",
        )


def check_text(value: Any, field: str) -> str:
    """Return a text; refuse what is missing, not text, blank, or has no UTF-8 form."""
    if value is None:
        raise BadRecord("it is missing", field, "add it, or remove the record")
    if not isinstance(value, str):
        raise BadRecord(f"it must be text, not {name_kind(value)}", field, "write it as a string")
    if not value.strip():
        raise BadRecord("it is empty", field, "fill it in, or remove the record")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(
            f"character {error.start + 1} is half of a surrogate pair, which UTF-8 cannot hold",
            field,
            "repair or remove the character",
        ) from None
    return value


def name_kind(value: Any) -> str:
    """Name the type of a value in the words of the data, not of Python."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value", int: "a number"}
    kinds |= {float: "a number", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def show_value(value: Any) -> str:
    """Show a value in at most 60 printable characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def printable(name: str) -> str:
    """Escape a name from a file if it is empty or a terminal could not show it on one line."""
    return name if name and name.isprintable() else ascii(name)

"""Conversations: chat messages, and the shapes in which preference data writes them.

A prompt and its responses come as texts, as lists of chat messages, or as whole conversations that
end with the response. Each becomes the same messages here, or a :class:`BadRecord`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import UserError

ROLES = ("system", "user", "assistant")
# A turn starts after an empty line, or where the text starts (some copies are stripped).
MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def read_prompt_and_responses(
    record: Mapping[str, Any],
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Prompt and responses, best first; :func:`.data.preferences.from_record` gives the shapes."""
    names = ["chosen", "rejected"]
    if record.get("edited") is not None:
        names.insert(0, "edited")
    prompt = record.get("prompt")
    if prompt is not None and not _repeats_a_turn(prompt, record.get("chosen")):
        if isinstance(prompt, list | tuple):
            messages = _read_messages(prompt, "prompt")
        else:
            messages = (Message("user", check_text(prompt, "prompt")),)
        return messages, tuple(_read_response(record.get(name), name) for name in names)

    shared, chosen = _read_conversation(record.get("chosen"), "chosen")
    responses = {"chosen": chosen}
    for name in names:
        value = record.get(name)
        if name == "edited" and _is_only_a_response(value):
            responses[name] = _read_response(value, name)
        elif name != "chosen":
            before, responses[name] = _read_conversation(value, name)
            if before != shared:
                raise BadRecord(
                    "its turns before the last assistant turn differ from those of 'chosen'",
                    name,
                    "make the earlier turns identical, or give the prompt in a field 'prompt'",
                )
    return shared, tuple(responses[name] for name in names)


def _is_only_a_response(edited: Any) -> bool:
    """Whether an edit stands alone, as editors often store it, without the turns before it."""
    if isinstance(edited, list | tuple):
        return len(edited) == 1
    return isinstance(edited, str) and not MARKER.match(edited)


def _repeats_a_turn(prompt: Any, chosen: Any) -> bool:
    """Whether a string prompt stands in the conversation too, as in UltraFeedback's files."""
    if not (isinstance(prompt, str) and isinstance(chosen, list | tuple) and len(chosen) > 1):
        return False
    turns = [turn for turn in chosen if isinstance(turn, Mapping)]
    return any(turn.get("role") == "user" and turn.get("content") == prompt for turn in turns)


def _read_response(value: Any, field: str) -> str:
    if not isinstance(value, list | tuple):
        return check_text(value, field)
    messages = _read_messages(value, field)
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages)
        raise BadRecord(
            f"beside a prompt it must be one assistant message, not {roles}",
            field,
            "keep only the response, or remove 'prompt' if this is the whole conversation",
        )
    return messages[0].content


def _read_conversation(value: Any, field: str) -> tuple[tuple[Message, ...], str]:
    """Split a whole conversation at its last assistant turn."""
    if isinstance(value, list | tuple):
        turns = _read_messages(value, field)
    else:
        turns = _read_transcript(check_text(value, field), field)
    if turns[-1].role != "assistant":
        raise BadRecord(
            f"without a prompt it must end with an assistant turn, not {turns[-1].role}",
            field,
            "add the response as the last assistant turn, or give a field 'prompt'",
        )
    if len(turns) == 1:
        raise BadRecord(
            "there is no prompt, neither in 'prompt' nor before the assistant turn",
            field,
            "give a field 'prompt', or put the user's turn before the assistant's",
        )
    check_prompt(turns[:-1], field)
    return turns[:-1], turns[-1].content


def _read_transcript(text: str, field: str) -> tuple[Message, ...]:
    """Read turns in the style of Anthropic's hh-rlhf files."""
    before, *rest = MARKER.split(text)
    if not rest or before.strip():
        raise BadRecord(
            "without a prompt a text must start with '\\n\\nHuman:' and mark its turns with "
            "'\\n\\nHuman:' and '\\n\\nAssistant:'",
            field,
            "give a field 'prompt', or use a list of chat messages",
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    return _read_messages(
        [
            {"role": roles[marker], "content": content.strip()}
            for marker, content in zip(rest[::2], rest[1::2], strict=True)
        ],
        field,
    )


def _read_messages(value: Sequence[Any], field: str) -> tuple[Message, ...]:
    if not value:
        raise BadRecord("the list of chat messages is empty", field, "give at least one message")
    messages = []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise BadRecord(
                f"a chat message must be an object, not {name_kind(item)}",
                f"{field}[{index}]",
                'write {"role": …, "content": …}',
            )
        messages.append(Message(item.get("role"), item.get("content")))  # type: ignore[arg-type]
        _check_message(messages[-1], field, index)
    return tuple(messages)


def _check_message(message: Message, field: str, index: int) -> None:
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
        _check_message(message, field, index)
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


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; its role is `system`, `user` or `assistant`."""

    role: str
    content: str

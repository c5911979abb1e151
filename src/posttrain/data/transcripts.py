r"""Transcripts: conversations as one text with `Human:` and `Assistant:` turns, as in hh-rlhf.

Turns are pairs of role and content here, without outer white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A turn starts after an empty line, or where the text starts (some copies are stripped).
MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
# Other files have a turn a line; where both could be meant, the empty line wins.
LINE_MARKER = re.compile(r"(?:\A\s*|\n[ \t]*)(Human|Assistant):")
START = re.compile(r"\s*Human:")
ROLES = {"Human": "user", "Assistant": "assistant"}

Turns = list[tuple[str, str]]


def turns(text: str, marker: re.Pattern[str] = MARKER) -> Turns | None:
    """The turns of a text, or None if it does not start with one."""
    before, *rest = marker.split(text)
    if not rest or before.strip():
        return None
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [(ROLES[name], content.strip()) for name, content in pairs]


def starts_like_one(text: str) -> bool:
    """Whether a text starts with a person's turn."""
    return START.match(text) is not None


def prompt_turns(text: str) -> Turns | None:
    r"""The turns of a prompt that is a transcript up to a person's turn, otherwise None.

    An empty `Assistant:` at the end, where the response goes, is no turn. A single `Human:` tells a
    transcript from a text that happens to start so only where an empty line stands before it.

    >>> prompt_turns("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2 + 2?\n\nAssistant:")
    [('user', 'Hi'), ('assistant', 'Hello'), ('user', '2 + 2?')]
    >>> prompt_turns("Human: Hi\n\nAssistant: Hel"), prompt_turns("Human: a history in ten maps")
    (None, None)
    """
    if not starts_like_one(text):
        return None
    readings = [turns(text, marker) or [] for marker in (MARKER, LINE_MARKER)]
    for found in readings:
        marked = len(found) > 1
        if marked and found[-1] == ("assistant", ""):
            found.pop()
        if marked and found[-1][0] == "user" and all(content for _, content in found):
            return found
    single = all(len(found) == 1 and found[0][1] for found in readings)
    return readings[0] if single and text.startswith(("\n\n", "\r\n\r\n")) else None


def after_prompt(text: str, prompt: Iterable[tuple[str, str]]) -> str | None:
    r"""What follows in a transcript that begins with a whole prompt and `Assistant:`, or None.

    >>> after_prompt("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye", [("user", "Hi")])
    'Hello\n\nHuman: Bye'
    """
    if not starts_like_one(text):
        return None
    # White space around turns may differ; a response may go on after its own turn.
    before = [(role, content.strip()) for role, content in prompt]
    for marker in (MARKER, LINE_MARKER):
        found = turns(text, marker) or []
        roles = [role for role, _ in found[len(before) :]]
        if found[: len(before)] == before and roles[:1] == ["assistant"]:
            return text[list(marker.finditer(text))[len(before)].end() :].strip()
    return None

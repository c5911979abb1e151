r"""Transcripts: conversations as one text with `Human:` and `Assistant:` turns, as in hh-rlhf.

Turns are pairs of role and content here, without outer white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import punctuation

# A turn starts after an empty line, or where the text starts (some copies are stripped).
MARKER = re.compile(r"(?:\A\s*|\n\r?\n)(Human|Assistant):")
# Other files have a turn a line; where both could be meant, the empty line wins.
LINE_MARKER = re.compile(r"(?:\A\s*|\n[ \t]*)(Human|Assistant):")
START = re.compile(r"\s*Human:")
ANSWER = re.compile(r"\s*Assistant:")
ROLES = {"Human": "user", "Assistant": "assistant"}

# What only looks like a turn, for it may be anything, is pointed out and never read: the labels
# that people and models have in whatever dress, and the tokens of chat formats.
_PERSON = "human|user|prompter"
_MODEL = "assistant|ai|bot|chatbot|gpt|chatgpt"
_ASKS = {*_PERSON.split("|"), "customer", "prompt", "instruction", "q", "question"}
_LABELS = {*_ASKS, *_MODEL.split("|"), "agent", "system", "model", "response", "a", "answer"}
_CAPITAL = {"USER", "User", "HUMAN", "Human", "ASSISTANT", "Assistant", "AI"}
_LONGEST = 40  # characters of a label with what stands around it
_TOKEN = re.compile(
    r"<[|｜][^\W\d][\w▁]*[|｜]>|\[INST\]|<start_of_turn>|##+ ?(?i:user|human|assistant)[ \t]*[\r\n]"
)
_LABELLED = re.compile(rf"\s*(?:[^\w\s]*\s?(?i:{_PERSON}|{_MODEL})[^\w\r\n:]*:|{_TOKEN.pattern})")

Turns = list[tuple[str, str]]


def turns(text: str, marker: re.Pattern[str] = MARKER) -> Turns | None:
    """The turns of a text, or None if it does not start with one."""
    before, *rest = marker.split(text)
    if not rest or before.strip():
        return None
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [(ROLES[name], content.strip()) for name, content in pairs]


def looks_like_one(text: str) -> bool:
    r"""Whether a text looks like a conversation, whatever its turns are called.

    >>> looks_like_one("USER: Hi ASSISTANT:"), looks_like_one("### Human: Hi")
    (True, True)
    >>> looks_like_one("Why, Human: or not?")
    False
    """
    # Single characters, which cost nothing to look for.
    if ("<" in text or "[" in text or "#" in text) and _TOKEN.search(text):
        return True
    # From colon to colon, as most texts have few of them.
    labels, end = set(), text.find(":")
    while end >= 0:
        words = text[max(0, end - _LONGEST) : end].split()
        word = words[-1].strip(punctuation) if words else ""
        if word.lower() in _LABELS:
            before = text[:end].rpartition(word)[0]
            # At the start of a line, or, as in "USER: Hi ASSISTANT:", after a space.
            line = before[max(before.rfind("\n"), before.rfind("\r")) + 1 :]
            if not line.strip(punctuation + " \t") or (word in _CAPITAL and before[-1].isspace()):
                labels.add(word.lower())
        end = text.find(":", end + 1)
    if not labels:
        return False
    return bool(labels & _ASKS) and (len(labels) > 1 or starts_with_a_label(text))


def starts_with_a_label(text: str) -> bool:
    """Whether a text starts with the label of a turn, or with a token of a chat format."""
    return _LABELLED.match(text) is not None


def prompt_turns(text: str) -> Turns | None:
    r"""The turns of a prompt that is a transcript up to a person's turn, otherwise None.

    An empty `Assistant:` at the end, where the response goes, is no turn. A single `Human:` tells a
    transcript from a text that happens to start so only where an empty line stands before it.

    >>> prompt_turns("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2 + 2?\n\nAssistant:")
    [('user', 'Hi'), ('assistant', 'Hello'), ('user', '2 + 2?')]
    >>> prompt_turns("Human: Hi\n\nAssistant: Hel"), prompt_turns("Human: a history in ten maps")
    (None, None)
    """
    if not START.match(text):
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
    if not START.match(text):
        return None
    # White space may differ, transcripts have no system turn, and a response may go on after its
    # own turn.
    before = _collapsed(turn for turn in prompt if turn[0] != "system")
    for marker in (MARKER, LINE_MARKER):
        found = _collapsed(turns(text, marker) or [])
        roles = [role for role, _ in found[len(before) :]]
        if found[: len(before)] == before and roles[:1] == ["assistant"]:
            return text[list(marker.finditer(text))[len(before)].end() :].strip()
    return None


def _collapsed(found: Iterable[tuple[str, str]]) -> Turns:
    return [(role, " ".join(content.split())) for role, content in found]

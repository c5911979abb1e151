"""Chat messages written as text: as JSON, or as Python or numpy show them.

So pandas and the hub write lists of messages into the cells of a table, and copies of such tables
carry the texts on into other formats.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Mapping
from typing import Any

# ShareGPT's names are refused as lists are, and must not pass as text.
NAMES = (("role", "content"), ("from", "value"))
_BRACKET = re.compile(r"\s*[\[{(\"']")
# From where a text must be messages, or be refused; a text about something else does not start so.
_START = re.compile(r"\s*\[\s*\{\s*(['\"])(?:role|content)\1\s*:")
# What only looks like messages: brackets, perhaps after a name, as in array([…]), and field names.
_LOOK = re.compile(r"\s*['\"]?[\w.]*+\s*[\[{(]")
_FIELDS = [[re.compile(rf"['\"]{name}\\*['\"]\s*[:,]") for name in names] for names in NAMES]


class BrokenMessagesError(ValueError):
    """A text starts as a list of messages does and cannot be read as one."""


def messages_in(text: str) -> Any:
    """The messages (a list of mappings, or a single mapping) that a text spells out, or None.

    Only a text that spells out messages to its end counts, others stay what they are: brackets and
    braces also begin an answer that is code.

    Raises:
        BrokenMessagesError: It starts with a message's role or content, and cannot be read.

    >>> messages_in("[{'role': 'user', 'content': 'Why?'}]")
    [{'role': 'user', 'content': 'Why?'}]
    >>> messages_in("[1] says so") is messages_in('{"answer": 4}') is None
    True
    """
    # Most texts end here: parsing is for the few that may be messages.
    if not _BRACKET.match(text) or not _names_fields(text):
        return None
    for parse in (_json, _python, _numpy):
        try:
            value = parse(text)
        # Literals may be too deep, too large, or hold what no set or key can be.
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, str):  # encoded twice
            return messages_in(value)
        if isinstance(value, tuple):
            value = list(value)
        if _are_messages(value):
            return value
    if _START.match(text):
        raise BrokenMessagesError
    return None


def looks_like_messages(text: str) -> bool:
    """Whether a text looks like messages written out, though in no form that is read as them.

    >>> looks_like_messages("array([{'role': 'user', 'content': 'Why?'}], dtype=object)")
    True
    """
    if not _LOOK.match(text) or not _names_fields(text):
        return False
    return any(all(name.search(text) for name in names) for names in _FIELDS)


def _names_fields(text: str) -> bool:
    # Not a loop over NAMES, which takes longer.
    return ("content" in text and "role" in text) or ("value" in text and "from" in text)


def _are_messages(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(role in value and content in value for role, content in NAMES)
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(item: Any) -> bool:
    return isinstance(item, Mapping) and ("role" in item or {"from", "value"} <= item.keys())


def _json(text: str) -> Any:
    return json.loads(text)


def _python(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes that Python's own texts never hold
        return ast.literal_eval(text.strip())


def _numpy(text: str) -> Any:
    """Numpy leaves out the commas between the elements of an array."""
    tokens: list[tuple[int, str]] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
            # Python's own tokens, so a brace inside a text is never taken for one of these.
            if token.string == "{" and tokens and tokens[-1] == (tokenize.OP, "}"):
                tokens.append((tokenize.OP, ","))
            if token.type not in (tokenize.NL, tokenize.NEWLINE):
                tokens.append((token.type, token.string))
    except tokenize.TokenError as error:
        raise ValueError from error
    return _python(tokenize.untokenize(tokens))

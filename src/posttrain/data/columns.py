"""Columns by a file's own names: which of them is which of ours (``--columns``)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from posttrain.data.messages import BadRecord, printable
from posttrain.data.preferences import COLUMNS
from posttrain.data.ratings import LIST_COLUMNS
from posttrain.errors import UserError

#: Columns that hold a single response, or a conversation that ends with it.
SHOWN = ("response", "completion", "messages")
#: All columns that something here reads.
KNOWN = (*COLUMNS, *LIST_COLUMNS, *SHOWN, "finished")


def parse_columns(text: str | None) -> dict[str, str]:
    """A file's names by ours, from ``prompt=question,chosen=good,rejected=bad``.

    Raises:
        UserError: If it is no such list, or a name is unknown or given twice.

    >>> parse_columns("prompt=question, response=answer")
    {'prompt': 'question', 'response': 'answer'}
    """
    if text is None:
        return {}
    parts = [part.partition("=") for part in text.split(",")]
    named = [(ours.strip(), theirs.strip()) for ours, _, theirs in parts]
    if not all(ours and theirs for ours, theirs in named):
        raise UserError(
            f"columns {text!r}: write OURS=THEIRS with commas between, such as "
            "prompt=question,response=answer"
        )
    for ours, _ in named:
        if ours not in KNOWN:
            raise UserError(
                f"columns {text!r}: nothing here reads a column {ours!r}; put one of these on the "
                f"left: {', '.join(KNOWN)}"
            )
    for side, names in zip(("left", "right"), zip(*named, strict=True), strict=True):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise UserError(
                f"columns {text!r}: {twice[0]} stands on the {side} twice; keep one of the two"
            )
    return dict(named)


def renamed(record: Any, columns: Mapping[str, str]) -> Any:
    """A record by our names, in its order; what is no record stays as it is.

    Raises:
        BadRecord: If it has one of our names beside the column that is to be read in its place.
    """
    if not columns or not isinstance(record, Mapping):
        return record
    if hides := hidden(record, columns):
        raise BadRecord(f"the record has a column of this name beside {hides[0]}", *hides[1:])
    return dict(zip(our_names(record, columns), record.values(), strict=True))


def our_names(names: Iterable[str], columns: Mapping[str, str]) -> list[str]:
    """Names of columns, those that are mapped by ours."""
    ours = {theirs: name for name, theirs in columns.items()}
    return [ours.get(name, name) for name in names]


def hidden(names: Collection[str], columns: Mapping[str, str]) -> tuple[str, str, str] | None:
    """The mapping that would hide a column: in words, the column, and a remedy."""
    for ours, theirs in columns.items():
        # One that is read under another name is not hidden.
        if ours in names and ours not in columns.values() and theirs != ours:
            return (
                f"{printable(theirs)}, which columns read in its place",
                ours,
                f"leave {ours}={theirs} out of --columns, or rename one of the two",
            )
    return None


def missing(names: Collection[str], columns: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong where a mapped column is not among some, and a remedy."""
    for ours, theirs in columns.items():
        if theirs not in names:
            return (
                f"no column {printable(theirs)}, which columns read as {ours}",
                f"correct --columns {ours}=…; the file has {', '.join(map(printable, names))}",
            )
    return None


def explain(error: BadRecord, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Let an error about a record by our names speak of the file's.

    >>> error = BadRecord("it is empty", "prompt[0].content")
    >>> explain(error, {"prompt": [{"content": ""}]}, {"prompt": "question"})
    >>> print(error)
    field 'question[0].content': it is empty
    """
    ours = re.split(r"[.\[]", error.field or "")[0]
    if ours in columns:
        error.field = columns[ours] + str(error.field)[len(ours) :]
    lacks = [theirs for ours, theirs in columns.items() if ours not in record]
    if lacks:
        has = ", ".join(printable(columns.get(name, name)) for name in record)
        lacking = ", ".join(map(printable, lacks))
        error.remedy += f" (of --columns the record lacks {lacking}; it has {has})"

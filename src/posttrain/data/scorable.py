"""Responses that are to be scored: those of preferences, of lists, and single ones.

Records of a file are read as what they hold:

- ``chosen`` and ``rejected``, and ``edited`` where there is one;
- ``responses``, or a list of UltraFeedback or Nectar, with or without scores or ranks, which are
  not used: each response, in its order;
- ``prompt`` and ``response``, or ``prompt`` and ``completion`` (a text or chat messages);
- ``messages``, a conversation whose last turn, the assistant's, is the response.

Other sources give ranked groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.data.columns import SHOWN
from posttrain.data.demonstrations import read_finished, read_shown
from posttrain.data.messages import BadRecord, Message, check_prompt, check_text, name_kind
from posttrain.data.notes import Notes
from posttrain.data.preferences import RESPONSES, RankedGroup, as_name
from posttrain.data.ratings import LISTS, list_column, read_record, read_unrated
from posttrain.data.sources import named


@dataclass(frozen=True)
class Candidates:
    """Any number of responses to a prompt, which need not be ranked, or different.

    Attributes:
        names: What each response is called: the field that holds it, such as ``responses[2]``.
        domain: Such as `helpfulness` or `safety`; None if unknown.
        finished: Whether its writer ended each response; empty where nobody says.
    """

    id: str
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    names: tuple[str, ...] = ()
    domain: str | None = None
    finished: tuple[bool, ...] = ()


def iterate_candidates(
    source: str,
    *,
    counts: Counter[str] | None = None,
    skip_bad: bool = False,
    notes: Notes | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Candidates]:
    r"""Responses of a source, record after record (see :func:`.named.iterate`).

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.jsonl"
    ...     _ = path.write_text('{"prompt": "2 + 2?", "responses": ["4", "5"]}\n')
    ...     (found,) = iterate_candidates(str(path))
    >>> found.id, found.responses, found.names
    ('mine-1', ('4', '5'), ('responses[0]', 'responses[1]'))
    """
    for found in named.iterate_by(
        read_candidates,
        source,
        others=SHOWN,
        counts=counts,
        skip_bad=skip_bad,
        notes=notes,
        columns=columns,
    ):
        yield found if isinstance(found, Candidates) else _of(found)


def read_candidates(
    record: Any, *, where: str, default_id: str | None = None, notes: Notes | None = None
) -> list[Candidates]:
    """The one item that a record gives.

    Raises:
        BadRecord: If it has no response, or several kinds of them, or breaks another rule; the
            message names the place and the field.
    """
    notes = Notes() if notes is None else notes
    try:
        return [_read(record, where, default_id, notes)]
    except BadRecord as error:
        error.where = where
        raise


def _read(record: Any, where: str, default_id: str | None, notes: Notes) -> Candidates:
    if not isinstance(record, Mapping):
        raise BadRecord(
            f"a record must be an object with named fields, not {name_kind(record)}",
            remedy='write one object such as {"prompt": …, "response": …} per line',
        )
    column = list_column(record)
    if column is None and any(record.get(name) is not None for name in RESPONSES):
        (group,) = read_record(record, where=where, default_id=default_id, notes=notes)
        return _of(group)
    given = [name for name in (*LISTS, *SHOWN) if record.get(name) is not None]
    if len(given) > 1:
        raise BadRecord(f"the record also has '{given[0]}'", given[1], "keep one of the two")
    if not given:
        raise BadRecord(
            "there is nothing to score, neither here nor in 'responses' or 'chosen' and 'rejected'",
            "response",
            "add the response beside 'prompt', or give a conversation as 'messages', or remove the "
            "record",
        )
    finished: tuple[bool, ...] = ()
    if column is None:
        prompt, text = read_shown(record, given[0], notes)
        responses = {given[0]: text}
    else:
        row = Notes()
        prompt, responses = read_unrated(record, column, row)
        notes.add_row(row)
        check_prompt(prompt)
        if record.get("finished") is not None:
            finished = tuple(read_finished(record["finished"], len(responses)))
    name, domain = record.get("id"), record.get("domain")
    return Candidates(
        id=check_text((default_id or where) if name is None else as_name(name), "id"),
        prompt=prompt,
        responses=tuple(responses.values()),
        names=tuple(responses),
        domain=None if domain is None else check_text(domain, "domain"),
        finished=finished,
    )


def _of(group: RankedGroup) -> Candidates:
    return Candidates(group.id, group.prompt, group.responses, group.names, group.domain)

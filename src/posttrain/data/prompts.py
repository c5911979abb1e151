"""Prompts alone: those of any source of preferences, or of files that hold nothing else."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.data.conversations import read_prompt
from posttrain.data.messages import BadRecord, Message, check_text, name_kind, printable
from posttrain.data.notes import Notes
from posttrain.data.preferences import COLUMNS, RESPONSES, as_name, from_record
from posttrain.data.ratings import LISTS, RATINGS, SAMPLED, read_list
from posttrain.data.reading import scan_rows
from posttrain.data.sources import named

#: Columns that a file needs one of, where it names its columns once.
OTHERS = ("prompt",)
_KNOWN = {*COLUMNS, *LISTS, *SAMPLED}


@dataclass(frozen=True)
class Prompt:
    """A prompt, with the name and the domain of the record that it stands in."""

    id: str
    messages: tuple[Message, ...]
    domain: str | None = None


def iterate_prompts(
    source: str,
    *,
    counts: Counter[str] | None = None,
    skip_bad: bool = False,
    notes: Notes | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Prompt]:
    r"""Prompts of a source (see :func:`.named.iterate`), as often as they come.

    Records of a file may hold preferences, or a `prompt` alone; what else they hold is then noted.

    Raises:
        UserError: If a source is unknown or unreadable, or, unless `skip_bad`, a record is bad.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.jsonl"
    ...     _ = path.write_text('{"prompt": "2 + 2?"}\n')
    ...     [(one.id, one.messages[0].content) for one in iterate_prompts(str(path))]
    [('mine-1', '2 + 2?')]
    """
    counts = Counter() if counts is None else counts
    notes = Notes() if notes is None else notes
    if not named.is_file(source):
        for group in named.iterate(
            source, counts=counts, skip_bad=skip_bad, notes=notes, columns=columns
        ):
            yield Prompt(group.id, group.prompt, group.domain)
        return
    noted = notes

    def read(record: Any, where: str, default_id: str) -> Prompt:
        return _read(record, where, default_id, noted)

    for item in scan_rows(Path(source), notes, read, others=OTHERS, columns=columns):
        if not isinstance(item, BadRecord):
            yield item
        elif skip_bad:
            counts["bad records"] += 1
        else:
            raise item


def _read(record: Any, where: str, default_id: str, notes: Notes) -> Prompt:
    if not isinstance(record, Mapping):
        raise BadRecord(
            f"a record must be an object with named fields, not {name_kind(record)}",
            remedy='write one object such as {"prompt": …} per line',
        )
    name = default_id if record.get("id") is None else check_text(as_name(record["id"]), "id")
    domain = None if record.get("domain") is None else check_text(record["domain"], "domain")
    if any(record.get(field) is not None for field in RESPONSES):
        return Prompt(name, from_record(record, where=where, notes=notes).prompt, domain)
    if any(record.get(field) is not None for field in RATINGS) or record.get("prompt") is None:
        listed = read_list(record, notes=notes, least=1)
        if listed is not None:
            return Prompt(name, listed[0], domain)
    notes.columns.update(printable(str(column)) for column in record if column not in _KNOWN)
    if record.get("prompt") is None:
        raise BadRecord("it is missing", "prompt", "add it, or remove the record")
    row = Notes()
    messages = read_prompt(record["prompt"], row)
    notes.add_row(row)
    return Prompt(name, messages, domain)

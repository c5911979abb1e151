"""Files of preference data, read and written as groups (see :mod:`.data.formats`).

Nothing is dropped without being counted: a row becomes a group or a :class:`BadRecord`, and a file
that cannot be read to its end is a :class:`BadFile`, which skipping bad records does not excuse,
because the rows lost with it cannot be counted.
"""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from posttrain.data.columns import explain
from posttrain.data.formats import (
    WRITTEN,
    BadFile,
    bad_file,
    rows,
    split_suffix,
    write_lines,
    write_parquet,
)
from posttrain.data.notes import Notes
from posttrain.data.preferences import BadRecord, RankedGroup
from posttrain.data.ratings import check_min_difference, read_record
from posttrain.errors import UserError
from posttrain.storage.files import whole_path

Read = TypeVar("Read")


class Named(Protocol):
    """What a record gives, with an id that no other has."""

    @property
    def id(self) -> str:
        """Its name."""
        ...


ReadNamed = TypeVar("ReadNamed", bound=Named)
#: How a record is read, as :func:`.ratings.read_record` does, which is given the record, ``where``
#: it stands, ``default_id`` and ``notes``.
Reader = Callable[..., Sequence[ReadNamed]]


@dataclass
class ReadResult:
    """What reading files gave: groups, bad records, and what was noted about the rows."""

    groups: list[RankedGroup] = field(default_factory=list)
    refused: list[BadRecord] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


def iterate_groups(path: str | Path, *, min_difference: float = 0.0) -> Iterator[RankedGroup]:
    """Stream the groups of one file, which may be larger than memory.

    Its rows are in TRL's preference format, or lists of responses with scores or ranks
    (:func:`.read_record`); its suffix is `.jsonl`, `.jsonl.gz`, `.csv` or `.parquet`. Memory holds
    one line (of Parquet: one row group) and some 100 bytes for every id seen so far. Blank lines
    are skipped. A record without an id is named `<file stem>-<line number>`.

    Raises:
        BadRecord: A row breaks the data contract; the message names file, line and field.
        BadFile: The file cannot be read to its end, or has no rows.
    """
    for item in scan(Path(path), Notes(), min_difference):
        if isinstance(item, BadRecord):
            raise item
        yield item


def read_groups(
    paths: str | Path | Sequence[str | Path], *, skip_bad: bool = False, min_difference: float = 0.0
) -> ReadResult:
    r"""Read all groups of one or more files into memory, in the order of files and rows.

    Of records with `responses`, two that differ by less than `min_difference` make no group.

    Raises:
        BadRecord: The first bad record; with `skip_bad`, the result lists them instead.
        BadFile: A file cannot be read to its end or has no rows, even with `skip_bad`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mine.jsonl"
    ...     _ = path.write_text('{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}\n{}\n')
    ...     result = read_groups(path, skip_bad=True)
    >>> [group.id for group in result.groups], len(result.refused)
    (['mine-1'], 1)
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise UserError("no files to read")
    result = ReadResult()
    for path in files:
        for item in scan(Path(path), result.notes, min_difference):
            if not isinstance(item, BadRecord):
                result.groups.append(item)
            elif skip_bad:
                result.refused.append(item)
            else:
                raise item
    return result


def inspect_file(
    path: str | Path,
    notes: Notes | None = None,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> Iterator[RankedGroup | BadRecord]:
    """As :func:`scan`, but a :class:`BadFile` comes last instead of being raised."""
    try:
        yield from scan(Path(path), Notes() if notes is None else notes, min_difference, columns)
    except BadFile as error:
        yield error


def write_groups(path: str | Path, groups: Iterable[RankedGroup]) -> None:
    """Write groups to a file whose suffix names the format; equal groups give equal bytes.

    A `.jsonl`, `.jsonl.gz` or `.parquet` file appears whole or not at all. In Parquet every prompt
    and response is a list of chat messages, because a column has one type.

    Raises:
        UserError: Unknown suffix, no groups, or an id twice, which could not be read back.
    """
    path = Path(path)
    suffix, _ = split_suffix(path, WRITTEN)
    distinct = _without_duplicates(groups)
    with whole_path(path) as partial, partial.open("wb") as file:
        if suffix == ".parquet":
            write_parquet(file, distinct)
        elif suffix == ".jsonl":
            write_lines(file, distinct)
        else:
            # No name and no time in the header, so that equal groups give equal bytes.
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                write_lines(compressed, distinct)


def scan(
    path: Path,
    notes: Notes,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> Iterator[RankedGroup | BadRecord]:
    """Read a file row by row: its groups, or the bad record that stands there instead.

    A row gives one group, or with `responses` any number (see :func:`.ratings.read_record`).
    `notes` is filled while rows are drawn. `columns` are the file's own names by ours.

    Raises:
        BadFile: The file cannot be read to its end, or has no rows.
    """
    check_min_difference(min_difference)
    read = partial(read_record, min_difference=min_difference)
    return scan_named(path, notes, read, columns=columns)


def scan_named(
    path: Path,
    notes: Notes,
    reader: Reader[ReadNamed],
    *,
    others: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Iterator[ReadNamed | BadRecord]:
    """As :func:`scan`, by any reader of records; an id that occurred before is a bad record."""
    seen: set[bytes] = set()

    def read(record: Any, where: str, default_id: str) -> Sequence[ReadNamed]:
        found = reader(record, where=where, default_id=default_id, notes=notes)
        names = {one.id for one in found}
        if names and record.get("id") is not None:
            names.add(str(record["id"]))  # of which those of a list of responses are made
        # Digests, because the ids of a large file would take more memory than its batch.
        digests = {hashlib.blake2b(name.encode(), digest_size=16).digest() for name in names}
        if not seen.isdisjoint(digests):
            raise BadRecord(
                f"an earlier {_row_name(path)} has the same id", "id", "make it unique", where
            )
        seen.update(digests)
        return found

    for item in scan_rows(path, notes, read, others=others, columns=columns):
        if isinstance(item, BadRecord):
            yield item
        else:
            yield from item


def scan_rows(
    path: Path,
    notes: Notes,
    read: Callable[[Any, str, str], Read],
    *,
    others: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Iterator[Read | BadRecord]:
    """Read a file row by row by a function of record, place and default id.

    Yields what the function returns, or the bad record that stands there instead. `others` are
    columns of records that compare nothing, and `columns` the file's own names by ours (see
    :func:`.formats.rows`).

    Raises:
        BadFile: The file cannot be read to its end, or has no rows.
    """
    suffix, stem = split_suffix(path)
    empty = True
    for line, record in rows(path, suffix, notes, others, columns):
        empty = False
        where = f"{path}, {_row_name(path)} {line}"
        try:
            if isinstance(record, BadRecord):
                raise record
            found = read(record, where, f"{stem}-{line}")
        except BadRecord as error:
            error.where, error.path, error.line = where, path, line
            if columns and isinstance(record, Mapping):
                explain(error, record, columns)
            # Without its traceback, which would keep the record itself in memory.
            yield error.with_traceback(None)
        else:
            yield found
    if empty:
        raise bad_file(path, "the file has no rows", "check how it was written")


def _row_name(path: Path) -> str:
    return "row" if path.name.lower().endswith(".parquet") else "line"


def _without_duplicates(groups: Iterable[RankedGroup]) -> Iterator[RankedGroup]:
    seen: set[str] = set()
    for group in groups:
        if group.id in seen:
            raise UserError(f"two groups have the id {group.id!r}; make ids unique to write them")
        seen.add(group.id)
        yield group
    if not seen:
        raise UserError("no groups to write")

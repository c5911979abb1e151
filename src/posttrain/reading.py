"""Files of preference data: `.jsonl`, `.jsonl.gz` and `.parquet`, read and written as groups.

Nothing is dropped without being counted: a row becomes a group or a :class:`BadRecord`, and a file
that cannot be read to its end is a :class:`BadFile`, which skipping bad records does not excuse,
because the rows lost with it cannot be counted.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from posttrain.conversations import printable
from posttrain.preferences import COLUMNS, RESPONSES, BadRecord, RankedGroup, from_record, to_record

SUFFIXES = (".jsonl.gz", ".jsonl", ".parquet")
ROWS_PER_BATCH = 1024


def iterate_groups(path: str | Path) -> Iterator[RankedGroup]:
    """Stream the groups of one file, which may be larger than memory.

    Memory holds one line (of Parquet: one row group) and some 100 bytes for every id seen so far.

    Blank lines are skipped. A record without an id is named `<file stem>-<line number>`.

    Args:
        path: A `.jsonl`, `.jsonl.gz` or `.parquet` file in TRL's preference format.

    Yields:
        One group per row.

    Raises:
        BadRecord: A row breaks the data contract; the message names file, line and field.
        BadFile: The file cannot be read to its end, or has no rows.
    """
    for item in scan(Path(path), Counter()):
        if isinstance(item, BadRecord):
            raise item
        yield item


def read_groups(paths: str | Path | Sequence[str | Path], *, skip_bad: bool = False) -> ReadResult:
    """Read all groups of one or more files into memory.

    Args:
        paths: A file or several; see :func:`iterate_groups`.
        skip_bad: List bad records in `refused` instead of raising the first.

    Returns:
        The groups, in the order of files and rows, and what was refused or ignored.

    Raises:
        BadRecord: The first bad record, unless `skip_bad`.
        BadFile: A file cannot be read to its end or has no rows, even with `skip_bad`.
        ValueError: No path is given.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    if not files:
        raise ValueError("no files to read")
    result = ReadResult()
    for path in files:
        for item in scan(Path(path), result.ignored_columns):
            if not isinstance(item, BadRecord):
                result.groups.append(item)
            elif skip_bad:
                result.refused.append(item)
            else:
                raise item
    return result


def inspect_file(path: str | Path) -> ReadResult:
    """Read what can be read of one file and never raise for its contents.

    Returns:
        As from :func:`read_groups` with `skip_bad`; a :class:`BadFile` is the last of `refused`.
    """
    result = ReadResult()
    try:
        for item in scan(Path(path), result.ignored_columns):
            if isinstance(item, BadRecord):
                result.refused.append(item)
            else:
                result.groups.append(item)
    except BadFile as error:
        result.refused.append(error)
    return result


def write_groups(path: str | Path, groups: Iterable[RankedGroup]) -> None:
    """Write groups to a file whose suffix names the format; equal groups give equal bytes.

    The file appears whole or not at all: rows go to a temporary file beside it, which then takes
    its name. In Parquet every prompt and response is a list of chat messages, because a column
    has one type.

    Args:
        path: A `.jsonl`, `.jsonl.gz` or `.parquet` file; an existing one is replaced.
        groups: At least one group; consumed as a stream.

    Raises:
        ValueError: Unknown suffix, no groups, or two groups with one id, which could not be read
            back.
    """
    path = Path(path)
    suffix, _ = _split_suffix(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            if suffix == ".parquet":
                _write_parquet(file, _without_duplicates(groups))
            elif suffix == ".jsonl":
                _write_lines(file, _without_duplicates(groups))
            else:
                # No name and no time in the header, so that equal groups give equal bytes.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed:
                    _write_lines(compressed, _without_duplicates(groups))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def scan(path: Path, ignored_columns: Counter[str]) -> Iterator[RankedGroup | BadRecord]:
    """Read a file row by row: a group, or the bad record that stands there instead.

    Args:
        path: See :func:`iterate_groups`.
        ignored_columns: Filled with the columns that are no part of the data contract.

    Raises:
        BadFile: The file cannot be read to its end, or has no rows.
    """
    suffix, stem = _split_suffix(path)
    if suffix == ".parquet":
        rows, row_name = _parquet_rows(path, ignored_columns), "row"
    else:
        rows, row_name = _json_rows(path, suffix), "line"
    seen: set[bytes] = set()
    empty = True
    for line, record in rows:
        empty = False
        where = f"{path}, {row_name} {line}"
        try:
            if isinstance(record, BadRecord):
                record.where = where
                raise record
            if isinstance(record, Mapping):
                ignored_columns.update(printable(name) for name in record if name not in COLUMNS)
            group = from_record(record, where=where, default_id=f"{stem}-{line}")
            # Digests, because the ids of a large file would take more memory than its batch.
            digest = hashlib.blake2b(group.id.encode(), digest_size=16).digest()
            if digest in seen:
                raise BadRecord(
                    f"an earlier {row_name} has the same id", "id", "make it unique", where
                )
            seen.add(digest)
        except BadRecord as error:
            error.path, error.line = path, line
            # Without its traceback, which would keep the record itself in memory.
            yield error.with_traceback(None)
        else:
            yield group
    if empty:
        raise _bad_file(path, "the file has no rows", "check how it was written")


def _split_suffix(path: Path) -> tuple[str, str]:
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix, path.name[: -len(suffix)]
    raise _bad_file(path, "its suffix names no known format", f"use one of {', '.join(SUFFIXES)}")


def _json_rows(path: Path, suffix: str) -> Iterator[tuple[int, Any]]:
    line = 0
    try:
        with gzip.open(path) if suffix == ".jsonl.gz" else path.open("rb") as file:
            # Bytes, because text mode would hide on which line invalid UTF-8 stands.
            for line, content in enumerate(file, start=1):
                if line == 1:
                    content = content.removeprefix(b"\xef\xbb\xbf")  # Windows marks UTF-8 so
                if content.strip():
                    yield line, _parse_line(content.rstrip(b"\r\n"))
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _bad_file(
            path,
            f"invalid gzip data after line {line} ({error})",
            "copy the file again, or remove '.gz' from its name if it is not compressed",
        ) from None
    except EOFError:
        raise _bad_file(
            path,
            f"the gzip data end early, after line {line}; later rows are lost",
            "copy the file again",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _parse_line(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), object_pairs_hook=_object_without_duplicates)
    except UnicodeDecodeError as error:
        return BadRecord(f"invalid UTF-8 at byte {error.start + 1}", None, "save it as UTF-8")
    except json.JSONDecodeError as error:
        problem = f"invalid JSON at column {error.colno}: {error.msg}"
        return BadRecord(problem, None, "write one JSON object per line")
    except RecursionError:
        return BadRecord("invalid JSON: too deeply nested", None, "write flat objects")
    except BadRecord as error:
        return error
    except ValueError as error:  # such as a number of more than 4,300 digits
        return BadRecord(f"invalid JSON: {error}", None, "write one JSON object per line")


def _object_without_duplicates(items: list[tuple[str, Any]]) -> dict[str, Any]:
    names = Counter(name for name, _ in items)
    if len(names) < len(items):
        name = names.most_common(1)[0][0]
        # JSON parsers keep the last value silently; here nothing is dropped silently.
        raise BadRecord("the object has this name twice", printable(name), "keep one")
    return dict(items)


def _parquet_rows(path: Path, ignored_columns: Counter[str]) -> Iterator[tuple[int, Any]]:
    try:
        # Opened by Python, because its errors say more plainly what is wrong with a path.
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            missing = [name for name in ("chosen", "rejected") if name not in names]
            if missing or len(set(names)) < len(names):
                raise _bad_file(
                    path,
                    f"no column {' and no column '.join(missing)}"
                    if missing
                    else "two columns have the same name",
                    "rename the columns; the file has " + ", ".join(map(printable, names)),
                )
            row = 0
            known = [name for name in names if name in COLUMNS]
            extra = (printable(name) for name in names if name not in COLUMNS)
            ignored_columns.update(dict.fromkeys(extra, file.metadata.num_rows))
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=known):
                for index in range(batch.num_rows):
                    row += 1
                    yield row, _parquet_record(batch.slice(index, 1))
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise _bad_file(
            path, f"invalid Parquet data ({reason})", "write or copy the file again"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _parquet_record(row: pyarrow.RecordBatch) -> Any:
    try:
        record = row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRecord(f"invalid UTF-8 at byte {error.start + 1} of a text", None, "repair it")
    # Tables made with pandas write NaN for a missing number.
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


def _without_duplicates(groups: Iterable[RankedGroup]) -> Iterator[RankedGroup]:
    seen: set[str] = set()
    for group in groups:
        if group.id in seen:
            raise ValueError(f"two groups have the id {group.id!r}; make ids unique to write them")
        seen.add(group.id)
        yield group
    if not seen:
        raise ValueError("no groups to write")


def _write_lines(file: BinaryIO | gzip.GzipFile, groups: Iterable[RankedGroup]) -> None:
    for group in groups:
        file.write(json.dumps(to_record(group), ensure_ascii=False).encode() + b"\n")


def _write_parquet(file: BinaryIO, groups: Iterable[RankedGroup]) -> None:
    text, messages = (
        pyarrow.string(),
        pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])),
    )
    types = dict.fromkeys(COLUMNS, text) | dict.fromkeys(("prompt", *RESPONSES), messages)
    types |= {"strength": pyarrow.int8(), "margin": pyarrow.float64()}
    schema = pyarrow.schema([(name, types[name]) for name in COLUMNS])
    with parquet.ParquetWriter(file, schema) as writer:
        remaining = iter(groups)
        while batch := list(itertools.islice(remaining, ROWS_PER_BATCH)):
            records = [to_record(group, as_messages=True) for group in batch]
            writer.write_table(pyarrow.Table.from_pylist(records, schema=schema))


def _bad_file(path: Path, problem: str, remedy: str) -> BadFile:
    return BadFile(problem, None, remedy, str(path), path)


def _unreadable(path: Path, error: OSError) -> BadFile:
    reason = error.strerror or str(error).splitlines()[0]
    return _bad_file(path, f"cannot be read ({reason})", "check the path and the file")


class BadFile(BadRecord):
    """A file that cannot be read to its end; `line` and `field` are None."""


@dataclass
class ReadResult:
    """What reading files gave.

    Attributes:
        groups: The accepted rows.
        refused: The bad records, in order.
        ignored_columns: For each column that is no part of the data contract, the rows with it.
    """

    groups: list[RankedGroup] = field(default_factory=list)
    refused: list[BadRecord] = field(default_factory=list)
    ignored_columns: Counter[str] = field(default_factory=Counter)

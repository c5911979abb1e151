"""Formats of preference data: rows of `.jsonl`, `.jsonl.gz`, `.csv` and `.parquet` files.

A row becomes a mapping of columns, or a :class:`.messages.BadRecord` where it cannot be
parsed; :mod:`.data.reading` makes groups of them. A file that cannot be read to its end is a
:class:`BadFile`.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from posttrain.data.columns import hidden, missing, our_names, renamed
from posttrain.data.messages import BadRecord, printable
from posttrain.data.notes import Notes
from posttrain.data.preferences import COLUMNS, RESPONSES, RankedGroup, to_record
from posttrain.data.ratings import LIST_COLUMNS, LISTS, SAMPLED

#: What is written. Whole conversations do not fit into the cells of `.csv`, which is read only.
WRITTEN = (".jsonl.gz", ".jsonl", ".parquet")
SUFFIXES = (*WRITTEN, ".csv")
ROWS_PER_BATCH = 1024
#: Columns of texts, which an empty cell leaves blank; in other columns it means nothing is known.
REQUIRED = ("prompt", "chosen", "rejected")
OPTIONAL = tuple(name for name in COLUMNS if name not in REQUIRED)
NUMBERS = ("strength", "margin")
#: Cells in which tables write, beside nothing at all, that nothing is known.
MISSING = ("nan", "NaN", "None", "null", "<NA>")
#: How many names an error lists of those that records have.
MOST_NAMES = 50
MISSING_CELLS = f"optional columns hold {', '.join(MISSING)}: read as missing"


class BadFile(BadRecord):
    """A file that cannot be read to its end; `line` and `field` are None."""


def split_suffix(path: Path, known: Sequence[str] = SUFFIXES) -> tuple[str, str]:
    """The suffix of a file, in small letters, and its name without; a bad file if not known."""
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix, path.name[: -len(suffix)]
    raise bad_file(path, "its suffix names no known format", f"use one of {', '.join(known)}")


def rows(
    path: Path,
    suffix: str,
    notes: Notes,
    others: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Rows of a file with their line or row number from 1: mappings of columns, or a BadRecord.

    `others` are columns of records that compare nothing: a file that has one of them, if it names
    its columns once, needs no chosen and rejected. `columns` are the file's own names by ours
    (:func:`.parse_columns`); rows have ours.

    `notes` takes columns that are no part of the data contract, where a format names its columns
    once, and rows with cells that were read as missing.

    Raises:
        BadFile: The file cannot be read to its end, or lacks a column.
    """
    columns = columns or {}
    if suffix == ".parquet":
        return _parquet_rows(path, notes.columns, others, columns)
    if suffix == ".csv":
        return _csv_rows(path, notes, others, columns)
    found = _json_rows(path, suffix)
    return _renamed_rows(path, found, columns) if columns else found


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
        raise bad_file(
            path,
            f"invalid gzip data after line {line} ({error})",
            "copy the file again, or remove '.gz' from its name if it is not compressed",
        ) from None
    except EOFError:
        raise bad_file(
            path,
            f"the gzip data end early, after line {line}; later rows are lost",
            "copy the file again",
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _renamed_rows(
    path: Path, found: Iterable[tuple[int, Any]], columns: Mapping[str, str]
) -> Iterator[tuple[int, Any]]:
    """Records by our names, of which each may lack some, but not all may lack one."""
    unseen = dict(columns)
    names: dict[str, None] = {}
    for line, record in found:
        if unseen and isinstance(record, Mapping):
            unseen = {ours: theirs for ours, theirs in unseen.items() if theirs not in record}
            names |= dict.fromkeys(itertools.islice(record, MOST_NAMES - len(names)))
        try:
            record = renamed(record, columns)
        except BadRecord as error:
            record = error
        yield line, record
    if names and (problem := missing(names, unseen)):
        raise bad_file(path, *problem)


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


def _csv_rows(
    path: Path, notes: Notes, others: Sequence[str], columns: Mapping[str, str]
) -> Iterator[tuple[int, Any]]:
    # By default no cell may hold more than 128 KiB; the limit is one for all readers.
    csv.field_size_limit(2**31 - 1)
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            _check_separator(path, file.readline(), others, columns)
            file.seek(0)
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            if names:
                names = _checked_columns(path, names, others, columns)
            line = reader.line_num
            for cells in reader:
                # A cell may hold line breaks, so a row is named by the line on which it starts.
                first, line = line + 1, reader.line_num
                if cells:
                    yield first, _csv_record(names, cells, notes)
    except csv.Error as error:
        raise bad_file(
            path,
            f"invalid CSV after line {line} ({error})",
            "put texts with quotes, commas or line breaks in quotes, and write a quote twice",
        ) from None
    except UnicodeDecodeError:
        raise bad_file(
            path, f"invalid UTF-8 after line {line}", "save it as CSV in UTF-8"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _check_separator(
    path: Path, first: str, others: Sequence[str], columns: Mapping[str, str]
) -> None:
    for separator, name in {";": "semicolons", "\t": "tabs", "|": "vertical bars"}.items():
        cells = [cell.strip(' "\r\n') for cell in first.split(separator)]
        found = our_names(cells, columns)
        if len(cells) > 1 and ({"chosen", "rejected"} <= {*found} or {*others} & {*found}):
            raise bad_file(
                path,
                f"its columns are separated by {name}",
                "write it with commas, in pandas by to_csv(path, index=False)",
            )


def _csv_record(names: Sequence[str], cells: Sequence[str], notes: Notes) -> Any:
    if len(cells) != len(names):
        return BadRecord(
            f"the row has {len(cells)} cells and the first line {len(names)} columns",
            None,
            "put texts with commas or line breaks in quotes",
        )
    record = dict(zip(names, cells, strict=True))
    missing = [name for name in OPTIONAL if record.get(name) in MISSING]
    if missing:
        notes.readings[MISSING_CELLS] += 1
        record |= dict.fromkeys(missing, "")
    return {name: _csv_value(name, cell) for name, cell in record.items()}


def _csv_value(name: str, cell: str) -> Any:
    if not cell and name not in REQUIRED:
        return None
    if name not in NUMBERS:
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell  # which is then refused by its name


def _parquet_rows(
    path: Path,
    ignored_columns: Counter[str],
    others: Sequence[str],
    columns: Mapping[str, str],
) -> Iterator[tuple[int, Any]]:
    try:
        # Opened by Python, because its errors say more plainly what is wrong with a path.
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            names = file.schema_arrow.names
            ours = _checked_columns(path, names, others, columns, may_hold_lists=True)
            row = 0
            known = [
                name
                for name, our in zip(names, ours, strict=True)
                if our in (*COLUMNS, *LIST_COLUMNS, *SAMPLED, *others)
            ]
            extra = (printable(name) for name in names if name not in known)
            ignored_columns.update(dict.fromkeys(extra, file.metadata.num_rows))
            for batch in file.iter_batches(ROWS_PER_BATCH, columns=known):
                for index in range(batch.num_rows):
                    row += 1
                    yield row, renamed(_parquet_record(batch.slice(index, 1)), columns)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise bad_file(
            path, f"invalid Parquet data ({reason})", "write or copy the file again"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _parquet_record(row: pyarrow.RecordBatch) -> Any:
    try:
        record = row.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRecord(f"invalid UTF-8 at byte {error.start + 1} of a text", None, "repair it")
    except (OverflowError, ValueError) as error:  # such as a time after the year 9999
        return BadRecord(f"a value cannot be read ({error})", None, "repair or remove it")
    # Tables made with pandas write NaN for a missing number.
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


def _checked_columns(
    path: Path,
    names: Sequence[str],
    others: Sequence[str],
    columns: Mapping[str, str],
    *,
    may_hold_lists: bool = False,
) -> list[str]:
    """The columns of a table by our names, which must be those of some kind of record."""
    if hides := hidden(names, columns):
        raise bad_file(path, f"it has a column {hides[1]} beside {hides[0]}", hides[2])
    if problem := missing(names, columns):
        raise bad_file(path, *problem)
    ours = our_names(names, columns)
    lacks = [name for name in ("chosen", "rejected") if name not in ours]
    lists = [name for name in LISTS if name in ours]
    if lists and lacks and not may_hold_lists:
        raise bad_file(
            path,
            f"column {lists[0]} is a list in every record, which no cell can hold",
            "write .jsonl, in pandas by to_json(path, lines=True, orient='records'), or .parquet",
        )
    if lists or not set(others).isdisjoint(ours):
        lacks = []
    if lacks:
        raise bad_file(
            path,
            f"no column {' and no column '.join([*lacks, *others])}",
            f"rename the columns, or say which is which (--columns {lacks[0]}=…); the file has "
            + ", ".join(map(printable, names)),
        )
    if len(set(names)) < len(names):
        raise bad_file(
            path,
            "two columns have the same name",
            "rename the columns; the file has " + ", ".join(map(printable, names)),
        )
    return ours


def write_lines(file: BinaryIO | gzip.GzipFile, groups: Iterable[RankedGroup]) -> None:
    """Write a line of JSON for each group."""
    for group in groups:
        file.write(json.dumps(to_record(group), ensure_ascii=False).encode() + b"\n")


def write_parquet(file: BinaryIO, groups: Iterable[RankedGroup]) -> None:
    """Write a Parquet file, in which every prompt and response is a list of chat messages."""
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


def bad_file(path: Path, problem: str, remedy: str) -> BadFile:
    """A :class:`BadFile` that names its file, what is wrong, and what to do."""
    return BadFile(problem, None, remedy, str(path), path)


def _unreadable(path: Path, error: OSError) -> BadFile:
    reason = error.strerror or str(error).splitlines()[0]
    return bad_file(path, f"cannot be read ({reason})", "check the path and the file")

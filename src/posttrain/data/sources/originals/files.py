"""Reading downloaded originals, plain or compressed, with errors that a person can act on.

All problems become a `UserError` that names the file, the position in it, the field, and what to
do: the `remedy`, which ends the message.
"""

import gzip
import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from posttrain.errors import UserError

_DECOMPRESSION_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError)


def read_text(path: Path, remedy: str) -> str:
    """Read a whole UTF-8 text file, decompressing it if its name ends in `.gz` or `.xz`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file. {remedy}")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        elif path.suffix == ".xz":
            content = lzma.decompress(content)
    except _DECOMPRESSION_ERRORS as error:
        raise UserError(f"{path}: cannot be read ({error}). {remedy}") from error
    return decode(content, str(path), remedy)


def decode(content: bytes, name: str, remedy: str) -> str:
    """Decode UTF-8, naming the file and the offending byte if that fails."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}, byte {error.start}: not UTF-8 text. {remedy}") from error


def read_folder(path: Path, pattern: str, remedy: str) -> Iterator[tuple[str, bytes]]:
    """Read the matching files of a folder, or of a tar archive of that folder, in order of name.

    `pattern` is relative to the folder, for instance `outputs/all/*.txt`. In an archive it may
    match at any depth, because archives usually carry the folder's own name; matches in several
    folders are refused, because they would mix different data sets. With each content comes its
    name for messages.
    """
    if path.is_dir():
        files = sorted(file for file in path.glob(pattern) if not file.name.startswith("."))
        if not files:
            raise UserError(f"{path}: holds no file {pattern}. {remedy}")
        for file in files:
            yield str(file), file.read_bytes()
    elif path.is_file():
        yield from sorted(_read_archive(path, pattern, remedy))
    else:
        raise UserError(f"{path}: no such file or folder. {remedy}")


def _read_archive(path: Path, pattern: str, remedy: str) -> list[tuple[str, bytes]]:
    files: list[tuple[str, bytes]] = []
    folders: set[str] = set()
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name.startswith(".") or not name.match(pattern):
                    continue
                stream = archive.extractfile(member)
                assert stream is not None  # extractfile gives a stream for every regular file
                files.append((f"{path}:{name}", stream.read()))
                folders.add(str(name.parent))
    except _DECOMPRESSION_ERRORS as error:
        raise UserError(f"{path}: not a readable tar archive ({error}). {remedy}") from error
    if not files:
        raise UserError(f"{path}: holds no file {pattern}. {remedy}")
    if len(folders) > 1:
        listed = ", ".join(sorted(folders))
        raise UserError(f"{path}: files {pattern} in several folders ({listed}). {remedy}")
    return files


def parse_xml(content: bytes, name: str, remedy: str) -> ElementTree.Element:
    """Parse an XML document and return its root; an error gives line and column."""
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise UserError(
            f"{name}, line {line}, column {column}: not well-formed XML ({error}). {remedy}"
        ) from error


def required(record: Any, field: str, kind: type, where: str, remedy: str) -> Any:
    """Return a field of a JSON object, refused if it is not there or not of the Python type `kind`.

    `where`, file and position, begins the error message.
    """
    if not isinstance(record, Mapping):
        kind_there = type(record).__name__
        raise UserError(f"{where}: expected an object with {field!r}, found {kind_there}. {remedy}")
    if field not in record:
        raise UserError(f"{where}: field {field!r} is missing. {remedy}")
    value = record[field]
    if not isinstance(value, kind):
        kind_there = type(value).__name__
        raise UserError(
            f"{where}: field {field!r} must be {kind.__name__}, found {kind_there}. {remedy}"
        )
    return value


def short_hash(text: str) -> str:
    """Name a text, such as a prompt too long to repeat, by eight hexadecimal digits of its MD5 sum.

    That keeps a few thousand apart: with 5,000 the chance of any collision is 0.3 %.
    """
    return hashlib.md5(text.encode("utf-8"), usedforsecurity=False).hexdigest()[:8]

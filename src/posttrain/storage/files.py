"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from posttrain.errors import UserError


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """A place to write a file of any kind; it takes its name once the block ends without an error.

    It has the same suffix and folder, which is made if there is none; a file of the name is
    replaced. What an error leaves there is removed.

    Raises:
        UserError: A file stands where a folder would have to be.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{path}: cannot be written, as what stands above it is a file and no folder; remedy: "
            "name a place in a folder"
        ) from None
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[TextIO]:
    """A text file to write, in UTF-8; it takes its name as in :func:`whole_path`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scores.jsonl"
    ...     with whole_file(path) as file:
    ...         _ = file.write("first line")
    ...         before = path.exists()
    ...     before, path.read_text()
    (False, 'first line')
    """
    with whole_path(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file

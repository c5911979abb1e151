"""What commands show people: tables, in colour on a terminal and as plain lines elsewhere."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

NUMBER = re.compile(r"[\d,.–-]*( %)?")
#: Columns of a file or pipe, whose readers have no width.
WIDE = 200


def console(file: TextIO | None = None) -> Console:
    """Where a command shows something, by default standard output as it is now.

    A file or pipe gets plain text of at most :data:`WIDE` columns, with no colour.
    """
    file = sys.stdout if file is None else file
    width = None if file.isatty() else WIDE
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def print_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    file: TextIO | None = None,
) -> None:
    """Print a table, columns of numbers to the right and others to the left.

    >>> print_table(["metric", "value"], [["accuracy", "71.3 %"], ["ties", "0 %"]])
    metric     value
    accuracy  71.3 %
    ties         0 %
    """
    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, column in zip(head, zip(*cells, strict=True), strict=True):
        numbers = all(NUMBER.fullmatch(cell) for cell in column)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    shown = console(file)
    if title is not None:
        shown.print(Text(title, style="bold"))
    shown.print(table)

"""What commands show people: tables, in colour on a terminal and as plain lines elsewhere."""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    """Print a table, texts on the left and numbers, which are every column but the first, right.

    >>> print_table(["metric", "value"], [["accuracy", "71.3 %"], ["ties", "0 %"]])
    metric     value
    accuracy  71.3 %
    ties         0 %
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(head):
        table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    shown = console(file)
    if title is not None:
        shown.print(Text(title, style="bold"))
    shown.print(table)

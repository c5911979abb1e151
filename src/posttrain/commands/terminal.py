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

    A file, pipe or notebook gets plain text of at most :data:`WIDE` columns, with no colour.
    """
    file = sys.stdout if file is None else file
    is_terminal = file.isatty()
    return Console(
        file=file,
        width=None if is_terminal else WIDE,
        # Whatever the environment says, such as that of a notebook's kernel.
        force_terminal=is_terminal,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, columns of numbers to the right and others to the left.

    >>> print_table(["metric", "value"], [["accuracy", "71.3 %"], ["ties", "0 %"]])
    metric     value
    accuracy  71.3 %
    ties         0 %
    """
    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, name in enumerate(head):
        numbers = all(NUMBER.fullmatch(row[place]) for row in cells)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    shown = console()
    with shown.capture() as captured:
        shown.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())

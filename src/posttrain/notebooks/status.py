"""The book's page of what was run: on which machine, and how long it took."""

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import nbformat

from posttrain.evidence import records
from posttrain.evidence.records import Record
from posttrain.storage.files import whole_file

CPUINFO = Path("/proc/cpuinfo")


def write(path: Path, seconds: Mapping[Path, float], profile: str, results: Path) -> None:
    """Write the page: the notebooks that have just run, and the run records of a folder.

    Args:
        path: The page, beside the executed notebooks.
        seconds: How long each notebook took, by its path.
        profile: The name of the folder of parameter files.
        results: The folder of run records.
    """
    recorded = [records.load(file) for file in sorted(results.glob("*.json"))]
    with whole_file(path) as file:
        file.write(_page(seconds, profile, recorded))


def _page(seconds: Mapping[Path, float], profile: str, recorded: Sequence[Record]) -> str:
    notebooks = [
        (f"[{_title(path)}]({path.name})", f"{taken:.0f}") for path, taken in seconds.items()
    ]
    studies = [
        (
            record.name,
            record.environment["device"],
            record.environment["threads"],
            f"{record.environment['seconds']:,.0f}",
            f"`{record.environment['commit']}`",
            record.environment["started"].partition(" ")[0],
        )
        for record in recorded
    ]
    minutes = sum(seconds.values()) / 60
    hours = sum(record.environment["seconds"] for record in recorded) / 3600
    return f"""# Status: what was run, where and how long

**Does everything run, and how long does it take?**

## Notebooks

These {len(seconds)} notebooks compute numbers while the book is built.
On {time.strftime("%Y-%m-%d")} all of them ran without an error,
with the parameters of `{profile}`, in {minutes:.0f} minutes.
The machine: {machine()}.

{_table(["Notebook", "Seconds"], notebooks)}

## Run records

All other numbers come from these {len(recorded)} records of slower runs,
of {hours:.0f} hours together. The files are in `book/results`, with all settings and versions.
Of a run that was interrupted and went on, the seconds are those of its last part.

{_table(["Record", "Device", "Threads", "Seconds", "Commit", "Date"], studies)}
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _title(path: Path) -> str:
    """The heading of a notebook, or its name where it has none."""
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    heading = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    return heading[1] if heading else path.stem


def machine() -> str:
    """The computer and what it ran with, in words."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return ", ".join(
        [
            f"{_processor()} with {os.cpu_count()} cores",
            *([f"of which a notebook uses {threads}"] if threads else []),
            f"{platform.system()}, Python {platform.python_version()} and torch {version('torch')}",
        ]
    )


def _processor() -> str:
    """The name of the CPU, which Python alone does not know on Linux."""
    if CPUINFO.is_file():
        for line in CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""Run records: what was run, with what, on what, and what came out.

Every number that the book shows comes from one, a JSON file, or from a record-like result computed
by the notebook that shows it.
"""

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from posttrain.errors import UserError
from posttrain.storage.files import whole_file

PACKAGES = ("posttrain", "torch", "transformers", "numpy", "scipy")


@dataclass(frozen=True)
class Record:
    """The result of one study on one source of data, in tidy tables by name.

    Attributes:
        profile: ``quick``, ``real``, ``simulator`` or ``gpu``: how much was run.
        settings: Everything that was chosen, seeds included.
        data: Fingerprint and sizes of the data.
        environment: Versions, device, commit, start (UTC) and duration in seconds.
    """

    study: str
    source: str
    profile: str
    settings: dict[str, Any]
    data: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The source, for readers; a GPU run says so, since the CPU's stands beside it."""
        return f"{self.source} (GPU)" if self.profile == "gpu" else self.source

    @property
    def name(self) -> str:
        """File name without its ending; a GPU run stands beside the CPU's, not in its place."""
        return f"{self.study}-{self.source}{'-gpu' if self.profile == 'gpu' else ''}"


def environment(started: float) -> dict[str, Any]:
    """Where and with what a run took place that started at the given ``time.time()``."""
    return machine() | {
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
    }


def machine() -> dict[str, Any]:
    """What a run is computed with: versions, device, number of threads and commit."""
    # Those who only read records need not wait for it.
    import torch

    return {
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    """A package's version; None of this one in a checkout that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with ``+`` where files differ from it.

    Outside a checkout, as in a copy without git, it is what ``POSTTRAIN_COMMIT`` says, or None.
    """
    here = Path(__file__).parents[1]
    commit = _git(here, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return os.environ.get("POSTTRAIN_COMMIT")
    # Only the code decides what a run computes; notebooks and pages may be in the making.
    changed = _git(here, "status", "--porcelain", "--", str(here))
    return f"{commit}+" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def save(record: Record, folder: Path) -> Path:
    """Write a record atomically and return its path.

    Tables are stored column by column, one column a line, with six significant digits.
    """
    path = folder / f"{record.name}.json"
    head = {
        "study": record.study,
        "source": record.source,
        "profile": record.profile,
        "settings": record.settings,
        "data": record.data,
        "environment": record.environment,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    tables = []
    for name, table in record.tables.items():
        columns = [
            f"{json.dumps(str(column))}: {json.dumps([_plain(v) for v in table[column]])}"
            for column in table.columns
        ]
        tables.append(f"{json.dumps(name)}: {{\n" + ",\n".join(columns) + "\n}")
    lines.append('"tables": {\n' + ",\n".join(tables) + "\n}")
    with whole_file(path) as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    return path


def _plain(value: Any) -> Any:
    """A JSON value: six significant digits, null for NaN; no infinity, which JSON lacks."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isinf(value):
            raise UserError("a result is infinite; a study must not record a diverged run")
        return None if math.isnan(value) else float(f"{value:.6g}")
    return value


def _numbers(values: list[Any]) -> list[Any]:
    """NaN for null: JSON has no NaN, and pandas would keep a column of nulls as objects."""
    return [math.nan if value is None else value for value in values]


def load(path: Path) -> Record:
    """Read a record; a file that is missing, not JSON or lacks a part is a UserError."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tables = {
            name: pd.DataFrame({key: _numbers(values) for key, values in columns.items()})
            for name, columns in content["tables"].items()
        }
        return Record(
            study=content["study"],
            source=content["source"],
            profile=content["profile"],
            settings=content["settings"],
            data=content["data"],
            tables=tables,
            environment=content["environment"],
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such run record; run the study that writes it") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}); run the study again") from None
    except KeyError as error:
        raise UserError(f"{path}: the record lacks {error}; run the study again") from None
    except (TypeError, AttributeError):
        raise UserError(f"{path}: not a run record; run the study again") from None


def load_all(folder: Path, *studies: str) -> list[Record]:
    """All records of some studies in a folder, by file name."""
    return [load(path) for study in studies for path in sorted(folder.glob(f"{study}-*.json"))]

"""Runs a folder of notebooks with the parameters of one file: ``python -m posttrain.notebooks``.

Parameter files are described in :mod:`.notebooks.parameters`. Everything is checked before anything
runs, because papermill only warns of a misspelt parameter.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from posttrain.data.sources import human
from posttrain.errors import UserError
from posttrain.notebooks.parameters import (
    Params,
    differing,
    list_known,
    read_parameters,
    read_params,
    tags_of,
)
from posttrain.storage.files import whole_file

KERNEL = "python3"
INJECTED_TAG = "injected-parameters"
FOLDER_VARIABLES = (human.VARIABLE, "POSTTRAIN_CACHE")
"""Environment variables that name folders, perhaps relative to where the command was given."""


class NotebookError(RuntimeError):
    """A notebook stopped with an error; the message shows the cell and its traceback."""


@dataclass(frozen=True)
class _Planned:
    """One notebook that is ready to run.

    Attributes:
        path: Where it was read.
        notebook: Its contents.
        changed: Parameters whose value differs from the notebook's own.
    """

    path: Path
    notebook: NotebookNode
    changed: dict[str, Any]


def run_all(notebooks: Path, params: Path, output: Path) -> None:
    """Run every notebook of a folder, in name order, and write executed copies.

    A notebook runs in its own folder. Where all values equal those in its parameters cell the copy
    has the same cells; otherwise papermill adds a cell with the values that differ.

    Args:
        notebooks: Folder of the notebooks.
        params: Parameter file; see the module.
        output: Folder of the executed copies. Each appears whole or not at all.

    Raises:
        UserError: The parameter file or a notebook breaks a rule, or data are required and
            ``POSTTRAIN_DATA`` does not name a folder. Nothing has run.
        NotebookError: A notebook failed; those before it are written.
    """
    read = read_params(params)
    planned = _plan(notebooks, params, read)
    with _environment(read.requires_data):
        output.mkdir(parents=True, exist_ok=True)
        for item in planned:
            executed = _execute(item, notebooks)
            _write(strip(executed), output / item.path.name)


def refresh(notebooks: Path, params: Path) -> None:
    """Run every notebook of a folder and replace it by its executed form, ready to commit.

    Kept: sources, outputs, execution counts. Removed: see :func:`strip`, and any cell of values
    that papermill added.

    Args:
        notebooks: Folder of the notebooks.
        params: Parameter file; its values must equal those in the notebooks' parameters cells,
            because the outputs would not belong to the sources otherwise.

    Raises:
        UserError: As from :func:`run_all`, or a value differs. Nothing has run.
        NotebookError: A notebook failed; it is unchanged, those before it are replaced.
    """
    read = read_params(params)
    planned = _plan(notebooks, params, read)
    for item in planned:
        for name, value in item.changed.items():
            own = read_parameters(item.notebook, item.path)[name]
            raise UserError(
                f"{item.path}: parameter '{name}' is {own!r} in the notebook but {value!r} in "
                f"{params}; a committed notebook shows its own values, so make them equal"
            )
    with _environment(read.requires_data):
        for item in planned:
            executed = _execute(item, notebooks)
            _write(strip(executed), item.path)


def strip(notebook: NotebookNode) -> NotebookNode:
    """Remove, in place, metadata that tells when, how and on which Python a notebook ran.

    The kernel becomes plain ``python3``, whatever a notebook editor called it.

    Returns:
        The notebook, with execution counts and outputs as they were.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": KERNEL,
    }
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not tags_of(cell):
            cell.metadata.pop("tags", None)
    return notebook


def _plan(notebooks: Path, params: Path, read: Params) -> list[_Planned]:
    paths = {path.stem: path for path in sorted(notebooks.glob("*.ipynb"))}
    if not paths:
        raise UserError(f"{notebooks}: no notebook (*.ipynb) in this folder")
    for stem in read.notebooks:
        if stem not in paths:
            raise UserError(f"{params}: no notebook '{stem}' in {notebooks}; {list_known(paths)}")
    planned = []
    for stem, path in paths.items():
        try:
            notebook = nbformat.read(path, as_version=4)
        except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            raise UserError(f"{path}: not a notebook: {error}") from None
        notebook.cells = [cell for cell in notebook.cells if INJECTED_TAG not in tags_of(cell)]
        strip(notebook)  # papermill needs the kernel's language, which a new notebook may lack
        own = read_parameters(notebook, path)
        given = read.notebooks.get(stem, {})
        for name in given:
            if name not in own:
                raise UserError(
                    f"{params}: notebook '{stem}' has no parameter '{name}'; {list_known(own)}"
                )
        planned.append(_Planned(path, notebook, differing(own, given)))
    return planned


@contextlib.contextmanager
def _environment(requires_data: bool) -> Iterator[None]:
    """Make the folders in environment variables absolute, since notebooks run elsewhere.

    Raises:
        UserError: Data are required but their folder is not given.
    """
    before = {name: os.environ[name] for name in FOLDER_VARIABLES if os.environ.get(name)}
    after = {name: str(Path(value).expanduser().resolve()) for name, value in before.items()}
    os.environ.update(after)
    try:
        if requires_data:
            human.folder()
        yield
    finally:
        os.environ.update(before)


def _execute(item: _Planned, notebooks: Path) -> NotebookNode:
    print(f"{item.path} …", end=" ", flush=True)
    start = time.monotonic()
    try:
        executed = papermill.execute_notebook(
            item.notebook,
            None,
            parameters=item.changed,
            kernel_name=KERNEL,
            cwd=notebooks.resolve(),
            progress_bar=False,
            # What fails in a cell comes back with the notebook. On the terminal the kernel only
            # warns that it uses local TCP, and calls it an error that it is interrupted at the end.
            extra_arguments=["--log-level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        print("failed", flush=True)
        raise NotebookError(f"{item.path} failed.{error}") from None
    except DeadKernelError as error:
        print("failed", flush=True)
        raise NotebookError(
            f"{item.path} failed: its kernel died ({error}), most often for want of memory"
        ) from None
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return executed


def _write(notebook: NotebookNode, path: Path) -> None:
    with whole_file(path) as file:
        file.write(nbformat.writes(notebook).rstrip("\n") + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m posttrain.notebooks", description="Run the book's notebooks."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="write executed copies to another folder")
    run.add_argument("--output", type=Path, required=True, help="folder of the executed copies")
    renew = commands.add_parser("refresh", help="replace the notebooks by their executed form")
    for command in (run, renew):
        command.add_argument("--params", type=Path, required=True, help="parameter file (YAML)")
        command.add_argument(
            "--notebooks",
            type=Path,
            default=Path("notebooks"),
            help="folder of the notebooks (default: %(default)s)",
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            run_all(options.notebooks, options.params, options.output)
        else:
            refresh(options.notebooks, options.params)
    except (ValueError, NotebookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

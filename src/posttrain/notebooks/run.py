"""Runs all notebooks with papermill: ``python -m posttrain.notebooks``.

A folder of parameter files, one a profile, has a file for each notebook that it changes, named like
it: ``papermill notebooks/NAME.ipynb out.ipynb -f notebooks/params/PROFILE/NAME.yaml`` runs one.
"""

import argparse
import ast
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from posttrain.errors import UserError
from posttrain.notebooks import status
from posttrain.notebooks.parameters import repository
from posttrain.storage.files import whole_file

KERNEL = "python3"


class NotebookError(RuntimeError):
    """A notebook stopped with an error; the message shows the cell and its traceback."""


def run_all(notebooks: Path, output: Path, params: Path | None = None) -> dict[Path, float]:
    """Run every notebook of a folder, in name order, and write executed copies.

    Returns how many seconds each took.

    Each copy appears whole or not at all; ``output`` may be ``notebooks`` itself. Where values of
    ``params``, a folder of parameter files, differ from the notebook's own, papermill adds a cell
    with them.

    Raises:
        UserError: A parameter file belongs to no notebook, cannot be read or names a parameter that
            the notebook does not have. Nothing has run.
        NotebookError: A notebook failed; those before it are written.
    """
    paths = sorted(notebooks.glob("*.ipynb"))
    given = {path: _changed(path, params) for path in paths}
    if params is not None:
        _check_files(params, paths)
    seconds = {}
    for path in paths:
        print(f"{path} …", end=" ", flush=True)
        start = time.monotonic()
        executed = strip(_execute(path, given[path]))
        with whole_file(output / path.name) as file:
            file.write(nbformat.writes(executed).rstrip("\n") + "\n")
        seconds[path] = time.monotonic() - start
        print(f"{seconds[path]:.0f} s", flush=True)
    return seconds


def _check_files(params: Path, notebooks: Sequence[Path]) -> None:
    files = sorted(params.glob("*.yaml"))
    if not files:
        known = sorted(folder.name for folder in params.parent.glob("*/"))
        raise UserError(f"{params}: no parameter files here; known: {', '.join(known)}")
    stems = [path.stem for path in notebooks]
    for file in files:
        if file.stem not in stems:
            raise UserError(f"{file}: no notebook of this name; known: {', '.join(stems)}")


def _changed(notebook: Path, params: Path | None) -> dict[str, Any]:
    """Values of a notebook's parameter file, if it has one, that differ from the notebook's own."""
    if params is None or not (file := params / f"{notebook.stem}.yaml").is_file():
        return {}
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} must map parameters to values")
    own = papermill.inspect_notebook(notebook)
    if unknown := [name for name in values if name not in own]:
        raise UserError(
            f"{file}: unknown parameters: {', '.join(unknown)}; known: {', '.join(own)}"
        )
    return {
        name: value
        for name, value in values.items()
        if value != ast.literal_eval(own[name]["default"])
    }


def _execute(path: Path, parameters: dict[str, Any]) -> NotebookNode:
    try:
        return papermill.execute_notebook(
            path,
            None,
            parameters=parameters,
            kernel_name=KERNEL,
            progress_bar=False,
            coalesce_streams=True,  # by chance, what is printed comes in one piece or in several
            # What fails in a cell comes back with the notebook. On the terminal the kernel only
            # warns that it uses local TCP, and calls it an error that it is interrupted at the end.
            extra_arguments=["--log-level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        print("failed", flush=True)
        raise NotebookError(f"{path} failed.{error}") from None
    except DeadKernelError as error:
        print("failed", flush=True)
        raise NotebookError(
            f"{path} failed: its kernel died ({error}), most often for want of memory"
        ) from None


def strip(notebook: NotebookNode) -> NotebookNode:
    """Remove, in place, metadata that tells when, how and on which Python a notebook ran.

    The kernel becomes plain ``python3``, whatever a notebook editor called it.
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
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
    return notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m posttrain.notebooks", description="Run the book's notebooks."
    )
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="their folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of executed copies")
    parser.add_argument("--params", type=Path, help="folder of parameter files (YAML)")
    options = parser.parse_args(arguments)
    try:
        seconds = run_all(options.notebooks, options.output, options.params)
        # What is committed must not change with the machine.
        if options.output.resolve() != options.notebooks.resolve():
            profile = options.params.name if options.params else "the notebooks themselves"
            results = repository() / "book" / "results"
            status.write(options.output / "status.md", seconds, profile, results)
    except (UserError, NotebookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0

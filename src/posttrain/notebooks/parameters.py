"""Parameters of notebooks: those of a file, and those that a notebook assigns itself.

A parameter file is YAML. It maps a notebook's stem to values for names that the notebook's cell
tagged ``parameters`` assigns; a notebook that it does not mention keeps its own values. One key is
no notebook: ``requires_data: true`` says that the notebooks read human preference data.
"""

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode

from posttrain.errors import UserError

PARAMETERS_TAG = "parameters"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number, which YAML 1.1 takes for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Params:
    """The contents of a parameter file.

    Attributes:
        notebooks: For each notebook's stem, its parameters by name.
        requires_data: Whether the notebooks need the folder of human preference data.
    """

    notebooks: dict[str, dict[str, Any]]
    requires_data: bool = False


def read_params(path: Path) -> Params:
    """Read a parameter file.

    Raises:
        UserError: There is no such file, or it is not as the module describes.
    """
    if not path.is_file():
        known = sorted(file.name for file in path.parent.glob("*.yaml"))
        raise UserError(f"{path}: no such parameter file; {list_known(known)}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: the top level must map notebooks to their parameters, "
            f"not be a {type(content).__name__}"
        )
    requires_data = content.pop("requires_data", False)
    if not isinstance(requires_data, bool):
        raise UserError(f"{path}: 'requires_data' must be true or false, not {requires_data!r}")
    for stem, values in content.items():
        if values is not None and not isinstance(values, dict):
            raise UserError(
                f"{path}: notebook '{stem}': parameters must be a mapping from name to value, "
                f"not {values!r}"
            )
    return Params({str(stem): values or {} for stem, values in content.items()}, requires_data)


def read_parameters(notebook: NotebookNode, path: Path) -> dict[str, Any]:
    """Read the names and values that a notebook's parameters cell assigns.

    The cell is parsed, not run, so its values must be literals.

    Args:
        notebook: The notebook.
        path: Where it was read, for the error message.

    Raises:
        UserError: There is not exactly one cell tagged ``parameters``, or it does anything else
            than assign literals to names.
    """
    cells = [cell for cell in notebook.cells if PARAMETERS_TAG in tags_of(cell)]
    if len(cells) != 1:
        raise UserError(
            f"{path}: {len(cells)} cells are tagged '{PARAMETERS_TAG}'; tag exactly one, even if "
            "it assigns nothing"
        )
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            values |= _assignment(statement)
    except (SyntaxError, ValueError):
        raise UserError(
            f"{path}: the cell tagged '{PARAMETERS_TAG}' must only assign literals to names, one "
            "a statement, such as: sources = ['simulator']"
        ) from None
    return values


def differing(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the given values that differ from a notebook's own; a tuple equals its list."""
    return {
        name: value
        for name, value in given.items()
        if name not in own or _canonical(value) != _canonical(own[name])
    }


def _assignment(statement: ast.stmt) -> dict[str, Any]:
    """The name and value that a statement assigns, or ValueError if it does anything else."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
            return {name: ast.literal_eval(value)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return {name: ast.literal_eval(value)}
        case ast.Expr(value=ast.Constant(value=str())):
            return {}
    raise UserError("not an assignment of a literal")


def tags_of(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags") or []


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def list_known(names: Iterable[str]) -> str:
    """What exists, for an error message about what does not."""
    return f"known: {', '.join(names) or 'none'}"

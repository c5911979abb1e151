"""Checking the parameters of a notebook, in its second cell, before anything slow is imported."""

from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

from posttrain.config.fields import kinds, typed
from posttrain.errors import UserError

_PASSED = "_parameters_passed"


def check_parameters(namespace: MutableMapping[str, Any], **types: Any) -> None:
    """Refuse parameters that the notebook does not have, and values of the wrong type.

    papermill puts the values that it is given into a cell after that of the parameters, only warns
    of unknown names, and passes ``-p sizes "[100, 400]"`` as text. So in ``namespace``, the
    notebook's ``globals()``, text is replaced by what it says in YAML where no text is expected;
    and a relative path starts at the repository, wherever the notebook runs.

    >>> given = {"seeds": 1, "sizes": "[100, 400]"}
    >>> check_parameters(given, seeds=int, sizes=list[int] | None)
    >>> given["sizes"]
    [100, 400]

    Raises:
        UserError: The sentence names the parameter, and what is known or needed.
    """
    # Once the notebook has gone on, its own names cannot be told from misspelt parameters.
    if not namespace.get(_PASSED):
        unknown = [name for name in namespace if name not in types and _is_given(namespace, name)]
        for name in unknown:
            del namespace[name]  # so that a corrected cell passes in the same kernel
        if unknown:
            raise UserError(f"unknown parameters: {', '.join(unknown)}; known: {', '.join(types)}")
    for name, kind in types.items():
        value = namespace[name]
        if isinstance(value, str) and Path in kinds(kind):
            value = repository() / Path(value).expanduser()
        namespace[name] = typed(value, kind, f"parameter {name}")
    namespace[_PASSED] = True


def _is_given(namespace: MutableMapping[str, Any], name: str) -> bool:
    """Whether a name is neither Python's nor IPython's own, nor imported."""
    value = namespace[name]
    own = name.startswith("_") or name in ("In", "Out")
    return not (own or callable(value) or isinstance(value, ModuleType))


def repository() -> Path:
    """The checkout: the one that the notebook runs in, else the one that the package lies in.

    In this order because several checkouts may share an environment, which has one package.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        if (folder / "book" / "results").is_dir():
            return folder
    raise UserError(
        f"{here} is not in the repository, which relative paths start at; run the notebook there, "
        "or give absolute paths"
    )

"""A Sphinx extension: what the API pages need beside autodoc.

It is imported by those who build the book, and so have Sphinx.
"""

import re
from dataclasses import fields, is_dataclass
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

#: Where they are.
PAGES = "book/api"

#: Classes with more settings, such as those that extend transformers' own, are shown without them.
MOST_PARAMETERS = 40

NAPOLEON: Any = Config(
    napoleon_custom_sections=[("Attributes", "params_style")], napoleon_use_rtype=False
)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("missing-reference", find_by_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_sections(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn Google's sections, such as *Args*, into fields.

    As ``sphinx.ext.napoleon`` does, but not in texts of constants and attributes. Of "Raise when
    rows change: caches are keyed by it" it takes the first half for a type.
    """
    if what not in ("data", "attribute", "property"):
        lines[:] = GoogleDocstring(lines, NAPOLEON, app, what, name, obj, options).lines()


def shorten_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: Any
) -> tuple[str, None] | None:
    """Show a class of many settings without them, and a protocol without a signature.

    A default value that is no Python, such as ``<factory>``, keeps Sphinx from reading the types,
    which then stand as they are; their modules go.
    """
    if what == "class" and is_dataclass(obj) and len(fields(obj)) > MOST_PARAMETERS:
        return "(**settings)", None
    if getattr(obj, "_is_protocol", False):
        return "", None
    if what == "class" and signature and "<" in signature:
        return re.sub(r"~[\w.]*\.", "", signature), None
    return None


def find_by_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Find what a docstring names without its module, such as an error under *Raises*.

    What it names beside, such as types of torch, has no page here, and stands without a link. Other
    pages link only what there is.
    """
    if node.get("refdomain") != "py" or not node["refdoc"].startswith(PAGES):
        return None
    ending = f".{node['reftarget'].lstrip('.')}"
    found = [name for name in env.domains["py"].objects if name.endswith(ending)]
    if len(found) != 1:
        return contnode
    return env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], found[0], node, contnode
    )

"""The API pages: what docstrings become, and that chapters can link what they need."""

import re
from dataclasses import make_dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import pytest

from posttrain.notebooks import api_pages

BOOK = Path(__file__).parents[2] / "book"
MODULES = re.findall(
    r"automodule:: (\S+)",
    "\n".join(path.read_text() for path in [BOOK / "api.md", *(BOOK / "api").glob("*.md")]),
)


def read(what, *lines):
    lines = [*lines]
    api_pages.read_sections(None, what, "name", None, None, lines)
    return lines


def test_sections_of_functions_are_read_and_texts_of_constants_left():
    assert read("function", "Add.", "", "Raises:", "    UserError: No.") == [
        "Add.", "", ":raises UserError: No.", "",
    ]  # fmt: skip
    assert read("class", "Two.", "", "Attributes:", "    a: One.") == [
        "Two.", "", ":Attributes: **a** -- One.", "",
    ]  # fmt: skip
    text = "Raise when rows change: caches are keyed by it."
    assert read("data", text) == [text]


def test_classes_of_many_settings_are_shown_without_them():
    few = make_dataclass("Few", ["one"])
    many = make_dataclass("Many", [f"s{n}" for n in range(api_pages.MOST_PARAMETERS + 1)])
    assert [
        api_pages.shorten_signature(None, "class", "name", kind, None, "(…)", None)
        for kind in (few, many, Protocol, int)
    ] == [None, ("(**settings)", None), ("", None), None]


def test_types_lose_their_modules_where_a_default_is_no_python():
    def shown(signature):
        return api_pages.shorten_signature(None, "class", "name", int, None, signature, None)

    assert shown("(a: ~typing.Any = <factory>)") == ("(a: Any = <factory>)", None)
    assert shown("(a: ~typing.Any = 1)") is None


@pytest.mark.parametrize(
    ("page", "target", "found"),
    [
        ("book/api/rows", "UserError", "posttrain.errors.UserError"),
        ("book/api/rows", ".losses.ranking_loss", "posttrain.training.losses.ranking_loss"),
        ("book/api/rows", "torch.Tensor", "text"),
        ("book/chapters/02", "ranking_loss", None),
    ],
)
def test_a_name_without_its_module_is_found_on_these_pages_only(page, target, found):
    names = ["posttrain.errors.UserError", "posttrain.training.losses.ranking_loss"]
    domain = SimpleNamespace(objects=names, resolve_xref=lambda *given: given[4])
    env = SimpleNamespace(domains={"py": domain})
    node = {"refdomain": "py", "reftarget": target, "refdoc": page, "reftype": "func"}
    assert api_pages.find_by_name(SimpleNamespace(builder=None), env, node, "text") == found


def test_every_module_shown_is_there_once_and_says_what_it_is_for():
    assert len(MODULES) == len({*MODULES}) > 40
    assert all(import_module(name).__doc__ for name in MODULES)

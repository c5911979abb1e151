"""How to cite the book: one citation, in CITATION.cff, in BibTeX and in the book's settings."""

import re
import tomllib
from pathlib import Path

import yaml
from pybtex.database import parse_string

ROOT = Path(__file__).parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
BOOK = CITATION["preferred-citation"]


def test_bibtex_says_what_the_citation_file_says():
    page = (ROOT / "book" / "cite.md").read_text(encoding="utf-8")
    (entry,) = parse_string(
        re.search(r"```bibtex\n(.*?)```", page, re.DOTALL)[1], "bibtex"
    ).entries.values()
    assert entry.fields["title"] == BOOK["title"]
    names = [str(author).strip("{}") for author in entry.persons["author"]]
    assert names == [author["name"] for author in BOOK["authors"]]
    assert entry.fields["year"] == str(BOOK["year"])
    assert f"version {BOOK['version']}" in entry.fields["note"]


def test_the_book_and_the_package_have_that_title_and_version():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert settings["title"] == BOOK["title"]
    assert [settings["author"]] == [author["name"] for author in BOOK["authors"]]
    assert settings["copyright"] == str(BOOK["year"])
    assert project["version"] == CITATION["version"] == BOOK["version"]

"""What notebooks cite and link is named in words: JupyterLab knows only its own page's labels."""

import re
from pathlib import Path

import nbformat
import pytest
from pybtex.database import parse_file
from pybtex.richtext import Text

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WORKS = parse_file(str(ROOT / "book" / "references.bib"), bib_format="bibtex").entries


def prose(path: Path) -> str:
    """All text of a notebook's or a book's page."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def name(work: str) -> tuple[str, str]:
    """Authors, as the book shows them, and year."""
    authors = WORKS[work].persons["author"]
    first, *rest = (
        str(Text.from_latex(" ".join(author.prelast_names + author.last_names)))
        for author in authors
    )
    if len(rest) == 1 and rest != ["others"]:
        return f"{first} and {rest[0]}", WORKS[work].fields["year"]
    return f"{first} et al." if rest else first, WORKS[work].fields["year"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_citations_have_author_and_year(path):
    for kind, content in re.findall(r"\{cite(\S*?)\}`(.*?)`", prose(path), re.DOTALL):
        text, _, work = content.removesuffix(">").rpartition(" <")
        authors, year = name(work)
        expected = {":t": f"{authors} ({year})", ":p": f"{authors} {year}"}
        assert text == expected[kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_have_the_title_of_their_page(path):
    text = prose(path)
    for title, target in re.findall(r"\[([^][]*)\]\((?!https:)(\S+?)\)", text):
        page = ROOT / target[1:] if target.startswith("/") else path.parent / target
        assert re.search(r"^# (.+)$", prose(page), re.MULTILINE)[1] == title
    assert "{doc}" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_equations_of_other_pages_are_named(path):
    text = prose(path)
    own = set(re.findall(r"^:label: (\S+)$", text, re.MULTILINE))
    for content in re.findall(r"\{eq\}`(.*?)`", text, re.DOTALL):
        assert content in own or re.fullmatch(r"[^<]+ <\S+>", content)

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
    """All text of a notebook's or a book's page, that which cells print in Markdown included."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    texts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        elif cell.cell_type == "code":
            printed = re.findall(r'Markdown\(\s*[rf]*"""(.*?)"""', cell.source, re.DOTALL)
            texts += [text.replace("{{", "{").replace("}}", "}") for text in printed]
    return "\n".join(texts)


def cited(text: str) -> set[str]:
    """The keys of all works that a text cites, as MyST or as reStructuredText has it.

    >>> sorted(cited("{cite:t}`A (2001) <a>`, {cite:p}`b,c`, :cite:`d`"))
    ['a', 'b', 'c', 'd']
    """
    contents = re.findall(r"[{:]cite[:\w]*[}:]`([^`]*)`", text)
    return {
        key.strip()
        for content in contents
        for key in re.sub(r"^.*<(.*)>$", r"\1", content, flags=re.DOTALL).split(",")
    }


def test_every_work_of_the_bibliography_is_cited():
    pages = [path for path in (ROOT / "book").rglob("*.md") if "chapters" not in path.parts]
    code = (ROOT / "src").rglob("*.py")
    keys = set().union(*(cited(prose(path)) for path in [*NOTEBOOKS, *pages, *code]))
    assert {*WORKS} <= keys


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
    text = " ".join(prose(path).split())
    for kind, content in re.findall(r"\{cite(\S*?)\}`(.*?)`", text):
        words, _, work = content.removesuffix(">").rpartition(" <")
        authors, year = name(work)
        expected = {":t": f"{authors} ({year})", ":p": f"{authors} {year}"}
        assert words == expected[kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_have_the_title_of_their_page(path):
    text = " ".join(prose(path).split())
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

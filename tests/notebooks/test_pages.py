"""Chapters are short, answer first and show a figure; code and tables come after."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
CHAPTERS = [
    path
    for path in sorted(FOLDER.glob("[0-9]*.ipynb"))
    if not path.stem.endswith("_tables") and not path.stem.startswith("99")
]
#: Half of the 25,500 words that chapters 00 to 04 once had.
WORDS = 12_750
PARTS = ["What to do", "Limits", "Exercises"]


class Words(HTMLParser):
    """The words of HTML, without style sheets."""

    def __init__(self):
        super().__init__()
        self.found, self.tag = [], ""

    def handle_starttag(self, tag, attrs):
        self.tag = tag

    def handle_endtag(self, tag):
        self.tag = ""

    def handle_data(self, data):
        if self.tag != "style":
            self.found += data.split()


def tags(cell):
    return cell.metadata.get("tags", [])


def shown(cell):
    """What a cell says in the book, without its code: text, tables, captions."""
    if cell.cell_type == "markdown":
        return cell.source
    if "remove-output" in tags(cell) or "remove-cell" in tags(cell):
        return ""
    texts = [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")]
    for output in cell.outputs:
        data = output.get("data", {})
        html = Words()
        html.feed(data.get("text/html", ""))
        plain = "" if "image/png" in data else data.get("text/plain", "")
        texts.append(
            data.get("text/markdown") or " ".join(html.found) or output.get("text", "") or plain
        )
    return "\n".join(texts)


def words(cells):
    """How many words cells show; what holds no letter and no digit is a mark."""
    return sum(len(re.findall(r"\S*\w\S*", shown(cell))) for cell in cells)


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def opening(cells):
    """The cells above the first heading below the title."""
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown" and re.search("^## ", cell.source, re.MULTILINE):
            return cells[:number]
    raise AssertionError("a page has parts")


def test_opens_with_a_question_a_short_answer_and_a_figure(cells):
    cells = opening(cells)
    visible = [cell for cell in cells if shown(cell).strip() or has_figure(cell)]
    title, answer, figure = visible
    assert re.search("^# .*", title.source, re.MULTILINE)
    assert "?" in title.source
    assert "answer" in tags(answer)
    text = re.sub(r"Llama (2|3)('s)?", "Llama", shown(answer))
    assert len(text.split()) <= 60
    assert len(re.findall(r"\d[\d.,]*", text)) <= 3
    assert has_figure(figure)


def test_no_code_before_the_first_part(cells):
    for cell in opening(cells):
        assert cell.cell_type == "markdown" or "remove-input" in tags(cell)


def has_figure(cell):
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_figures_have_captions_names_and_words_for_the_blind(cells):
    for cell in filter(has_figure, cells):
        about = cell.metadata["mystnb"]
        assert about["figure"]["caption"]
        assert about["figure"]["name"].startswith("fig-")
        assert len(about["image"]["alt"]) > 20


def test_ends_with_what_to_do_limits_and_exercises_with_solutions(cells):
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = re.findall("^## (.*)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in PARTS] == PARTS
    exercises = text.partition("## Exercises")[2]
    count = len(re.findall(r"^\d+\. ", exercises, re.MULTILINE))
    assert count
    assert exercises.count("{dropdown}") == count


def test_the_first_five_chapters_have_half_the_words_that_they_once_had():
    pages = sorted(FOLDER.glob("0[0-4]_*.ipynb"))
    counts = {
        path.stem: words(nbformat.read(path, as_version=4).cells)
        for path in pages
        if path in CHAPTERS
    }
    assert sum(counts.values()) <= WORDS, counts


def test_the_first_page_is_read_in_two_minutes():
    cells = nbformat.read(FOLDER / "index.ipynb", as_version=4).cells
    assert words(cells) <= 500
    assert "answer" in tags([cell for cell in cells if shown(cell).strip()][1])
    assert all("remove-input" in tags(cell) for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_sentence_is_lost_as_a_comment(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not re.search(r"^ {0,3}%", shown(cell), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_jupyterlab_folds_the_code_that_the_book_hides(path):
    for cell in nbformat.read(path, as_version=4).cells:
        hidden = "remove-input" in tags(cell) and "parameters" not in tags(cell)
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == hidden

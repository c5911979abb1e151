"""Broken links of built pages, found without a network."""

import pytest

from posttrain.notebooks.links import broken, main


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "a b.png").touch()
    (tmp_path / "_static" / "part.html").write_text('<a href="{{ nowhere }}">')
    (tmp_path / "index.html").write_text('<a name="old">x</a> <h1 id="new">y</h1>')
    return tmp_path


def page(folder, text):
    (folder / "book" / "one.html").write_text(text, encoding="utf-8")


def test_links_that_lead_somewhere(folder, capsys):
    targets = (
        "../index.html", "../index.html#old", "../index.html#new", "../index.html?q=1#", "#here",
        "#", "#top", "#sch%C3%B6n", "https://example.org/x", "//example.org", "mailto:a@b.org",
    )  # fmt: skip
    links = " ".join(f'<a href="{target}">' for target in targets)
    page(folder, f'{links} <p id="here"><p id="schön"><img src="../_static/a%20b.png">')
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 0 broken links\n"


def test_a_folder_without_pages_is_no_success(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "holds no pages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ('<a href="two.html">', "two.html: no such file"),
        ('<a href="..">', "..: no such file"),
        ('<img src="../_static/b.png">', "../_static/b.png: no such file"),
        ('<link href="../a.css">', "../a.css: no such file"),
        ('<a href="../index.html#gone">', "../index.html#gone: no such anchor"),
        ('<a href="#gone">', "#gone: no such anchor"),
    ],
)
def test_links_that_lead_nowhere(folder, capsys, tag, problem):
    page(folder, tag)
    assert [*broken(folder)] == [f"book/one.html: {problem}"]
    assert main([str(folder)]) == 1
    assert capsys.readouterr().out.endswith("1 broken links\n")

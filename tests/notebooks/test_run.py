"""Running all notebooks: what is checked first, what is executed, what is kept."""

import os
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from posttrain.errors import UserError
from posttrain.notebooks.run import NotebookError, main, run_all

SHOW = "pairs, seeds"


def make(path, *sources):
    """Write a notebook with a parameters cell and the given code cells."""
    parameters = v4.new_code_cell("pairs = 10\nseeds = [0, 1]", metadata={"tags": ["parameters"]})
    path.parent.mkdir(exist_ok=True)
    cells = [parameters, *map(v4.new_code_cell, sources)]
    kernel = {"name": "python3", "language": "python", "display_name": "Python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def outputs(path):
    """The text of every result in a notebook."""
    return [
        output["data"]["text/plain"]
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("03_third.yaml", "{}", "no notebook of this name; known: 01_first"),
        ("01_first.yaml", "pair: 3", "unknown parameters: pair; known: pairs, seeds"),
        ("01_first.yaml", "[1, 2]", "must map parameters to values"),
        ("01_first.yaml", "{", "not valid YAML"),
        ("other.txt", "", "no parameter files here; known: quick"),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path, capsys, file, text, words):
    folder = make(tmp_path / "notebooks" / "01_first.ipynb", SHOW).parent
    params = write(tmp_path / "params" / "quick" / file, text).parent
    with pytest.raises(UserError, match=words):
        run_all(folder, tmp_path / "out", params)
    assert not (tmp_path / "out").exists()
    arguments = ["--notebooks", folder, "--output", tmp_path / "out", "--params", params]
    assert main([*map(str, arguments)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_copies_with_parameters_until_one_fails(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = make(Path("notebooks") / "01_same.ipynb", SHOW).parent
    make(folder / "02_changed.ipynb", SHOW)
    make(folder / "03_fails.ipynb", "rate = 1 / 0 # here")
    sources = {path: path.read_bytes() for path in folder.glob("*.ipynb")}
    write(Path("quick") / "01_same.yaml", "seeds: [0, 1]")
    write(Path("quick") / "02_changed.yaml", "pairs: 20\nseeds: [0, 1]")

    with pytest.raises(NotebookError) as caught:
        run_all(folder, Path("out"), Path("quick"))

    for words in ("03_fails.ipynb", "In [2]", "rate = 1 / 0 # here", "ZeroDivisionError"):
        assert words in str(caught.value)
    assert "\x1b" not in str(caught.value), "no colour codes"
    assert sorted(os.listdir("out")) == ["01_same.ipynb", "02_changed.ipynb"]
    assert outputs(Path("out/01_same.ipynb")) == ["(10, [0, 1])"]
    assert outputs(Path("out/02_changed.ipynb")) == ["(20, [0, 1])"]
    assert {path: path.read_bytes() for path in sources} == sources
    printed = capfd.readouterr()
    assert [line.split(" …")[0] for line in printed.out.splitlines()] == [
        *map(str, sorted(sources))
    ]
    assert printed.err == "", "neither progress bars nor warnings"
    same, changed = (
        nbformat.read(f"out/{name}.ipynb", as_version=4) for name in ("01_same", "02_changed")
    )
    assert [cell.execution_count for cell in same.cells] == [1, 2], "no cell added, all counted"
    assert [dict(cell.metadata) for cell in same.cells] == [{"tags": ["parameters"]}, {}]
    assert set(same.metadata) == {"kernelspec", "language_info"}
    assert changed.cells[1].source == "# Parameters\npairs = 20\n"


def test_in_place_gives_the_same_bytes_every_time(tmp_path):
    slowly = "import time\nfor _ in range(3):\n    print(1, flush=True)\n    time.sleep(0.4)"
    folder = make(tmp_path / "notebooks" / "01_one.ipynb", SHOW, slowly).parent
    run_all(folder, folder)
    (printed,) = nbformat.read(folder / "01_one.ipynb", as_version=4).cells[2].outputs
    assert printed.text == "1\n1\n1\n", "in one piece"
    once = (folder / "01_one.ipynb").read_bytes()
    run_all(folder, folder)
    assert (folder / "01_one.ipynb").read_bytes() == once
    assert outputs(folder / "01_one.ipynb") == ["(10, [0, 1])"]


def test_a_page_says_how_long_copies_took_but_not_in_place(tmp_path):
    folder = make(tmp_path / "notebooks" / "01_one.ipynb", SHOW).parent
    params = write(tmp_path / "small" / "01_one.yaml", "seeds: [0]").parent
    for output in (folder, tmp_path / "out"):
        given = ["--notebooks", folder, "--output", output, "--params", params]
        assert main([*map(str, given)]) == 0
    assert [*folder.iterdir()] == [folder / "01_one.ipynb"]
    page = (tmp_path / "out" / "status.md").read_text(encoding="utf-8")
    assert "These 1 notebooks" in page
    assert "parameters of `small`" in page


def test_dead_kernel(tmp_path):
    folder = make(tmp_path / "notebooks" / "01_dies.ipynb", "import os; os._exit(9)").parent
    with pytest.raises(NotebookError, match=r"01_dies\.ipynb failed: its kernel died"):
        run_all(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()

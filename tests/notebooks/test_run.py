"""Running notebooks with parameter files: what is checked first, what is executed, what is kept."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode, v4

from posttrain.notebooks import run
from posttrain.notebooks.parameters import read_params
from posttrain.notebooks.run import NotebookError, main, refresh, run_all

PARAMETERS = "pairs = 10\nseeds = (0, 1)"
SHOW = "import os\npairs, list(seeds), os.path.basename(os.getcwd())"


def make(path: Path, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    """Write a notebook with a parameters cell (unless None) and the given code cells."""
    cells = [v4.new_code_cell(source) for source in sources]
    if parameters is not None:
        cells.insert(0, v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    path.parent.mkdir(exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def outputs(path: Path) -> list[str]:
    """The text of every result in a notebook."""
    return [
        output["data"]["text/plain"]
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two notebooks that nothing in the test executes."""
    make(tmp_path / "notebooks" / "01_first.ipynb", SHOW)
    make(tmp_path / "notebooks" / "02_second.ipynb", SHOW, parameters="source = 'simulator'")
    return tmp_path / "notebooks"


class TestRefusals:
    """Every mistake is found before anything runs, and the message names it."""

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("03_third: {}", ["03_third", "01_first, 02_second"]),
            ("01_first: {pair: 3}", ["01_first", "'pair'", "pairs, seeds"]),
            ("01_first: [1, 2]", ["01_first", "mapping"]),
            ("- 01_first", ["top level", "list"]),
            ("requires_data: perhaps", ["requires_data", "'perhaps'"]),
            ("01_first: {", ["not valid YAML"]),
        ],
    )
    def test_parameter_file(self, folder: Path, text: str, named: list[str]) -> None:
        params = write(folder / "quick.yaml", text)
        with pytest.raises(ValueError, match=r"quick\.yaml") as caught:
            run_all(folder, params, folder / "out")
        for words in named:
            assert words in str(caught.value)
        assert not (folder / "out").exists()

    def test_missing_parameter_file_lists_those_there_are(self, folder: Path) -> None:
        write(folder / "quick.yaml", "")
        with pytest.raises(ValueError, match=r"fast\.yaml.*known: quick\.yaml"):
            run_all(folder, folder / "fast.yaml", folder / "out")

    @pytest.mark.parametrize("parameters", [None, "pairs = count()", "import os", "pairs ="])
    def test_notebook_without_usable_parameters_cell(
        self, folder: Path, parameters: str | None
    ) -> None:
        make(folder / "03_third.ipynb", SHOW, parameters=parameters)
        with pytest.raises(ValueError, match=r"03_third\.ipynb.*'parameters'"):
            run_all(folder, write(folder / "quick.yaml", ""), folder / "out")

    def test_two_parameters_cells(self, folder: Path) -> None:
        notebook = nbformat.read(folder / "01_first.ipynb", as_version=4)
        notebook.cells[1].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, folder / "01_first.ipynb")
        with pytest.raises(ValueError, match=r"01_first\.ipynb: 2 cells"):
            run_all(folder, write(folder / "quick.yaml", ""), folder / "out")

    def test_file_that_is_no_notebook(self, folder: Path) -> None:
        write(folder / "03_third.ipynb", "no JSON")
        with pytest.raises(ValueError, match=r"03_third\.ipynb: not a notebook"):
            run_all(folder, write(folder / "quick.yaml", ""), folder / "out")

    def test_folder_without_notebooks(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no notebook"):
            run_all(tmp_path, write(tmp_path / "quick.yaml", ""), tmp_path / "out")

    @pytest.mark.parametrize(
        ("value", "problem"),
        [(None, "is not set"), ("", "is not set"), ("nowhere", "nowhere is not a folder")],
    )
    def test_required_data(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str
    ) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("POSTTRAIN_DATA", value)
        params = write(folder / "real.yaml", "requires_data: true")
        with pytest.raises(ValueError, match=f"POSTTRAIN_DATA.*{problem}.*README.md"):
            run_all(folder, params, folder / "out")
        assert not (folder / "out").exists()

    def test_refresh_with_other_values(self, folder: Path) -> None:
        params = write(folder / "real.yaml", "01_first: {pairs: 10, seeds: [0, 2]}")
        before = (folder / "01_first.ipynb").read_bytes()
        with pytest.raises(ValueError, match=r"'seeds' is \(0, 1\).*but \[0, 2\]"):
            refresh(folder, params)
        assert (folder / "01_first.ipynb").read_bytes() == before

    def test_command_line_reports_and_fails(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        missing = str(folder / "none.yaml")
        code = main(["refresh", "--params", missing, "--notebooks", str(folder)])
        assert code == 1
        assert capsys.readouterr().err.startswith(f"error: {missing}")


class TestParameterFile:
    def test_numbers_in_exponent_notation_are_numbers(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.yaml", "n: {a: 1e-3, b: -2E5, c: 1.5e3, d: 1e, e: 3, f: '1e3'}")
        expected = {"a": 1e-3, "b": -2e5, "c": 1.5e3, "d": "1e", "e": 3, "f": "1e3"}
        assert read_params(path).notebooks == {"n": expected}

    def test_empty_entries(self, tmp_path: Path) -> None:
        read = read_params(write(tmp_path / "a.yaml", "requires_data: true\nn:\n"))
        assert read == run.Params({"n": {}}, requires_data=True)
        assert read_params(write(tmp_path / "b.yaml", "")) == run.Params({})


class TestRunning:
    """These start kernels, a few seconds each."""

    def test_run_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        monkeypatch.setenv("POSTTRAIN_DATA", "data")  # relative to the caller, not the notebook
        folder = make(Path("{odd} folder") / "02_changed.ipynb", SHOW).parent
        make(folder / "01_same.ipynb", "os = __import__('os'); os.environ['POSTTRAIN_DATA']")
        text = "requires_data: true\n01_same: {seeds: [0, 1]}\n02_changed: {pairs: 20}"
        sources = {path: path.read_bytes() for path in folder.glob("*.ipynb")}

        params = str(write(Path("real.yaml"), text))
        code = main(["run", "--params", params, "--notebooks", str(folder), "--output", "out"])

        assert code == 0
        assert outputs(Path("out/01_same.ipynb")) == [repr(str(tmp_path / "data"))]
        assert outputs(Path("out/02_changed.ipynb")) == ["(20, [0, 1], '{odd} folder')"]
        same, changed = (
            nbformat.read(f"out/{name}.ipynb", as_version=4) for name in ("01_same", "02_changed")
        )
        assert len(same.cells) == 2, "no cell is added where no value changes"
        assert changed.cells[1].metadata.tags == ["injected-parameters"]
        assert "papermill" not in changed.metadata
        assert sorted(os.listdir("out")) == ["01_same.ipynb", "02_changed.ipynb"]
        assert {path: path.read_bytes() for path in sources} == sources
        assert os.environ["POSTTRAIN_DATA"] == "data"
        printed = capfd.readouterr()
        assert [line.split(" …")[0] for line in printed.out.splitlines()] == list(
            map(str, sorted(sources))
        )
        assert printed.err == "", "neither progress bars nor warnings"

    def test_failing_notebook(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = make(tmp_path / "notebooks" / "01_fails.ipynb", "rate = 1 / 0 # here").parent
        before = (folder / "01_fails.ipynb").read_bytes()
        make(folder / "02_next.ipynb", SHOW)
        params = write(tmp_path / "quick.yaml", "")

        with pytest.raises(NotebookError) as caught:
            refresh(folder, params)

        message = str(caught.value)
        for words in ("01_fails.ipynb", "In [2]", "rate = 1 / 0 # here", "ZeroDivisionError"):
            assert words in message
        assert "\x1b" not in message, "no colour codes"
        assert (folder / "01_fails.ipynb").read_bytes() == before
        assert outputs(folder / "02_next.ipynb") == []
        assert sorted(os.listdir(folder)) == ["01_fails.ipynb", "02_next.ipynb"]

    def test_refresh(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "notebooks" / "01_one.ipynb", SHOW, "print('plain')").parent
        stale = nbformat.read(folder / "01_one.ipynb", as_version=4)
        stale.cells.insert(
            1, v4.new_code_cell("pairs = 99", metadata={"tags": ["injected-parameters"]})
        )
        stale.metadata["papermill"] = {"duration": 1.0}
        nbformat.write(stale, folder / "01_one.ipynb")
        params = write(tmp_path / "quick.yaml", "01_one: {pairs: 10}")

        refresh(folder, params)

        assert outputs(folder / "01_one.ipynb") == ["(10, [0, 1], 'notebooks')"]
        notebook = nbformat.read(folder / "01_one.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
        assert [dict(cell.metadata) for cell in notebook.cells] == [
            {"tags": ["parameters"]},
            {},
            {},
        ]
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert "version" not in notebook.metadata.language_info
        once = (folder / "01_one.ipynb").read_bytes()
        refresh(folder, params)
        assert (folder / "01_one.ipynb").read_bytes() == once, "the same bytes every time"

    def test_dead_kernel(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "notebooks" / "01_dies.ipynb", "import os; os._exit(9)").parent
        with pytest.raises(NotebookError, match=r"01_dies\.ipynb failed: its kernel died"):
            run_all(folder, write(tmp_path / "quick.yaml", ""), tmp_path / "out")
        assert os.listdir(tmp_path / "out") == []


def test_differing() -> None:
    own: dict[str, Any] = {"a": (1, 2), "b": True, "c": 0.5}
    assert run.differing(own, {"a": [1, 2], "b": True, "c": 5e-1}) == {}
    assert run.differing(own, {"b": 1}) == {"b": 1}
    assert run.differing(own, {"d": None}) == {"d": None}


def test_strip_keeps_everything_else() -> None:
    notebook: NotebookNode = v4.new_notebook(
        cells=[v4.new_code_cell("1", execution_count=3, metadata={"tags": ["hide-input"]})]
    )
    notebook.cells[0].metadata["execution"] = {"iopub.status.busy": "now"}
    stripped = run.strip(notebook)
    assert stripped.cells[0].execution_count == 3
    assert stripped.cells[0].metadata == {"tags": ["hide-input"]}

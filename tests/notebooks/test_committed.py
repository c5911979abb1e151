"""The committed notebooks: executed without errors, quick parameters, checked first."""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PARAMETER_FILES = sorted((FOLDER / "params").glob("*/*.yaml"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_executed_without_a_word_on_standard_error(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for number, cell in enumerate(code, start=1):
        # Without an execution count, nbval compares nothing and passes.
        assert cell.execution_count == number, cell.source
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


def test_nothing_tells_when_and_how_it_ran(notebook):
    for part in (notebook, *notebook.cells):
        assert not {"papermill", "execution"} & set(part.metadata)
    assert not any(
        "injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells
    )


def test_own_parameters_are_the_quick_ones_and_the_next_cell_checks_them(path, notebook):
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    assert len(tagged) == 1
    own = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in ast.parse(notebook.cells[tagged[0]].source).body
    }
    file = FOLDER / "params" / "quick" / f"{path.stem}.yaml"
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == own
    *_, last = ast.parse(notebook.cells[tagged[0] + 1].source).body
    assert last.value.func.id == "check_parameters"
    assert [keyword.arg for keyword in last.value.keywords] == list(own)


def tags(cell):
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize(
    "file", PARAMETER_FILES, ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_parameter_file_names_what_papermill_finds(file):
    found = papermill.inspect_notebook(FOLDER / f"{file.stem}.ipynb")
    assert set(yaml.safe_load(file.read_text(encoding="utf-8"))) <= set(found)

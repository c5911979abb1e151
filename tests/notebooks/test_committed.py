"""The committed notebooks: executed without errors, with quick parameters, and thin."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

from posttrain.notebooks.parameters import PARAMETERS_TAG, differing, read_parameters, read_params
from posttrain.notebooks.run import INJECTED_TAG

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PARAMETER_FILES = sorted((FOLDER / "params").glob("*.yaml"))
LONGEST_FUNCTION = 5
ALLOWED_IMPORTS = {"studies", "figures", "claims", "records", "cli"}
DATA_PAGE = "00_preference_data"
DATA_PAGE_IMPORTS = ALLOWED_IMPORTS | {"sources"}


def test_there_are_notebooks_and_parameters() -> None:
    assert NOTEBOOKS, f"no notebook in {FOLDER}"
    assert FOLDER / "params" / "quick.yaml" in PARAMETER_FILES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [*problems(notebook, path.stem)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_own_parameters_are_the_quick_ones(path: Path) -> None:
    own = read_parameters(nbformat.read(path, as_version=4), path)
    quick = read_params(FOLDER / "params" / "quick.yaml").notebooks.get(path.stem, {})
    assert differing(own, quick) == {}
    assert set(own) == set(quick), "quick.yaml names every parameter"


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_parameter_file_names_what_exists(path: Path) -> None:
    known = {
        notebook.stem: set(read_parameters(nbformat.read(notebook, as_version=4), notebook))
        for notebook in NOTEBOOKS
    }
    for stem, values in read_params(path).notebooks.items():
        assert stem in known
        assert set(values) <= known[stem]


def problems(notebook: NotebookNode, stem: str) -> Iterator[str]:
    """Everything that is wrong with a committed notebook, one line each."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [tag for cell in code for tag in cell.metadata.get("tags", [])]
    if tags.count(PARAMETERS_TAG) != 1:
        yield f"{tags.count(PARAMETERS_TAG)} cells tagged {PARAMETERS_TAG}"
    if INJECTED_TAG in tags:
        yield "a cell added by papermill"
    if "papermill" in notebook.metadata:
        yield "papermill metadata of the notebook"
    for number, cell in enumerate(notebook.cells, start=1):
        for key in ("papermill", "execution"):
            if key in cell.metadata:
                yield f"cell {number}: {key} metadata"
    for number, cell in enumerate(code, start=1):
        where = f"code cell {number}"
        # Without an execution count, nbval compares nothing and passes.
        if cell.source.strip() and cell.execution_count is None:
            yield f"{where}: not executed"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{where}: an error"
            if output.get("name") == "stderr":
                yield f"{where}: text on standard error"
        allowed = DATA_PAGE_IMPORTS if stem == DATA_PAGE else ALLOWED_IMPORTS
        yield from (f"{where}: {problem}" for problem in code_problems(cell.source, allowed))


def code_problems(source: str, allowed: set[str]) -> Iterator[str]:
    """Long functions, and imports of package modules that notebooks leave to studies."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        yield "not plain Python"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"function {node.name} has {length} lines"
        for module in imported_modules(node):
            package, _, inside = module.partition(".")
            if package == "posttrain" and inside.split(".")[0] not in allowed:
                yield f"imports {module}"


def imported_modules(node: ast.AST) -> list[str]:
    """Dotted names that a statement imports; ``from a import b`` gives ``a.b``."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), names=names):
            return [f"{module}.{alias.name}" for alias in names]
    return []


def good() -> NotebookNode:
    """A notebook with which nothing is wrong."""
    sources = (
        "sources = ['simulator']",
        "from posttrain import figures, records\nfrom posttrain.studies import margin",
        "def short(x):\n    y = x\n    z = y\n    w = z\n    return w",
    )
    cells = [
        v4.new_code_cell(source, execution_count=count, outputs=[v4.new_output("stream", text="x")])
        for count, source in enumerate(sources, start=1)
    ]
    cells[0].metadata["tags"] = [PARAMETERS_TAG]
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *cells, v4.new_code_cell("")])


def test_nothing_is_wrong_with_a_good_notebook() -> None:
    assert [*problems(good(), "01_margin_ablation")] == []


def _add_line(notebook: NotebookNode) -> None:
    notebook.cells[3].source += "\n\n\n    # longer"
    notebook.cells[3].source = notebook.cells[3].source.replace("return w", "v = w\n    return v")


FAULTS: dict[str, Callable[[NotebookNode], object]] = {
    "0 cells tagged parameters": lambda n: n.cells[1].metadata.clear(),
    "2 cells tagged parameters": lambda n: n.cells[2].metadata.update(tags=[PARAMETERS_TAG]),
    "a cell added by papermill": lambda n: n.cells[2].metadata.update(tags=[INJECTED_TAG]),
    "papermill metadata of the notebook": lambda n: n.metadata.update(papermill={}),
    "cell 1: papermill metadata": lambda n: n.cells[0].metadata.update(papermill={}),
    "cell 2: execution metadata": lambda n: n.cells[1].metadata.update(execution={}),
    "code cell 2: not executed": lambda n: n.cells[2].update(execution_count=None),
    "code cell 3: an error": lambda n: n.cells[3].outputs.append(v4.new_output("error")),
    "code cell 3: text on standard error": lambda n: n.cells[3].outputs.append(
        v4.new_output("stream", name="stderr", text="slow")
    ),
    "code cell 4: not plain Python": lambda n: n.cells[4].update(source="!ls", execution_count=4),
    "code cell 3: function short has 6 lines": _add_line,
    "code cell 2: imports posttrain.trainer.RankingTrainer": lambda n: n.cells[2].update(
        source="from posttrain.trainer import RankingTrainer"
    ),
    "code cell 2: imports posttrain.losses": lambda n: n.cells[2].update(
        source="from posttrain import losses"
    ),
    "code cell 2: imports posttrain.sources.simulator": lambda n: n.cells[2].update(
        source="import posttrain.sources.simulator"
    ),
    "code cell 2: imports posttrain": lambda n: n.cells[2].update(source="import posttrain"),
}


@pytest.mark.parametrize("problem", FAULTS)
def test_fault_is_found(problem: str) -> None:
    notebook = good()
    FAULTS[problem](notebook)
    assert [*problems(notebook, "01_margin_ablation")] == [problem]


def test_data_page_may_import_sources() -> None:
    notebook = good()
    notebook.cells[2].source = "from posttrain.sources import simulator"
    assert [*problems(notebook, DATA_PAGE)] == []

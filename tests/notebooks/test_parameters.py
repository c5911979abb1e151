"""Checking the parameters of a notebook, as its second cell does."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.notebooks import parameters
from posttrain.notebooks.parameters import check_parameters, repository

TYPES = {"runs": dict, "seeds": int | None, "sizes": list[int] | None, "rates": list[float]}


def given(**values):
    """Names in a kernel's first cells: IPython's, what was imported, and parameters."""
    own = {"In": [""], "Out": {}, "_ih": [""], "exit": print, "math": math, "Path": Path}
    return own | {"runs": {}, "seeds": None, "sizes": None, "rates": [1e-3]} | values


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"sizes": "[100, 400]"}, "sizes", [100, 400]),
        ({"rates": "[1e-3, 3]"}, "rates", [1e-3, 3]),
        ({"rates": ["1e-3"]}, "rates", [1e-3]),
        ({"runs": "{simulator: {seeds: 2}}"}, "runs", {"simulator": {"seeds": 2}}),
        ({"seeds": 3}, "seeds", 3),
        ({}, "seeds", None),
    ],
)
def test_text_is_read_as_yaml(values, name, expected):
    namespace = given(**values)
    check_parameters(namespace, **TYPES)
    assert namespace[name] == expected


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"seed": 3, "size": 1},
            "unknown parameters: seed, size; known: runs, seeds, sizes, rates",
        ),
        ({"seeds": "two"}, "parameter seeds must be a whole number or null, not 'two'"),
        ({"seeds": True}, "parameter seeds must be a whole number or null, not True"),
        ({"seeds": 1.5}, "parameter seeds must be a whole number or null, not 1.5"),
        ({"sizes": 100}, r"parameter sizes must be a list \(of a whole number each\) or null"),
        ({"sizes": "[1, x]"}, r"not '\[1, x\]'"),
        ({"sizes": "[1,"}, r"not '\[1,'"),
        ({"rates": None}, r"parameter rates must be a list \(of a number each\), not None"),
        ({"runs": "simulator"}, "parameter runs must be a mapping, not 'simulator'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence):
        check_parameters(given(**values), **TYPES)


def test_in_a_notebook_that_has_gone_on_its_own_names_are_not_unknown():
    namespace = given()
    check_parameters(namespace, **TYPES)
    namespace |= {"table": [1], "seeds": "two"}
    with pytest.raises(UserError, match="seeds"):
        check_parameters(namespace, **TYPES)
    check_parameters(namespace | {"seeds": 2}, **TYPES)


def test_a_corrected_cell_passes_in_the_same_kernel():
    namespace = given(seed=2)
    with pytest.raises(UserError, match="seed"):
        check_parameters(namespace, **TYPES)
    namespace["seeds"] = 2  # the corrected cell
    check_parameters(namespace, **TYPES)


class TestPaths:
    @pytest.fixture
    def checkout(self, tmp_path):
        (tmp_path / "book" / "results").mkdir(parents=True)
        (tmp_path / "notebooks").mkdir()
        return tmp_path

    @pytest.mark.parametrize("folder", [".", "notebooks"])
    def test_start_at_the_repository(self, checkout, monkeypatch, folder):
        monkeypatch.chdir(checkout / folder)
        absolute = str(checkout / "else")
        namespace = {"results": "book/results", "cache_dir": None, "other": absolute}
        for _ in range(2):  # a cell may be run again
            check_parameters(namespace, results=Path, cache_dir=Path | None, other=Path)
            assert namespace["results"] == checkout / "book" / "results"
            assert namespace["cache_dir"] is None
            assert namespace["other"] == checkout / "else"

    def test_elsewhere_the_package_tells_which(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert repository() == Path(__file__).parents[2]

    def test_without_a_repository(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(parameters, "__file__", str(tmp_path / "parameters.py"))
        with pytest.raises(UserError, match="is not in the repository"):
            repository()


def test_nothing_slow_is_imported():
    code = "import sys, posttrain.notebooks.parameters; print({'torch', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

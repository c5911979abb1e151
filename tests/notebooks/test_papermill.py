"""Plain papermill on the notebooks, as README.md and book/reproduce.md say it."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from posttrain.evidence import records

ROOT = Path(__file__).parents[2]
MARGIN = "notebooks/01_margin_ablation.ipynb"
SCOREBOARD = "notebooks/99_scoreboard.ipynb"


def papermill(*arguments, folder=ROOT):
    """Run the command line, in a process of its own."""
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def documented(page):
    """The options of each command of a page, without the virtual environment's folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^(?:\.venv/bin/)?papermill (\S+) mine\.ipynb (.+)$", text, re.MULTILINE)
    assert {notebook for notebook, _ in found} == {MARGIN}
    return [shlex.split(options) for _, options in found]


def undrawn(notebook, folder):
    """A copy of a notebook without its figures, which take long."""
    found = nbformat.read(ROOT / notebook, as_version=4)
    found.cells = [cell for cell in found.cells if "plt.show()" not in cell.source]
    nbformat.write(found, folder / "undrawn.ipynb")
    return folder / "undrawn.ipynb"


def test_the_documented_options(tmp_path):
    options = documented("book/reproduce.md")
    (first,) = documented("README.md")
    assert first == options[0]
    assert {option[0] for option in options} == {"-p", "-f", "-y"}
    results = tmp_path / "results"
    shutil.copytree(ROOT / "book" / "results", results)
    every = [word for command in options for word in command]
    # The same with fewer pairs.
    assert sum("[100, 400]" in word for word in every) == 2
    every = [word.replace("[100, 400]", "[10, 30]") for word in every]
    # Each way of giving values sets something that no other does.
    own = tmp_path / "own.yaml"
    own.write_text("profile: mine\ngroups: 120\n")
    small = ["-f", own, "-y", "test_size: 20"]
    small += shlex.split('-p learning_rates "[3e-3]" -p save True')

    # One run of them all, since a notebook takes most of its time to start.
    notebook = undrawn(MARGIN, tmp_path)
    done = papermill(notebook, tmp_path / "mine.ipynb", *every, *small, "-p", "results", results)

    assert done.returncode == 0, done.stderr
    record = records.load(results / "margin-simulator.json")
    settings = record.settings
    assert (record.profile, settings["groups"], settings["test_size"]) == ("mine", 120, 20)
    assert (settings["seeds"], settings["sizes"]) == (2, [10, 30])
    assert settings["learning_rates"] == [3e-3]


def test_from_the_folder_of_notebooks_with_another_to_run_in(tmp_path):
    options = ["-f", "params/quick/99_scoreboard.yaml", "--cwd", "params"]
    notebook = undrawn(SCOREBOARD, tmp_path)
    done = papermill(notebook, tmp_path / "mine.ipynb", *options, folder=ROOT / "notebooks")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-p", "seed", "2"], "unknown parameters: seed; known: profile, runs, sizes, seeds"),
        (["-y", "sizes: 100"], "parameter sizes must be a list (of a whole number each) or null"),
    ],
)
def test_a_mistake_stops_it_before_anything_is_computed(tmp_path, options, sentence):
    done = papermill(MARGIN, tmp_path / "mine.ipynb", *options)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith(f"UserError: {sentence}")
    cells = nbformat.read(tmp_path / "mine.ipynb", as_version=4).cells
    *_, last = [cell.source for cell in cells if cell.get("execution_count")]
    assert "check_parameters(" in last

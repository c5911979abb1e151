"""The README: its commands work, with those of a page that goes on; its numbers are the book's."""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from command_line import run

from posttrain.models import embedded

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "book" / "training.md").read_text(encoding="utf-8")
ACTIVATE = ". .venv/bin/activate"


def commands(text):
    """Those of shell blocks that hold nothing else, as words."""
    found = []
    for block in re.findall(r"^```shell\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        lines = block.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines if line.strip()]
        words = [command for command in words if command != ACTIVATE.split()]
        if words and all(command[0] == "posttrain" for command in words):
            found.append(words)
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_the_commands_work_from_top_to_bottom(tmp_path, monkeypatch, tiny_checkpoint, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))
    # Smaller than that of users, who wait for it once.
    monkeypatch.setattr(embedded, "tiny", lambda: tiny_checkpoint)
    (first,), (two_models,) = commands(README), commands(TRAINING)
    for command in [*first, *two_models]:
        assert run(*command[1:]) == 0, command
    chosen = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert len(chosen) == len(Path("best.jsonl").read_text().splitlines()) == 20
    assert all(
        one["score"] == pytest.approx(one["helpfulness"] + 2 * one["safety"]) for one in chosen
    )
    assert {"mean", "preferred", "finetuned", "rewards"} <= {one.name for one in tmp_path.iterdir()}


def numbers(text):
    return set(re.findall(r"\d[\d.,]*\d|\d", re.sub(r"\(.*?ipynb\)", "", text)))


def test_numbers_of_the_results_are_those_of_the_book():
    table = re.search(r"^\|---.*\n((\|.*\n)+)", README, re.MULTILINE)[1]
    pages = [
        nbformat.read(ROOT / "notebooks" / name, as_version=4)
        for name in ("index.ipynb", "decisions.ipynb")
    ]
    outputs = [
        output for page in pages for cell in page.cells for output in cell.get("outputs", [])
    ]
    said = "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert table.count("\n") == 5
    assert numbers(table) <= numbers(said)

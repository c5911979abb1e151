"""Examples of help pages run as pasted, one after the other in one folder."""

import json
import re
import shlex
from pathlib import Path

from command_line import refused, run

from posttrain.commands.pages import NEEDS, PAGES
from posttrain.models import embedded


def examples(capsys):
    """What help shows of a command line's length, in the order of pages, each once."""
    lines = {}
    for command in PAGES:
        assert refused(*command.split(), "--help") == 0
        text = re.sub(r" \\\n +", " ", capsys.readouterr().out)
        found = re.findall(r"^  (posttrain .*)", text, flags=re.MULTILINE)
        assert found, f"{command} has no example"
        lines |= dict.fromkeys(found)
    return [*lines]


def test_examples_run_in_their_order(tmp_path, monkeypatch, tiny_checkpoint, cache, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))
    # Smaller than that of users, who wait for it once.
    monkeypatch.setattr(embedded, "tiny", lambda: tiny_checkpoint)
    for example in examples(capsys):
        if NEEDS not in example:
            program, *arguments = shlex.split(example)
            assert (program, run(*arguments)) == ("posttrain", 0), example
    # A model that has learned something, and whose scores choose.
    report = json.loads(Path("evaluation.json").read_text())
    assert report["accuracy"]["low"] > 0.5
    assert len(Path("best.jsonl").read_text().splitlines()) == 20

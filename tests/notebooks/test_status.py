"""The page of what was run: notebooks with their seconds, records with their machines."""

import platform

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from posttrain.evidence import records
from posttrain.evidence.records import Record
from posttrain.notebooks import status


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(status, "CPUINFO", tmp_path / "cpuinfo")
    status.CPUINFO.write_text("processor\t: 0\nmodel name\t: Fast 9\nmodel name\t: Fast 9\n")
    for study, seconds in (("margin", 5400.0), ("rows", 1800.4)):
        where = {"device": "CPU", "threads": 2, "seconds": seconds, "commit": "abc",
                 "started": "2026-11-27 07:40 UTC"}  # fmt: skip
        table = {"one": pd.DataFrame({"a": [1.0]})}
        records.save(Record(study, "here", "real", {}, {}, table, where), tmp_path / "results")
    paths = [tmp_path / "01_one.ipynb", tmp_path / "02_two.ipynb"]
    for path, text in zip(
        paths, ("(one)=\n# What is one?\n\nA question.", "No title."), strict=True
    ):
        nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell(text)]), path)
    seconds = dict(zip(paths, (59.6, 120.0), strict=True))
    status.write(tmp_path / "out" / "status.md", seconds, "quick", tmp_path / "results")
    return (tmp_path / "out" / "status.md").read_text(encoding="utf-8")


def test_notebooks_by_title_with_their_seconds(page):
    assert "| [What is one?](01_one.ipynb) | 60 |\n| [02_two](02_two.ipynb) | 120 |\n" in page
    assert "parameters of `quick`" in page
    assert "in 3 minutes" in page


def test_the_machine(page):
    assert f"Fast 9 with {status.os.cpu_count()} cores, of which a notebook uses 1" in page
    assert f"Python {platform.python_version()}" in page


def test_records_with_device_time_commit_and_date(page):
    assert "| margin-here | CPU | 2 | 5,400 | `abc` | 2026-11-27 |\n| rows-here |" in page
    assert "these 2 records of slower runs,\nof 2 hours" in page

"""Run records: what is written is what is read, and a failure destroys nothing."""

import json
import math
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from posttrain.evidence import records
from posttrain.evidence.records import Record, environment, load, load_all, save


@pytest.fixture
def record():
    return Record(
        study="margin",
        source="toy",
        profile="quick",
        settings={"sizes": [10, 20], "rate": 0.003, "pooling": "mean"},
        data={"groups": 7, "fingerprint": "ab12"},
        tables={
            "gains": pd.DataFrame(
                {
                    "loss": ["small", "large"],
                    "filtered": [False, True],
                    "size": [10, 20],
                    "estimate": [0.012345678, float("nan")],
                }
            ),
            "empty": pd.DataFrame({"loss": [], "size": []}),
        },
        environment={"commit": "0123456789ab+", "seconds": 1.5},
    )


def test_a_record_comes_back_as_it_was_written(record, tmp_path):
    path = save(record, tmp_path / "new" / "results")
    assert path == tmp_path / "new" / "results" / "margin-toy.json"
    found = load(path)
    for name in ("study", "source", "profile", "settings", "data", "environment", "name"):
        assert getattr(found, name) == getattr(record, name)
    assert list(found.tables) == ["gains", "empty"]
    gains = found.tables["gains"]
    assert list(gains.columns) == ["loss", "filtered", "size", "estimate"]
    assert gains["loss"].tolist() == ["small", "large"]
    assert gains["filtered"].tolist() == [False, True]
    assert gains["filtered"].dtype == bool
    assert gains["size"].tolist() == [10, 20]
    assert gains["estimate"][0] == 0.0123457
    assert math.isnan(gains["estimate"][1])
    assert list(found.tables["empty"].columns) == ["loss", "size"]
    assert len(found.tables["empty"]) == 0


def test_writing_what_was_read_changes_no_byte(record, tmp_path):
    path = save(record, tmp_path)
    content = path.read_bytes()
    assert save(load(path), tmp_path).read_bytes() == content


def test_the_file_is_json_with_a_column_a_line_six_digits_and_null_for_nan(record, tmp_path):
    text = save(record, tmp_path).read_text(encoding="utf-8")
    assert '"estimate": [0.0123457, null]' in text.splitlines()
    assert '"filtered": [false, true],' in text.splitlines()
    assert text.endswith("\n")
    assert "NaN" not in text
    assert json.loads(text)["tables"]["gains"]["size"] == [10, 20]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(1 / 3), 0.333333),
        (np.float32(2.5), 2.5),
        (np.int64(1_234_567), 1_234_567),
        (1_234_567.0, 1_234_570.0),
        (np.bool_(True), True),
        ("words", "words"),
        (float("nan"), None),
    ],
)
def test_values_become_plain(value, plain, record, tmp_path):
    table = pd.DataFrame({"value": pd.Series([value], dtype=object)})
    path = save(replace(record, tables={"t": table}), tmp_path)
    (found,) = json.loads(path.read_text())["tables"]["t"]["value"]
    assert found == plain
    assert type(found) is type(plain)


def test_a_failure_leaves_the_old_file_and_no_other(record, tmp_path, monkeypatch):
    path = save(record, tmp_path)
    content = path.read_bytes()

    def fail(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save(replace(record, profile="real"), tmp_path)
    for bad in ({"settings": {"folder": Path("x")}}, {"tables": {"t": pd.DataFrame({"x": [{1}]})}}):
        with pytest.raises(TypeError):
            save(replace(record, **bad), tmp_path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_is_readable_by_all(record, tmp_path):
    assert save(record, tmp_path).stat().st_mode & 0o777 == 0o644


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"margin-gone\.json: no such run record; run the study"):
        load(tmp_path / "margin-gone.json")


def test_a_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "margin-cut.json"
    path.write_text('{"study": "mar')
    with pytest.raises(ValueError, match=r"margin-cut\.json: not JSON \(.*\); run the study again"):
        load(path)


@pytest.mark.parametrize(
    "part", ["study", "source", "profile", "settings", "data", "environment", "tables"]
)
def test_a_record_that_lacks_a_part_is_named(record, tmp_path, part):
    path = save(record, tmp_path)
    content = json.loads(path.read_text())
    del content[part]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"margin-toy\.json: the record lacks '{part}'"):
        load(path)


def test_load_all_takes_one_study_by_file_name(record, tmp_path):
    for study, source in (("margin", "seeda"), ("data", "toy"), ("margin", "alpha")):
        save(replace(record, study=study, source=source), tmp_path)
    assert [found.name for found in load_all(tmp_path, "margin")] == [
        "margin-alpha",
        "margin-seeda",
    ]
    assert load_all(tmp_path, "other") == []


def test_the_environment_says_with_what_and_when(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 86_400.0 + 12.34)
    found = environment(86_400.0)
    assert set(found) == {
        "versions", "python", "device", "threads", "commit", "started", "seconds",
    }  # fmt: skip
    assert set(found["versions"]) == set(records.PACKAGES)
    assert found["versions"]["torch"] == torch.__version__
    assert (found["started"], found["seconds"]) == ("1970-01-02 00:00 UTC", 12.3)
    assert found["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_that_of_the_package_and_marks_changed_code(tmp_path, monkeypatch):
    package = tmp_path / "src" / "posttrain"
    (package / "evidence").mkdir(parents=True)
    monkeypatch.setattr(records, "__file__", str(package / "evidence" / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment(0.0)["commit"] is None

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    (package / "records.py").write_text("first\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = environment(0.0)["commit"]
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (tmp_path / "page.md").write_text("in the making\n")
    assert environment(0.0)["commit"] == commit
    (package / "records.py").write_text("second\n")
    assert environment(0.0)["commit"] == f"{commit}+"


@pytest.mark.parametrize("content", ["[]", "3", '"text"'])
def test_json_that_is_no_record_is_named(tmp_path, content):
    path = tmp_path / "margin-toy.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="not a run record"):
        load(path)


def test_an_infinite_result_is_refused_and_writes_nothing(record, tmp_path):
    table = pd.DataFrame({"estimate": [1.0, math.inf]})
    with pytest.raises(ValueError, match="infinite"):
        save(replace(record, tables={"gains": table}), tmp_path)
    assert list(tmp_path.iterdir()) == []

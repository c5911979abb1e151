"""Files of preference data: what is read, what is refused and how, and what is written."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from posttrain.data.formats import BadFile
from posttrain.data.preferences import BadRecord, Message, RankedGroup, fingerprint
from posttrain.data.reading import (
    inspect_file,
    iterate_groups,
    read_groups,
    write_groups,
)

SUFFIXES = [".jsonl", ".jsonl.gz", ".parquet"]
GOOD = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
ranked_groups = st.builds(
    RankedGroup,
    id=texts,
    prompt=st.builds(lambda text: (Message("user", text),), texts)
    | st.builds(lambda a, b: (Message("system", a), Message("user", b)), texts, texts),
    responses=st.lists(texts, min_size=2, max_size=3, unique_by=str.strip).map(tuple),
    strength=st.none() | st.integers(1, 4),
    margin=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    cluster_id=st.just("") | texts,
    domain=st.none() | texts,
)
# The folder of one test is shared by all of its examples, each of which overwrites its files.
in_one_folder = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_lines(path, *lines):
    content = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refused(path):
    with pytest.raises(BadRecord) as caught:
        list(iterate_groups(path))
    return caught.value


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(groups=st.lists(ranked_groups, min_size=1, max_size=4, unique_by=lambda group: group.id))
@in_one_folder
def test_files_round_trip(tmp_path, suffix, groups):
    path = tmp_path / f"data{suffix}"
    write_groups(path, iter(groups))
    result = read_groups(path)
    assert (result.groups, result.refused) == (groups, [])
    assert fingerprint(result.groups) == fingerprint(groups)
    content = path.read_bytes()
    write_groups(path, groups)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [path.name]


def test_gzip_header_holds_neither_name_nor_time(tmp_path):
    path = tmp_path / "data.jsonl.gz"
    write_groups(path, read_groups(write_lines(tmp_path / "in.jsonl", GOOD)).groups)
    assert path.read_bytes()[3:8] == bytes(5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_the_old_file(tmp_path, suffix):
    group = RankedGroup("a", (Message("user", "Why?"),), ("good", "bad"))
    path = tmp_path / f"data{suffix}"
    write_groups(path, [group])
    with pytest.raises(ValueError, match="two groups have the id 'a'"):
        write_groups(path, [group, group])
    with pytest.raises(ValueError, match="no groups to write"):
        write_groups(path, [])
    assert read_groups(path).groups == [group]
    assert os.listdir(tmp_path) == [path.name]


def test_writing_to_an_unknown_suffix(tmp_path):
    with pytest.raises(BadFile, match=r"use one of \.jsonl\.gz, \.jsonl, \.parquet"):
        write_groups(tmp_path / "data.csv", [])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "DATA.JSONL"])
def test_blank_lines_default_ids_marks_and_extra_columns(tmp_path, name):
    bom = b"\xef\xbb\xbf" + json.dumps(GOOD).encode()
    path = write_lines(tmp_path / name, bom, b" \r", GOOD | {"b": 1, "a\n": None}, GOOD | {"b": 2})
    result = read_groups(str(path))
    stem = name.split(".")[0]
    assert [group.id for group in result.groups] == [f"{stem}-1", f"{stem}-3", f"{stem}-4"]
    assert result.notes.columns == {"b": 2, "'a\\n'": 1}


def test_line_separators_inside_a_text_end_no_line(tmp_path):
    line = json.dumps(GOOD | {"chosen": "a\u2028b\x85c"}, ensure_ascii=False).encode()
    assert (
        read_groups(write_lines(tmp_path / "data.jsonl", line)).groups[0].chosen == "a\u2028b\x85c"
    )


def test_the_message_names_file_line_field_and_remedy(tmp_path):
    path = write_lines(tmp_path / "data.jsonl.gz", *[GOOD] * 16, GOOD | {"strength": 7})
    error = refused(path)
    assert str(error) == (
        f"{path}, line 17, field 'strength': 7 is not one of 1, 2, 3, 4; remedy: use 1 negligibly, "
        "2 slightly, 3 better, 4 significantly better, or null if unknown"
    )
    assert (error.path, error.line, error.field) == (path, 17, "strength")


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        (b'{"prompt": "\xff"}', None, "invalid UTF-8 at byte 13"),
        (b'{"prompt": }', None, "invalid JSON at column 12: Expecting value"),
        (b'{"prompt": "a', None, "invalid JSON at column 12: Unterminated string"),
        (b"[1]", None, "must be an object with named fields, not a list"),
        (b"null", None, "must be an object with named fields, not null"),
        (b"[" * 200_000, None, "invalid JSON: too deeply nested"),
        (b'{"margin": ' + b"9" * 5000 + b"}", None, "invalid JSON: Exceeds the limit"),
        (b'{"chosen": "a", "chosen": "b"}', "chosen", "this name twice"),
        (b'{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}', "chosen", "surrogate"),
        (json.dumps(GOOD | {"margin": float("nan")}).encode(), "margin", "nan is not a finite"),
        (json.dumps(GOOD | {"margin": float("inf")}).encode(), "margin", "inf is not a finite"),
        (json.dumps(GOOD | {"strength": float("nan")}).encode(), "strength", "nan is not one of"),
        (json.dumps(GOOD | {"id": "one"}).encode(), "id", "an earlier line has the same id"),
    ],
)
def test_bad_lines(tmp_path, line, field, problem):
    path = write_lines(tmp_path / "data.jsonl", GOOD | {"id": "one"}, line, GOOD)
    error = refused(path)
    assert problem in error.problem
    assert (error.path, error.line, error.field) == (path, 2, field)
    assert str(error).startswith(f"{path}, line 2")
    assert error.remedy
    with pytest.raises(BadRecord):
        read_groups(path)
    result = read_groups(path, skip_bad=True)
    assert [group.id for group in result.groups] == ["one", "data-3"]
    assert [str(bad) for bad in result.refused] == [str(error)]


def test_iteration_gives_groups_before_the_bad_one(tmp_path):
    stream = iterate_groups(write_lines(tmp_path / "data.jsonl", GOOD, b"{"))
    assert next(stream).id == "data-1"
    with pytest.raises(BadRecord, match="line 2"):
        next(stream)


def test_several_files_keep_their_order_and_their_ids(tmp_path):
    first = write_lines(tmp_path / "b.jsonl", GOOD, GOOD | {"x": 1})
    second = write_lines(tmp_path / "a.jsonl.gz", GOOD | {"x": 1})
    result = read_groups([first, str(second)])
    assert [group.id for group in result.groups] == ["b-1", "b-2", "a-1"]
    assert result.notes.columns == {"x": 2}
    with pytest.raises(ValueError, match="no files"):
        read_groups([])


def broken_file(folder, kind):
    path = folder / ("data.parquet" if "parquet" in kind else "data.jsonl.gz")
    if kind == "folder":
        path.mkdir()
    elif kind == "truncated gzip":
        lines = [GOOD | {"chosen": os.urandom(200).hex()} for _ in range(50)]
        content = write_lines(path, *lines).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "corrupted gzip":
        content = bytearray(write_lines(path, GOOD).read_bytes())
        content[-6] ^= 1  # in the check sum
        path.write_bytes(content)
    elif kind == "not gzip":
        path.write_text(json.dumps(GOOD))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "blank":
        write_lines(path, b"", b" ")
    elif kind == "invalid parquet":
        path.write_text(json.dumps(GOOD))
    elif kind == "truncated parquet":
        parquet.write_table(pa.Table.from_pylist([GOOD] * 100), path)
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "parquet without columns":
        parquet.write_table(pa.table({"prompt": ["a"], "better": ["b"]}), path)
    elif kind == "parquet with twins":
        names = ["chosen", "rejected", "chosen"]
        parquet.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names), path)
    elif kind == "parquet without rows":
        parquet.write_table(pa.Table.from_pylist([GOOD]).slice(0, 0), path)
    elif kind == "text":
        path = folder / "data.txt"
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "cannot be read (No such file or directory)"),
        ("folder", "cannot be read (Is a directory)"),
        (
            "text",
            "its suffix names no known format; remedy: use one of .jsonl.gz, .jsonl, .parquet, "
            ".csv",
        ),
        ("truncated gzip", "the gzip data end early, after line "),
        ("corrupted gzip", "invalid gzip data after line 1 (CRC check failed"),
        ("not gzip", "invalid gzip data after line 0 (Not a gzipped file"),
        ("empty", "the file has no rows"),
        ("blank", "the file has no rows"),
        ("missing parquet", "cannot be read (No such file or directory)"),
        ("invalid parquet", "invalid Parquet data (Parquet magic bytes not found"),
        ("truncated parquet", "invalid Parquet data ("),
        (
            "parquet without columns",
            "no column chosen and no column rejected; remedy: rename the columns, or say which is "
            "which (--columns chosen=…); the file has "
            "prompt, better",
        ),
        ("parquet with twins", "two columns have the same name"),
        ("parquet without rows", "the file has no rows"),
    ],
)
def test_bad_files_are_never_skipped(tmp_path, kind, problem):
    path = broken_file(tmp_path, kind)
    error = refused(path)
    assert isinstance(error, BadFile)
    assert str(error).startswith(f"{path}: {problem}")
    assert error.remedy
    assert (error.path, error.line, error.field) == (path, None, None)
    with pytest.raises(BadFile):
        read_groups(path, skip_bad=True)
    assert str(list(inspect_file(path))[-1]) == str(error)


def test_inspecting_a_truncated_file_keeps_what_came_before(tmp_path):
    *groups, error = inspect_file(broken_file(tmp_path, "truncated gzip"))
    assert 0 < len(groups) < 50
    assert {type(group) for group in groups} == {RankedGroup}
    assert type(error) is BadFile


def test_parquet_with_a_value_beyond_pythons_range_is_a_bad_record(tmp_path):
    path = tmp_path / "data.parquet"
    times = pa.array([10**15, None], pa.timestamp("s"))
    texts = {name: [value] * 2 for name, value in GOOD.items()}
    parquet.write_table(pa.table(texts | {"group": times}), path)
    error, group = inspect_file(path)
    assert (type(error), error.line) == (BadRecord, 1)
    assert group.chosen == "good"


def test_parquet_from_pandas_with_missing_numbers(tmp_path):
    path = tmp_path / "data.parquet"
    frame = pd.DataFrame([GOOD, GOOD, GOOD]).assign(
        strength=[3, np.nan, 7], margin=[np.nan, 0.5, 1], edited=[None, "best", None], other=1
    )
    frame.to_parquet(path)
    # pandas writes a null for its NaN; other writers keep the NaN.
    table = parquet.read_table(path)
    margin = pa.array([float("nan"), 0.5, 1.0], from_pandas=False)
    parquet.write_table(
        table.set_column(table.column_names.index("margin"), "margin", margin), path
    )
    result = read_groups(path, skip_bad=True)
    assert [(group.strength, group.margin, group.edited) for group in result.groups] == [
        (3, None, None),
        (None, 0.5, "best"),
    ]
    assert [group.id for group in result.groups] == ["data-1", "data-2"]
    assert [error.line for error in result.refused] == [3]
    assert str(result.refused[0]).startswith(f"{path}, row 3, field 'strength': 7")
    assert result.notes.columns == {"other": 3}


def test_parquet_with_categories_and_conversations(tmp_path):
    path = tmp_path / "data.parquet"
    turns = [{"role": "user", "content": "Why?"}]
    rows = [
        {name: [*turns, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    ] * 2000
    domain = pa.array(["safety"] * 2000).dictionary_encode()
    parquet.write_table(pa.Table.from_pylist(rows).append_column("domain", domain), path)
    groups = list(iterate_groups(path))
    assert len(groups) == 2000
    assert groups[-1].id == "data-2000"
    assert groups[-1].responses == ("chosen", "rejected")
    assert groups[-1].domain == "safety"


def test_parquet_with_invalid_text(tmp_path):
    path = tmp_path / "data.parquet"
    table = pa.Table.from_pylist([GOOD, GOOD])
    raw = pa.array([b"fine", b"\xff"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    parquet.write_table(table.set_column(1, "chosen", column), path)
    result = read_groups(path, skip_bad=True)
    assert len(result.groups) == 1
    assert "row 2: invalid UTF-8" in str(result.refused[0])


def test_written_parquet_is_what_trl_reads(tmp_path):
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    path = tmp_path / "data.parquet"
    write_groups(path, read_groups(write_lines(tmp_path / "in.jsonl", GOOD)).groups)
    rows = load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=tmp_path / "cache"
    )
    assert is_conversational(rows[0])
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "good"}]


fields = st.sampled_from([*GOOD, "edited", "strength", "margin", "group", "domain", "id", "x"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "\n\nHuman: a\n\nAssistant: b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2)
    ),
    max_leaves=6,
)
lines = st.binary(max_size=40) | st.builds(
    lambda changes: json.dumps(GOOD | changes).encode(), st.dictionaries(fields, values, max_size=4)
)


@given(st.lists(lines, max_size=5).map(b"\n".join))
@settings(in_one_folder, max_examples=150)
def test_any_bytes_give_groups_or_bad_records(tmp_path, content):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    items = list(inspect_file(path))
    groups = [item for item in items if isinstance(item, RankedGroup)]
    refused = [item for item in items if not isinstance(item, RankedGroup)]
    content = content.removeprefix(b"\xef\xbb\xbf")
    rows = sum(bool(line.strip()) for line in content.split(b"\n"))
    assert all(type(error) in (BadRecord, BadFile) for error in refused)
    assert all(str(error).isprintable() for error in refused)
    assert len(items) == max(rows, 1)  # one BadFile for no rows
    if groups:
        write_groups(tmp_path / "again.jsonl", groups)
        assert read_groups(tmp_path / "again.jsonl").groups == groups


@given(st.binary(max_size=200), st.sampled_from(["data.jsonl.gz", "data.parquet"]))
@in_one_folder
def test_any_bytes_in_other_formats_are_bad_files(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert isinstance(list(inspect_file(tmp_path / name))[-1], BadFile)


EXPECTED_ROWS = {
    "finegrained_rlhf": 2616,
    "hh_harmless": 2308,
    "pku_safety": 3302,
    "rmb_helpfulness": 2046,
    "rmb_safety": 1786,
    "seeda": 5078,
    "ukpconvarg": 14914,
    "xstest": 1556,
}


@pytest.mark.skipif("POSTTRAIN_DATA" not in os.environ, reason="POSTTRAIN_DATA is not set")
def test_every_row_of_the_human_data_is_accepted():
    paths = sorted(Path(os.environ["POSTTRAIN_DATA"]).glob("*.jsonl.gz"))
    counts = {path.name.removesuffix(".jsonl.gz"): len(read_groups(path).groups) for path in paths}
    assert counts == {name: EXPECTED_ROWS.get(name, count) for name, count in counts.items()}
    assert counts

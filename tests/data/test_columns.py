"""Columns by a file's own names: what a mapped file gives, and what is refused."""

import json

import pandas as pd
import pytest
from command_line import run

from posttrain.data.columns import KNOWN, parse_columns
from posttrain.data.demonstrations import read_demonstrations
from posttrain.data.formats import BadFile
from posttrain.data.messages import BadRecord
from posttrain.data.notes import Notes
from posttrain.data.prompts import iterate_prompts
from posttrain.data.reading import iterate_groups, read_groups, scan
from posttrain.data.sources import human, named
from posttrain.data.store import stored
from posttrain.errors import UserError

OURS = [
    {"id": f"r{k}", "prompt": f"Why {k}?", "chosen": "So.", "rejected": "No.", "strength": 3}
    for k in range(3)
]
NAMES = {"prompt": "question", "chosen": "good one", "rejected": "a=b", "strength": "how_much"}
THEIRS = [{NAMES.get(name, name): value for name, value in row.items()} for row in OURS]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


def groups(path, columns):
    return list(named.iterate(str(path), columns=columns))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_mapped_file_gives_the_groups_of_one_with_our_names(tmp_path, suffix):
    theirs = write(tmp_path / f"theirs{suffix}", [row | {"votes": 1} for row in THEIRS])
    notes = Notes()
    found = list(named.iterate(str(theirs), columns=NAMES, notes=notes))
    assert found == list(iterate_groups(write(tmp_path / "ours.jsonl", OURS)))
    assert notes.columns == {"votes": 3}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_names_may_be_exchanged(tmp_path, suffix):
    path = write(tmp_path / f"mine{suffix}", OURS)
    found = groups(path, {"chosen": "rejected", "rejected": "chosen"})
    assert {(group.chosen, group.rejected) for group in found} == {("No.", "So.")}


def test_lists_demonstrations_and_prompts_are_mapped(tmp_path):
    rated = [{"question": "Why?", "samples": ["a", "b"], "stars": [1, 2]}]
    columns = {"prompt": "question", "responses": "samples", "scores": "stars"}
    path = write(tmp_path / "lists.jsonl", rated)
    assert [group.responses for group in groups(path, columns)] == [("b", "a")]
    (shown,) = read_demonstrations([str(path)], columns=columns).rows
    assert shown.response == "b"
    answers = write(tmp_path / "answers.csv", [{"question": "Why?", "answer": "So."}])
    columns = {"prompt": "question", "response": "answer"}
    (shown,) = read_demonstrations([str(answers)], columns=columns).rows
    assert (shown.prompt[0].content, shown.response) == ("Why?", "So.")
    (prompt,) = iterate_prompts(str(answers), columns={"prompt": "question"})
    assert prompt.messages == shown.prompt


def test_what_is_stored_depends_on_the_names(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    path = str(write(tmp_path / "mine.jsonl", OURS))
    turned = {"chosen": "rejected", "rejected": "chosen"}
    assert next(iter(stored([path]))).chosen == "So."
    assert next(iter(stored([path], columns=turned))).chosen == "No."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prompt", "write OURS=THEIRS"),
        ("prompt=", "write OURS=THEIRS"),
        ("=question", "write OURS=THEIRS"),
        ("", "write OURS=THEIRS"),
        ("prompt=a,,chosen=b", "write OURS=THEIRS"),
        ("question=prompt", r"no.* column 'question'; put one of these on the left: id, prompt"),
        ("prompt=a,prompt=b", "prompt stands on the left twice"),
        ("chosen=a,rejected=a", "a stands on the right twice"),
    ],
)
def test_a_mapping_that_is_none_is_refused(text, problem):
    with pytest.raises(UserError, match=problem):
        parse_columns(text)


def test_every_column_that_is_read_can_be_mapped():
    assert parse_columns("prompt=q, chosen=x=y") == {"prompt": "q", "chosen": "x=y"}
    assert parse_columns(None) == {}
    text = ",".join(f"{name}=file_{name}" for name in KNOWN)
    assert parse_columns(text) == {name: f"file_{name}" for name in KNOWN}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_the_file_lacks_is_refused_even_if_bad_records_are_skipped(tmp_path, suffix):
    path = write(tmp_path / f"mine{suffix}", OURS)
    notes = Notes()
    with pytest.raises(
        BadFile, match=r"no column best, which columns read as edited.*edited="
    ) as e:
        list(named.iterate(str(path), columns={"edited": "best"}, notes=notes, skip_bad=True))
    assert "id, prompt, chosen, rejected, strength" in str(e.value)


def test_a_record_may_lack_a_column_that_others_have(tmp_path):
    rows = [{**OURS[0], "better": "Best."}, OURS[1]]
    found = groups(write(tmp_path / "mine.jsonl", rows), {"edited": "better"})
    assert [group.edited for group in found] == ["Best.", None]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_mapping_that_hides_a_column_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"mine{suffix}", [row | {"question": "?"} for row in OURS])
    with pytest.raises(BadRecord, match=r"beside question, .*leave prompt=question out"):
        groups(path, {"prompt": "question"})


def test_errors_speak_of_the_files_names(tmp_path):
    rows = [THEIRS[0] | {"good one": ""}, {name: THEIRS[1][name] for name in ("id", "a=b")}]
    path = write(tmp_path / "mine.jsonl", [*rows, THEIRS[2]])
    empty, short, _ = scan(path, Notes(), columns=NAMES)
    assert (empty.field, empty.line) == ("good one", 1)
    assert "--columns" not in str(empty)
    assert short.field == "good one"
    assert "lacks question, good one, how_much; it has id, a=b)" in str(short)


@pytest.mark.parametrize("text", ["simulator:3", "Anthropic/hh-rlhf", "ukpconvarg"])
def test_sources_with_columns_of_their_own_are_refused(text, monkeypatch):
    monkeypatch.delenv(human.VARIABLE, raising=False)
    with pytest.raises(UserError, match=rf"those of {text} are known, so leave --columns out"):
        groups(text, {"prompt": "question"})


def test_sets_of_the_hub_in_trls_format_are_mapped(tmp_path):
    write(tmp_path / "train.jsonl", THEIRS)
    source = f"owner/name@{tmp_path}"
    (first, *_), expected = groups(source, NAMES), read_groups(write(tmp_path / "o.jsonl", OURS))
    assert (first.prompt, first.responses) == (
        expected.groups[0].prompt,
        expected.groups[0].responses,
    )
    with pytest.raises(UserError, match=r"no column query, .*the file has id, question, good one"):
        list(named.iterate(source, columns={"prompt": "query"}, skip_bad=True))


def test_semicolons_are_named_whatever_columns_are_called(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("question;answer\na;b\n")
    with pytest.raises(BadFile, match="separated by semicolons"):
        read_demonstrations([str(path)], columns={"prompt": "question", "response": "answer"})


def test_the_command_line_checks_a_mapped_file(tmp_path, capsys):
    path = write(tmp_path / "mine.csv", THEIRS)
    mapping = ",".join(f"{ours}={theirs}" for ours, theirs in NAMES.items())
    assert run("data", "check", path, "--columns", mapping) == 0
    assert run("data", "check", path) == 1
    assert "say which is which (--columns chosen=…)" in capsys.readouterr().err
    assert run("data", "check", path, "--columns", "question=prompt") == 1
    assert "put one of these on the left" in capsys.readouterr().err

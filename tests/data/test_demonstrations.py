"""Demonstrations and prompts: every kind of record, what is kept of it, and what is refused."""

import json
from collections import Counter

import pandas as pd
import pytest

from posttrain.data.demonstrations import REPEATED, UNFINISHED, read_demonstrations
from posttrain.data.messages import BadRecord, Message
from posttrain.data.notes import Notes
from posttrain.data.prompts import iterate_prompts
from posttrain.data.sources import named
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError

ASKED = (Message("user", "Why?"),)
TURNS = [{"role": "user", "content": "Why?"}]
SAID = [{"role": "assistant", "content": "So."}]


@pytest.fixture
def write(tmp_path):
    def write(*records, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(path)

    return write


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Why?", "response": "So."},
        {"prompt": TURNS, "response": "So."},
        {"prompt": "Why?", "completion": "So."},
        {"prompt": TURNS, "completion": SAID},
        {"messages": TURNS + SAID},
        {"prompt": "Why?", "messages": TURNS + SAID},
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"chosen": TURNS + SAID, "rejected": [*TURNS, {"role": "assistant", "content": "No."}]},
        {"prompt": "Why?", "edited": "So.", "chosen": "No.", "rejected": "Yes."},
        {"prompt": "Why?", "responses": ["No.", "So."], "scores": [1, 2]},
        {"prompt": "Why?", "responses": ["So.", "No."], "scores": [2, 2]},
        {"prompt": "Why?", "responses": ["No.", "So."], "ranks": [2, 1]},
        {"prompt": "Why?", "responses": ["So."], "scores": [0.5]},
        {
            "prompt": "Why?",
            "responses": ["No.", "So."],
            "scores": [9, 2],
            "finished": [False, True],
        },
        {"prompt": "Why?", "answers": [{"answer": "So.", "rank": 1}, {"answer": "No.", "rank": 2}]},
        {"id": 7, "prompt": "Why?", "response": "So.", "score": 0.25, "group": "a"},
    ],
    ids=lambda record: " ".join(record),
)
def test_every_kind_of_record_gives_its_best_response(write, record):
    found = read_demonstrations([write(record)])
    ((one),) = found.rows
    assert (one.prompt, one.response) == (ASKED, "So.")
    assert one.where.endswith("mine.jsonl, line 1")
    assert not found.counts
    assert not found.notes.columns


def test_the_last_assistant_turn_is_the_response(write):
    turns = [*TURNS, *SAID, *TURNS, {"role": "assistant", "content": "End."}]
    ((one),) = read_demonstrations([write({"messages": turns})]).rows
    assert [turn.content for turn in one.prompt] == ["Why?", "So.", "Why?"]
    assert one.response == "End."


@pytest.mark.parametrize(
    ("record", "field", "words"),
    [
        ({"prompt": "Why?"}, "response", "it is missing"),
        ({"prompt": "Why?", "response": " "}, "response", "it is empty"),
        ({"response": "So."}, "response", "without a prompt"),
        ({"prompt": "Why?", "response": "So.", "completion": "No."}, "completion", "also has"),
        ({"messages": TURNS}, "messages", "must end with an assistant turn"),
        ({"messages": SAID}, "messages", "there is no prompt"),
        ({"prompt": SAID, "response": "So."}, "prompt[0].role", "must end with a user turn"),
        ({"prompt": "Why?", "responses": ["a", "b"]}, "scores", "it is missing"),
        ({"prompt": "Why?", "responses": [], "scores": []}, "responses", "one at least"),
        (
            {"prompt": "Why?", "responses": ["a", "b"], "scores": [1, 2], "finished": [True]},
            "finished",
            "1 values for 2 responses",
        ),
        (
            {"prompt": "Why?", "responses": ["a", "b"], "scores": [1, 2], "finished": [1, 0]},
            "finished",
            "true and false",
        ),
        (["Why?", "So."], None, "must be an object"),
    ],
)
def test_a_bad_record_is_named_or_counted(write, record, field, words):
    path = write({"prompt": "Why?", "response": "So."}, record)
    with pytest.raises(BadRecord, match=words) as raised:
        read_demonstrations([path])
    assert (raised.value.field, raised.value.line) == (field, 2)
    assert str(raised.value).startswith(f"{path}, line 2")
    found = read_demonstrations([path], skip_bad=True)
    assert (len(found.rows), found.counts) == (1, Counter({"bad records": 1}))


def test_nothing_that_a_model_has_not_finished_is_shown(write):
    cut = {"prompt": "Why?", "responses": ["a", "b"], "scores": [1, 2], "finished": [False] * 2}
    found = read_demonstrations([write(cut, {"prompt": "Why?", "response": "So."})])
    assert (len(found.rows), found.counts) == (1, Counter({UNFINISHED: 1}))
    with pytest.raises(UserError, match="no demonstration is left"):
        read_demonstrations([write(cut)])


def test_a_best_response_counts_once_and_a_demonstration_as_often_as_it_stands(write):
    pairs = [{"prompt": "Why?", "chosen": "So.", "rejected": text} for text in ("a", "b")]
    pairs.append({"prompt": "Why?", "chosen": "a", "rejected": "b"})
    found = read_demonstrations([write(*pairs)])
    assert [one.response for one in found.rows] == ["So.", "a"]
    assert found.counts == Counter({REPEATED: 1})
    shown = {"prompt": "Why?", "response": "So."}
    assert len(read_demonstrations([write(shown, shown)]).rows) == 2


def test_of_other_sources_it_is_the_best_of_each_group():
    groups = [group.ranked for group in simulate(30, seed=2)]
    found = read_demonstrations(["simulator:30:2"])
    expected = dict.fromkeys((group.prompt, group.responses[0]) for group in groups)
    assert [(one.prompt, one.response) for one in found.rows] == list(expected)


def test_of_a_list_that_a_source_reads_as_pairs_only_the_best_is_shown(write, monkeypatch):
    rated = {"id": "a", "prompt": "Why?", "responses": ["b", "a", "c", "d"], "scores": [2, 3, 1, 3]}
    groups = list(named.iterate(write(rated, {"prompt": "Why?", "chosen": "x", "rejected": "y"})))
    assert len(groups) == 6
    monkeypatch.setattr(named, "iterate", lambda *_, **__: iter(groups))
    found = read_demonstrations(["owner/name"])
    assert [one.response for one in found.rows] == ["a", "x"]


def test_the_fingerprint_is_of_what_is_shown(write):
    shown = {"prompt": "Why?", "response": "So."}
    first = read_demonstrations([write(shown)]).fingerprint
    assert (
        first
        == read_demonstrations([write({"messages": TURNS + SAID}, name="b.jsonl")]).fingerprint
    )
    assert first != read_demonstrations([write(shown | {"response": "No."})]).fingerprint


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_of_prompts_and_responses(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    table = pd.DataFrame({"prompt": ["Why?", "How?"], "response": ["So.", None], "x": [1, 2]})
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    found = read_demonstrations([str(path)], skip_bad=True)
    assert [one.response for one in found.rows] == ["So."]
    assert found.counts == Counter({"bad records": 1})
    assert "x" in found.notes.columns
    with pytest.raises(BadRecord, match="no column chosen and no column rejected"):
        list(named.iterate(str(path)))


def test_prompts_of_records_of_every_kind(write):
    path = write(
        {"prompt": "Why?"},
        {"prompt": TURNS, "response": "So."},
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": "Why?", "responses": ["a", "b"], "scores": [1, 1], "finished": [True, True]},
        {"prompt": "Why?", "responses": ["a"], "finished": [True]},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:"},
        {"id": "named", "chosen": TURNS + SAID, "rejected": [*TURNS, SAID[0] | {"content": "No."}]},
    )
    notes = Notes()
    found = list(iterate_prompts(path, notes=notes))
    assert [one.messages for one in found] == [ASKED] * 7
    assert [one.id for one in found] == [*(f"mine-{line}" for line in range(1, 7)), "named"]
    assert notes.columns == Counter({"response": 1})


@pytest.mark.parametrize(
    "record", [{"question": "Why?"}, {"prompt": SAID}, {"prompt": "Why?", "id": ["a"]}, "Why?"]
)
def test_a_prompt_that_is_none_is_refused(write, record):
    path = write({"prompt": "Why?"}, record)
    with pytest.raises(BadRecord, match=r"mine\.jsonl, line 2"):
        list(iterate_prompts(path))
    counts = Counter()
    assert len(list(iterate_prompts(path, skip_bad=True, counts=counts))) == 1
    assert counts == Counter({"bad records": 1})

"""Responses to be scored: every kind of record, what it gives, and what is refused."""

import json
from collections import Counter

import pandas as pd
import pytest

from posttrain.data.messages import BadRecord, Message
from posttrain.data.notes import Notes
from posttrain.data.scorable import Candidates, iterate_candidates
from posttrain.data.sources.simulator.annotators import stream_ranked

ASKED = (Message("user", "Why?"),)
TURNS = [{"role": "user", "content": "Why?"}]
SAID = [{"role": "assistant", "content": "So."}]
NO = [{"role": "assistant", "content": "No."}]


@pytest.fixture
def write(tmp_path):
    def write(*records, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(path)

    return write


def both(prefix="responses[{}]"):
    return {prefix.format(0): "So.", prefix.format(1): "No."}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "Why?", "response": "So."}, {"response": "So."}),
        ({"prompt": TURNS, "response": "So."}, {"response": "So."}),
        ({"prompt": TURNS, "response": SAID}, {"response": "So."}),
        ({"prompt": "Why?", "completion": "So."}, {"completion": "So."}),
        ({"messages": TURNS + SAID}, {"messages": "So."}),
        ({"prompt": "Why?", "response": "So.", "score": 2, "rank": 1}, {"response": "So."}),
        ({"prompt": "Why?", "responses": ["So."]}, {"responses[0]": "So."}),
        ({"prompt": "Why?", "responses": ["So.", "No."]}, both()),
        ({"prompt": TURNS, "responses": [SAID, NO]}, both()),
        ({"responses": [TURNS + SAID, TURNS + NO]}, both()),
        # Ratings change nothing, whatever they are.
        ({"prompt": "Why?", "responses": ["So.", "No."], "scores": [1, 2]}, both()),
        ({"prompt": "Why?", "responses": ["So.", "No."], "ranks": [None]}, both()),
        (
            {"prompt": "Why?", "answers": [{"answer": "So.", "rank": 2}, {"answer": "No."}]},
            both("answers[{}].answer"),
        ),
        (
            {"instruction": "Why?", "completions": [{"response": "So."}, {"response": "No."}]},
            both("completions[{}].response"),
        ),
        (
            {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
            {"chosen": "So.", "rejected": "No."},
        ),
        (
            {
                "prompt": "Why?",
                "edited": "Ah.",
                "chosen": "So.",
                "rejected": "No.",
                "responses": None,
            },
            {"edited": "Ah.", "chosen": "So.", "rejected": "No."},
        ),
    ],
    ids=lambda value: " ".join(value),
)
def test_every_kind_of_record_gives_its_responses(write, record, expected):
    notes = Notes()
    (found,) = iterate_candidates(write(record), notes=notes)
    assert found == Candidates("mine-1", ASKED, tuple(expected.values()), tuple(expected))
    assert not notes.columns


def test_what_a_record_says_of_itself_is_kept_and_what_is_not_used_is_noted(write):
    notes = Notes()
    fields = {"id": 7, "domain": "safety", "group": "a", "votes": 3}
    samples = {"prompt": "Why?", "responses": ["a", "b"], "finished": [True, False]}
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b", "response": "c"}
    path = write(samples | fields, {"prompt": "Why?", "response": "a", "domain": "x"}, pair)
    first, second, third = iterate_candidates(path, notes=notes)
    assert (first.id, first.domain, first.finished) == ("7", "safety", (True, False))
    assert (second.id, second.domain, second.finished) == ("mine-2", "x", ())
    # Preferences are what a record is for that has them.
    assert third.names == ("chosen", "rejected")
    assert notes.columns == {"votes": 1, "response": 1}


def test_a_response_that_occurs_twice_is_there_twice(write):
    (found,) = iterate_candidates(write({"prompt": "Why?", "responses": ["a", "b", "a"]}))
    assert found.responses == ("a", "b", "a")


@pytest.mark.parametrize(
    ("record", "field", "words"),
    [
        ({"prompt": "Why?"}, "response", "nothing to score"),
        ({"question": "Why?", "answer": "So."}, "response", "nothing to score"),
        (["Why?", "So."], None, "must be an object"),
        ({"prompt": "Why?", "response": " "}, "response", "it is empty"),
        ({"prompt": "Why?", "response": ["So."]}, "response[0]", "must be an object"),
        ({"prompt": "Why?", "response": TURNS}, "response", "one assistant message"),
        ({"response": "So."}, "response", "without a prompt"),
        ({"prompt": SAID, "response": "So."}, "prompt[0].role", "must end with a user turn"),
        ({"prompt": SAID, "responses": ["a"]}, "prompt[0].role", "must end with a user turn"),
        ({"messages": TURNS}, "messages", "must end with an assistant turn"),
        ({"prompt": "Why?", "responses": []}, "responses", "one at least"),
        ({"prompt": "Why?", "responses": "a"}, "responses", "must be a list"),
        ({"prompt": "Why?", "responses": ["a", None]}, "responses[1]", "it is missing"),
        ({"prompt": "Why?", "responses": ["a", 3]}, "responses[1]", "must be text"),
        ({"prompt": "Why?", "responses": ["a"], "finished": [True] * 2}, "finished", "2 values"),
        ({"prompt": "Why?", "responses": ["a"], "strength": 3}, "strength", "about one pair"),
        ({"prompt": "Why?", "scores": [1, 2]}, "responses", "it is missing"),
        ({"prompt": "Why?", "response": "a", "responses": ["b"]}, "response", "also has"),
        ({"prompt": "Why?", "response": "a", "completion": "b"}, "completion", "also has"),
        ({"prompt": "Why?", "chosen": "a"}, "rejected", "it is missing"),
        (
            {"prompt": "Why?", "chosen": "a", "rejected": "b", "responses": ["c"], "scores": [1]},
            "responses",
            "could be either",
        ),
        ({"prompt": "Why?", "response": "a", "domain": 3}, "domain", "must be text"),
        ({"id": " ", "prompt": "Why?", "response": "a"}, "id", "it is empty"),
        ({"id": "first", "prompt": "Why?", "response": "a"}, "id", "has the same id"),
    ],
)
def test_a_record_that_cannot_be_scored_is_named_or_counted(write, record, field, words):
    path = write({"id": "first", "prompt": "Why?", "response": "So."}, record)
    with pytest.raises(BadRecord, match=words) as raised:
        list(iterate_candidates(path))
    assert (raised.value.field, raised.value.line) == (field, 2)
    assert str(raised.value).startswith(f"{path}, line 2")
    assert raised.value.remedy
    counts = Counter()
    assert len(list(iterate_candidates(path, skip_bad=True, counts=counts))) == 1
    assert counts == {"bad records": 1}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_of_prompts_and_responses(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    table = pd.DataFrame({"prompt": ["Why?", "How?"], "response": ["So.", None], "x": [1, 2]})
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    counts, notes = Counter(), Notes()
    (found,) = iterate_candidates(str(path), skip_bad=True, counts=counts, notes=notes)
    assert (found.prompt, found.responses) == (ASKED, ("So.",))
    assert counts == {"bad records": 1}
    assert "x" in notes.columns


def test_parquet_of_lists_and_messages(tmp_path):
    path = tmp_path / "mine.parquet"
    table = {"prompt": [TURNS] * 2, "responses": [["So.", "No."], ["So."]]}
    pd.DataFrame(table | {"finished": [[True, False], [True]]}).to_parquet(path)
    found = list(iterate_candidates(str(path)))
    assert [one.responses for one in found] == [("So.", "No."), ("So.",)]
    assert [one.finished for one in found] == [(True, False), (True,)]
    pd.DataFrame({"messages": [TURNS + SAID]}).to_parquet(path)
    (one,) = iterate_candidates(str(path))
    assert (one.prompt, one.responses) == (ASKED, ("So.",))


def test_a_table_without_any_response_says_what_it_has(tmp_path):
    path = tmp_path / "mine.csv"
    pd.DataFrame({"prompt": ["Why?"], "answer": ["So."]}).to_csv(path, index=False)
    with pytest.raises(BadRecord, match=r"no column response .*--columns .* has prompt, answer"):
        list(iterate_candidates(str(path)))


def test_other_sources_give_what_their_groups_hold(write, tmp_path):
    group = next(stream_ranked(1, seed=2))
    (found,) = iterate_candidates("simulator:1:2")
    assert (found.id, found.responses, found.names) == (group.id, group.responses, group.names)
    # Sets of the hub without a converter are read as files are.
    write({"prompt": "Why?", "responses": ["So.", "No."], "scores": [1, 1]}, name="train.jsonl")
    (found,) = iterate_candidates(f"owner/name@{tmp_path}")
    assert (found.id, found.responses) == ("owner/name/train-0", ("So.", "No."))


def test_records_are_read_as_they_are_needed(write):
    path = write({"prompt": "Why?", "response": "So."}, {"prompt": "Why?"})
    found = iterate_candidates(path)
    assert next(found).responses == ("So.",)
    with pytest.raises(BadRecord):
        next(found)

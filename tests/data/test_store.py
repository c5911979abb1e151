"""What was noted while groups were read is said also when they come from the cache."""

import json

import numpy as np
import pytest

from posttrain.data import conversations
from posttrain.data.notes import Notes
from posttrain.data.sources import named
from posttrain.data.store import stored

TRANSCRIPT = {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": "good", "rejected": "bad"}
CALLED = TRANSCRIPT | {"chosen": [{"role": "assistant", "content": "x", "tool_calls": [1, 2]}]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [TRANSCRIPT, CALLED | {"votes": 1}, TRANSCRIPT | {"votes": 2}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_notes_are_kept_and_said_in_one_warning_each_time(file, monkeypatch, caplog):
    expected = Notes({"votes": 2}, {"tool_calls": 1}, {conversations.TURNS: 3})
    for _ in range(2):
        caplog.clear()
        found = stored([file])
        assert found.notes == found.select(np.arange(1)).notes == expected
        (warning,) = caplog.messages
        assert all(words in warning for words in (file, "votes 2", "tool_calls 1", "prompt"))
        monkeypatch.delattr(named, "iterate", raising=False)


def test_only_the_first_process_of_a_run_says_it(file, monkeypatch, caplog):
    monkeypatch.setenv("RANK", "1")
    stored([file])
    assert caplog.messages == []


def test_nothing_to_say(tmp_path, caplog):
    assert stored(["simulator:3"]).notes == Notes()
    assert caplog.messages == []


def test_long_lists_are_cut_short():
    notes = Notes(columns={f"c{k:02}": 100 - k for k in range(12)})
    (line,) = notes.lines()
    assert line.endswith("c08 92, c09 91 and 2 more")

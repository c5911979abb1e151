"""``posttrain score`` of several sources, and to standard output."""

import json
from collections import Counter

import pytest

from posttrain import cli
from posttrain.commands.score import groups_of
from posttrain.commands.score_settings import ScoreSettings
from posttrain.models import reward_model


@pytest.fixture
def model(tiny_checkpoint, tmp_path):
    found, tokenizer = reward_model.load(tiny_checkpoint, seed=5)
    found.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of one name, whose records have the same ids."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        rows = [{"prompt": f"{folder} {k}?", "chosen": "good", "rejected": "bad"} for k in range(2)]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / folder / "x.jsonl").write_text(content)
    return ["a/x.jsonl", "b/x.jsonl"]


def ids(*data):
    settings = ScoreSettings(model="tiny", data=list(data))
    return [group.id for group in groups_of(settings, Counter())]


def test_ids_of_two_files_stay_apart(files, caplog):
    assert ids(*files) == ["x-1", "x-2", "b/x.jsonl#x-1", "b/x.jsonl#x-2"]
    (warning,) = caplog.messages
    assert warning.startswith("2 ids occur in an earlier source too")
    assert ids(files[1]) == ["x-1", "x-2"]


def test_ids_stay_apart_whatever_they_are(files, tmp_path):
    row = {"prompt": "?", "chosen": "good", "rejected": "bad"}
    taken = [row | {"id": name} for name in ("b/x.jsonl#x-1", "x-1")]
    (tmp_path / "a/x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in taken))
    found = ids(*files)
    assert len(set(found)) == len(found) == 4


def test_what_was_noted_is_said_once(files, tmp_path, caplog):
    row = {"prompt": "Human: a\n\nAssistant:", "chosen": "good", "rejected": "bad", "votes": 3}
    for name in files:
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    ids(*files)
    warning = caplog.messages[-1]
    assert "votes 2" in warning
    assert "prompt is a transcript" in warning
    assert len([text for text in caplog.messages if "votes" in text]) == 1


def test_scores_on_standard_output_are_those_of_the_file(model, files, tmp_path, capsys):
    arguments = ["score", "--model", model, "--device", "cpu", "--data", *files]
    assert cli.main([*arguments, "--output", "scores.jsonl"]) == 0
    capsys.readouterr()
    assert cli.main([*arguments, "--output", "-"]) == 0
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "scores.jsonl").read_text()
    assert "wrote 8 scores" in printed.err
    assert not (tmp_path / "-").exists()

"""``--columns`` in every command that reads files: as if the file had our names."""

import json

import policy_runs
import pytest
import tiny_runs
from command_line import run

from posttrain.data.preferences import to_record
from posttrain.data.sources.simulator.annotators import simulate

NAMES = {"prompt": "question", "chosen": "good", "rejected": "bad"}
COLUMNS = ",".join(f"{ours}={theirs}" for ours, theirs in NAMES.items())


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same preferences by our names and by others."""
    folder = tmp_path_factory.mktemp("files")
    records = [to_record(group.ranked) for group in simulate(48, seed=3)]
    theirs = [{NAMES.get(name, name): one[name] for name in one} for one in records]
    for name, rows in (("ours", records), ("theirs", theirs)):
        (folder / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "mine.jsonl").write_text(text)
    return folder / "ours" / "mine.jsonl", folder / "theirs" / "mine.jsonl"


TRAINERS = {
    "train": lambda *given, **changes: tiny_runs.train(*given, max_steps=1, **changes),
    "sft": lambda *given, **changes: policy_runs.train("sft", *given, max_steps=1, **changes),
    "dpo": lambda *given, **changes: policy_runs.train("dpo", *given, max_steps=1, **changes),
}


@pytest.mark.parametrize("command", TRAINERS)
def test_what_is_trained_on(command, files, tiny_checkpoint, tmp_path, capsys):
    found = []
    for data, columns in zip(files, (None, COLUMNS), strict=True):
        folder = tmp_path / str(len(found))
        changes = {"data": data, "columns": columns, "save_steps": 100}
        assert TRAINERS[command](tiny_checkpoint, folder, **changes) == 0
        found.append(json.loads((folder / "run.json").read_text())["data"]["fingerprint"])
    assert found[0] == found[1]
    code = TRAINERS[command](tiny_checkpoint, tmp_path / "x", data=files[1], columns="x=y")
    assert "put one of these on the left" in tiny_runs.refusal(capsys, code)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("score", ("--device", "cpu")),
        ("evaluate", ("--device", "cpu", "--resamples", 5)),
        ("calibrate", ("--device", "cpu")),
        ("sample", ("--device", "cpu", "--prompts", 2, "--samples", 1, "--max_new_tokens", 3)),
    ],
)
def test_what_is_scored_or_answered(command, options, files, trained, tiny_checkpoint, tmp_path):
    model = tiny_checkpoint if command == "sample" else trained
    found = []
    for data, more in zip(files, ((), ("--columns", COLUMNS)), strict=True):
        output = tmp_path / f"{len(found)}.jsonl"
        given = ("--model", model, "--data", data, "--output", output, *options, *more)
        assert run(command, *given) == 0
        found.append(output.read_text().replace(str(data), "DATA"))
    assert found[0] == found[1]

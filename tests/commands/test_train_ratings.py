"""Commands on files of five responses a prompt, with scores."""

import json

import pytest
from command_line import run
from tiny_runs import assert_equal_weights, refusal, train

from posttrain.data import ratings
from posttrain.data.reading import read_groups, write_groups
from posttrain.data.sources.simulator.annotators import simulate

LEAST = 2.0


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Twenty prompts with five responses each, of which one scores 5, one 4, and so on."""
    groups = [group.ranked for group in simulate(60, seed=11)]
    texts = sorted({text for group in groups for text in group.responses})
    prompts = sorted({group.prompt[-1].content for group in groups})[:20]
    path = tmp_path_factory.mktemp("five") / "five.jsonl"
    records = [
        {
            "prompt": prompt,
            "responses": texts[number : number + 5],
            "scores": [(number + place) % 5 for place in range(5)],
        }
        for number, prompt in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_lists_of_responses_train_as_their_pairs_do(five, tiny_checkpoint, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    write_groups(pairs, read_groups(five, min_difference=LEAST).groups)
    lists, apart = tmp_path / "lists", tmp_path / "apart"
    assert train(tiny_checkpoint, lists, data=five, min_difference=LEAST, max_steps=3) == 0
    assert train(tiny_checkpoint, apart, data=pairs, max_steps=3) == 0
    assert_equal_weights(lists, apart)
    account, other = (json.loads((path / "run.json").read_text()) for path in (lists, apart))
    assert account["settings"]["min_difference"] == LEAST
    assert account["data"]["fingerprint"] == other["data"]["fingerprint"]
    assert f"{ratings.READ}: 20" in account["data"]["notes"]
    assert any(f"{ratings.PAIRS} 120" in note for note in account["data"]["notes"])
    assert "| min_difference | `2.0` |" in (lists / "README.md").read_text()


def test_reports_and_calibrations_are_those_of_the_pairs(five, trained, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    write_groups(pairs, read_groups(five, min_difference=LEAST).groups)
    for command, options in {"evaluate": ("--resamples", 20), "calibrate": ()}.items():
        found = []
        for data, more in ((five, ("--min_difference", LEAST)), (pairs, ())):
            output = tmp_path / f"{command}-{len(found)}"
            given = ("--model", trained, "--data", data, "--output", output, *options, *more)
            assert run(command, *given, "--device", "cpu") == 0
            found.append(output.read_text().replace(str(data), "DATA"))
        assert found[0] == found[1]


def test_a_least_difference_that_is_none_is_refused(five, tiny_checkpoint, tmp_path, capsys):
    code = train(tiny_checkpoint, tmp_path / "run", data=five, min_difference=-1)
    assert "min_difference must be a number of at least 0" in refusal(capsys, code)
    code = train(tiny_checkpoint, tmp_path / "run", data=five, min_difference=9)
    assert f"{ratings.TOO_CLOSE} 200" in refusal(capsys, code)

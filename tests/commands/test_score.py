"""``posttrain score`` and ``evaluate``: every response in order, files whole or not at all."""

import json

import pytest

from posttrain import cli, reward_model
from posttrain.reading import read_groups, write_groups
from posttrain.reward_model import score
from posttrain.rows import LAYOUTS
from posttrain.sources.simulator import simulate
from posttrain.tokenization import tokenize_group


@pytest.fixture
def model(tiny_checkpoint, tmp_path):
    """A reward model with a head of its own, as a folder."""
    found, tokenizer = reward_model.load(tiny_checkpoint, seed=5)
    found.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    write_groups(path, [group.ranked for group in simulate(30, seed=4, edited_share=0.5)])
    return path


def run(command, model, data, output, *more):
    arguments = [command, "--model", model, "--data", data, "--output", output, *more]
    return cli.main(list(map(str, arguments)))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("layout", ["separate", "exact"])
def test_every_response_has_a_line_in_the_order_of_the_file(model, data, tmp_path, capsys, layout):
    output = tmp_path / "new" / "scores.jsonl"
    assert run("score", model, data, output, "--layout", layout) == 0
    loaded, tokenizer = reward_model.load(model)
    expected = []
    for group in read_groups(data).groups:
        tokens = tokenize_group(tokenizer, group)
        scores = score(loaded, [tokens], pad_token_id=0, layout=LAYOUTS["separate"]).tolist()
        names = ("edited", "chosen", "rejected")[-len(scores) :]
        expected += [(group.id, *one) for one in zip(names, scores, strict=True)]
    found = lines(output)
    assert [tuple(line.values())[:2] for line in found] == [one[:2] for one in expected]
    assert [line["score"] for line in found] == pytest.approx(
        [one[2] for one in expected], abs=1e-12
    )
    assert {line["response"] for line in found} == {"edited", "chosen", "rejected"}
    out = capsys.readouterr().out
    assert f"wrote {len(expected)} scores to {output}" in out
    assert "30 groups" in out


def test_scores_of_shuffled_rows_repeat_with_their_seed(model, data, tmp_path):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        output = tmp_path / f"{number}.jsonl"
        assert run("score", model, data, output, "--layout", "llama3", "--seed", seed) == 0
        found.append(lines(output))
    assert found[0] == found[1] != found[2]


def test_a_bad_record_leaves_no_file_and_is_named(model, data, tmp_path, capsys):
    with data.open("a") as file:
        file.write('{"prompt": "p", "chosen": "c"}\n')
    output = tmp_path / "scores.jsonl"
    assert run("score", model, data, output) == 1
    assert f"{data}, line 31, field 'rejected'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "model"]
    assert run("score", model, data, output, "--skip_bad") == 0
    assert "1 bad records" in capsys.readouterr().out


def test_a_random_head_is_warned_of(tiny_checkpoint, data, tmp_path, caplog):
    assert run("score", tiny_checkpoint, data, tmp_path / "scores.jsonl") == 0
    assert "has no score head: scores are those of a random one, drawn with seed 0" in caplog.text


def test_a_trained_head_is_not_warned_of(model, data, tmp_path, caplog):
    assert run("score", model, data, tmp_path / "scores.jsonl") == 0
    assert "random" not in caplog.text


def test_what_is_too_long_is_an_error_or_counted(model, data, tmp_path, capsys):
    limit = ["--max_tokens", 14]
    assert run("score", model, data, tmp_path / "scores.jsonl", *limit) == 1
    assert "raise max_tokens or leave the group out" in capsys.readouterr().err
    assert run("score", model, data, tmp_path / "scores.jsonl", *limit, "--skip_too_long") == 0
    out = capsys.readouterr().out
    assert "groups that are too long" in out
    assert "trimmed prompts" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x.jsonl"], "give a model"),
        (["--model", "tiny"], "give data to score"),
        (["--model", "tiny", "--data", "x.jsonl", "--layout", "spiral"], "unknown layout"),
        (["--model", "tiny", "--data", "x.jsonl", "--dtype", "int8"], "unknown dtype"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_settings_that_make_no_sense_are_refused(command, arguments, message, capsys):
    assert cli.main([command, *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_broken_configuration_is_named(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("model: [tiny\n")
    assert cli.main(["score", "--config", str(tmp_path / "run.yaml")]) == 1
    assert "is not YAML" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "score", "evaluate"])
def test_help_explains_every_setting(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: posttrain {command}")
    assert "llama3 (one row, shuffled, responses see those before them)" in " ".join(out.split())


@pytest.mark.parametrize("command", ["train", "score", "evaluate"])
def test_an_unknown_setting_is_refused(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--model", "tiny", "--data", "x.jsonl", "--colour", "red"])
    assert stop.value.code == 2
    assert "--colour red" in capsys.readouterr().err


def test_an_evaluation_is_json_on_standard_output_or_in_a_file(model, data, tmp_path, capsys):
    output = tmp_path / "report.json"
    assert run("evaluate", model, data, output, "--resamples", 100) == 0
    capsys.readouterr()
    assert run("evaluate", model, data, "-", "--resamples", 100) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(output.read_text())
    groups = read_groups(data).groups
    assert printed["pairs"] == len(groups)
    assert set(printed["by_pair"]) == {
        "chosen > rejected", "edited > chosen", "edited > rejected",
    }  # fmt: skip
    loaded, tokenizer = reward_model.load(model)
    tokens = [tokenize_group(tokenizer, group) for group in groups]
    scores = score(loaded, tokens, pad_token_id=0).split([len(g.responses) for g in groups])
    right = sum((one[-2] > one[-1]).item() for one in scores)
    assert printed["accuracy"]["estimate"] == pytest.approx(right / len(groups))
    assert printed["left_out"] == {}

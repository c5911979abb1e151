"""posttrain data: what is written, counted and refused."""

import json
import shutil

import pytest
from command_line import run

from posttrain import cli
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import stream_ranked

ARGUMENT_PAIR = (
    "<annotatedArgumentPair><id>x</id>"
    "<arg1><stance>Cats</stance><text>{text}</text></arg1>"
    "<arg2><stance>Cats</stance><text>Dogs.</text></arg2>"
    "<debateMetaData><title>Cats or dogs?</title></debateMetaData><mTurkAssignments>"
    "<mTurkAssignment><value>a1</value></mTurkAssignment>{more}</mTurkAssignments>"
    "</annotatedArgumentPair>"
)
TIE = "<mTurkAssignment><value>a2</value></mTurkAssignment>"


@pytest.fixture
def original(tmp_path):
    folder = tmp_path / "original"
    folder.mkdir()
    pairs = [ARGUMENT_PAIR.format(text=text, more="") for text in ("Cats.", "Cats purr.")]
    pairs.append(ARGUMENT_PAIR.format(text="Cats.", more=TIE))
    pairs.append(ARGUMENT_PAIR.format(text="Cats.", more=""))
    (folder / "a.xml").write_text(f"<list>{''.join(pairs)}</list>", encoding="utf-8")
    return folder


@pytest.fixture
def good_file(tmp_path):
    path = tmp_path / "good.jsonl"
    assert run("data", "simulate", path, "--groups", 5) == 0
    return path


def test_simulate_writes_what_the_simulator_draws(tmp_path, capsys):
    path = tmp_path / "drawn.jsonl.gz"
    options = ("--groups", 30, "--seed", 4, "--domain", "safety", "--edited-share", 0.5,
               "--sensitive", 0.7)  # fmt: skip
    assert run("data", "simulate", path, *options) == 0
    assert capsys.readouterr().out == f"wrote 30 records to {path}\n"
    settings = {"domain": "safety", "edited_share": 0.5, "sensitive": 0.7}
    drawn = list(stream_ranked(30, seed=4, **settings))
    assert read_groups(path).groups == drawn
    assert any(group.has_edit for group in drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--edited-share", 1.5), "shares must lie in [0, 1]"),
        (("--groups", -1), "count must not be negative"),
    ],
)
def test_simulate_refuses_what_cannot_be(tmp_path, capsys, options, message):
    path = tmp_path / "x.jsonl"
    assert run("data", "simulate", path, *options) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("posttrain: ")
    assert message in captured.err
    assert not path.exists()


def test_an_output_of_unknown_kind_is_refused(tmp_path, capsys):
    assert run("data", "simulate", tmp_path / "x.csv", "--groups", 2) == 1
    assert "x.csv" in capsys.readouterr().err


def test_check_summarises_and_succeeds(good_file, capsys):
    assert run("data", "check", good_file) == 0
    captured = capsys.readouterr()
    assert str(good_file) in captured.out
    assert captured.err == ""


def test_check_lists_bad_records_and_fails_unless_they_are_acceptable(good_file, capsys):
    lines = good_file.read_text().splitlines()
    good_file.write_text("\n".join([*lines, '{"prompt": "x"}']) + "\n")
    assert run("data", "check", good_file) == 1
    assert f"{good_file}, line 6" in capsys.readouterr().err.replace(":6", ", line 6")
    assert run("data", "check", good_file, "--skip-bad") == 0
    assert "6" in capsys.readouterr().err


def test_check_of_a_missing_file_fails_even_so(tmp_path, capsys):
    for options in ((), ("--skip-bad",)):
        assert run("data", "check", tmp_path / "gone.jsonl", *options) == 1
        assert "gone.jsonl" in capsys.readouterr().err


def test_convert_writes_records_and_counts_what_it_drops(original, tmp_path, capsys):
    output = tmp_path / "converted.jsonl"
    assert run("data", "convert", "ukpconvarg", original, output) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote 2 records to {output}",
        "dropped 1: repeated pair",
        "dropped 1: tied votes",
    ]
    assert [group.chosen for group in read_groups(output).groups] == ["Cats.", "Cats purr."]


def test_convert_refuses_an_unknown_name(tmp_path, capsys):
    assert run("data", "convert", "nonsense", tmp_path, tmp_path / "x.jsonl") == 1
    assert "unknown original 'nonsense'; known: ukpconvarg, seeda" in capsys.readouterr().err


def test_convert_that_fails_half_way_leaves_no_file(original, tmp_path, capsys):
    (original / "b.xml").write_text("<list>")
    output = tmp_path / "converted.jsonl"
    assert run("data", "convert", "ukpconvarg", original, output) == 1
    assert "b.xml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [original]


def test_convert_of_a_missing_original_is_refused(tmp_path, capsys):
    assert run("data", "convert", "ukpconvarg", tmp_path / "gone", tmp_path / "x.jsonl") == 1
    assert "gone" in capsys.readouterr().err


def test_check_counts_tokens_of_some_model_only(good_file, capsys):
    assert run("data", "check", good_file, "--max_tokens", 9) == 1
    assert "--model NAME" in capsys.readouterr().err
    assert run("data", "check", good_file, "--model", "tiny", "--max_tokens", 0) == 1
    assert "max_tokens must be at least 1" in capsys.readouterr().err


def test_check_says_what_a_model_would_read(tiny_checkpoint, tmp_path, capsys):
    path, model = tmp_path / "mine.jsonl", tmp_path / "model"
    turns = [
        {"role": role, "content": content}
        for role, content in (
            ("system", "Be brief."), ("user", "Why?"), ("assistant", "So."), ("assistant", "No."),
        )
    ]  # fmt: skip
    records = [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No idea."},
        {"prompt": turns[:2], "chosen": turns[2:3], "rejected": turns[3:]},
        {"prompt": "Why? " * 300, "chosen": "So.", "rejected": "No idea."},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert cli.main(["data", "check", str(path), "--model", str(tiny_checkpoint)]) == 0
    out = capsys.readouterr().out
    assert f"{path}, in tokens of {tiny_checkpoint}" in out
    assert "The prompts of 1 of 2 records lose their beginning" in out
    shutil.copytree(tiny_checkpoint, model)
    (model / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    )
    assert cli.main(["data", "check", str(path), "--model", str(model)]) == 1
    captured = capsys.readouterr()
    assert "record 'mine-2': the chat template of" in captured.err
    assert "no system role" in captured.err
    assert captured.out.splitlines()[-3].split() == ["records", "that", "cannot", "be", "read", "1"]
    assert cli.main(["data", "check", str(path), "--model", str(model), "--skip-bad"]) == 0

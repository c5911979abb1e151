"""Settings from YAML: every value by its type, one file as a list of one, clear refusals."""

from dataclasses import dataclass

import pytest
from trl import TrlParser

from posttrain.commands.score_settings import ScoreSettings
from posttrain.commands.train_settings import TrainSettings
from posttrain.config.fields import setting
from posttrain.config.yaml import parse
from posttrain.errors import UserError
from posttrain.studies.margin.full import FullSettings
from posttrain.training.config import RankingConfig


def read(tmp_path, text, *options, kinds=(TrainSettings, RankingConfig)):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return parse(TrlParser(kinds), ["--config", str(path), *options])


BASE = "model: tiny\ndata: mine.jsonl\noutput_dir: out\n"


def test_a_file_alone_is_a_list_of_one(tmp_path):
    settings, _ = read(tmp_path, BASE + "eval_data: held_out.jsonl\n")
    assert settings.data == ["mine.jsonl"]
    assert settings.eval_data == ["held_out.jsonl"]
    several, _ = read(tmp_path, BASE.replace("mine.jsonl", "[a.jsonl, b.jsonl]"))
    assert several.data == ["a.jsonl", "b.jsonl"]


def test_options_win_over_the_file(tmp_path):
    settings, config = read(tmp_path, BASE + "seed: 3\n", "--seed", "4", "--data", "b.jsonl")
    assert (settings.data, config.seed) == (["b.jsonl"], 4)


def test_a_config_may_be_joined_by_an_equals_sign(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    settings, _ = parse(TrlParser((TrainSettings, RankingConfig)), [f"--config={path}"])
    assert settings.model == "tiny"


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    _, config = read(tmp_path, BASE + "learning_rate: 1e-5\n")
    assert config.learning_rate == 1e-5
    (settings,) = read(tmp_path, "learning_rates: [3e-3, 2]\n", kinds=(FullSettings,))
    assert settings.learning_rates == [3e-3, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("layout: [exact]", r"layout must be text, not \['exact'\]"),
        ("lora_rank: many", "lora_rank must be a whole number, not 'many'"),
        ("lora_rank: 1.5", "lora_rank must be a whole number, not 1.5"),
        ("lora_rank: true", "lora_rank must be a whole number, not True"),
        ("learning_rate: fast", "learning_rate must be a number, not 'fast'"),
        ("eval_data: [1]", "eval_data must be a list"),
        ("skip_bad: 3", "skip_bad must be true or false, not 3"),
        ("layuot: exact", "unknown settings: layuot"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file(tmp_path, line, message):
    with pytest.raises(ValueError, match=message) as refused:
        read(tmp_path, BASE + line + "\n")
    assert "run.yaml" in str(refused.value)


def test_words_that_yaml_takes_for_truth_are_explained(tmp_path):
    with pytest.raises(ValueError, match="margins must be text, not False; put it in quotes"):
        read(tmp_path, BASE + "margins: no\n")
    with pytest.raises(
        ValueError, match=r"run_name must be text or null, not 7; put it in quotes$"
    ):
        read(tmp_path, BASE + "run_name: 7\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not nothing"),
        ("- model\n- tiny\n", r"not \['model', 'tiny'\]"),
        ("model: [", "is not YAML"),
        ("run_name: 2001-99-99\n", "is not YAML: month must be in 1..12"),
        (BASE + "model: smollm2\nseed: 1\nseed: 2\n", "model, seed given twice"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=r"run\.yaml") as refused:
        read(tmp_path, content)
    assert refused.match(message)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing.yaml cannot be read \(No such file"):
        parse(TrlParser((ScoreSettings,)), ["--config", str(tmp_path / "missing.yaml")])


@pytest.mark.parametrize("options", [["--config"], ["--config", "a", "--config", "b"]])
def test_a_config_without_a_file_or_given_twice_ends_with_usage(options, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(TrlParser((ScoreSettings,)), options)
    assert ended.value.code == 2
    assert "--config" in capsys.readouterr().err


@dataclass
class Renamed:
    max_tokens_per_device: int = setting(1, "Tokens.")
    pack_length: int = setting(1, "Tokens of a row.")


def test_old_names_are_understood_and_said_once(tmp_path, caplog):
    path = tmp_path / "old.yaml"
    path.write_text("row_tokens: 20\n")
    arguments = ["--config", str(path), "--part_tokens", "10", "--part_tokens=30"]
    (settings,) = parse(TrlParser(Renamed), arguments)
    assert settings == Renamed(max_tokens_per_device=30, pack_length=20)
    assert [message.split(" is called ")[0] for message in caplog.messages] == [
        "row_tokens", "part_tokens",
    ]  # fmt: skip


def test_an_old_name_beside_the_new_one_is_refused(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text("row_tokens: 20\npack_length: 30\n")
    with pytest.raises(UserError, match="row_tokens is the old name of pack_length"):
        parse(TrlParser(Renamed), ["--config", str(path)])


def test_a_list_is_given_once(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(TrlParser(TrainSettings), ["--data", "a", "--data=b"])
    assert stop.value.code == 2
    assert "--data is given twice" in capsys.readouterr().err

"""TRL's settings: each is accounted for, and read as TRL reads it."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from transformers import TrainingArguments
from trl import DatasetMixtureConfig, ModelConfig, RewardConfig, ScriptArguments, TrlParser

from posttrain.commands.train_settings import TrainSettings
from posttrain.config import trl
from posttrain.config.yaml import parse
from posttrain.errors import UserError
from posttrain.training.config import RankingConfig

PAGE = (Path(__file__).parents[2] / "book/from_trl.md").read_text(encoding="utf-8")
THEIRS = {
    one.name: one
    for kind in (ScriptArguments, RewardConfig, ModelConfig, DatasetMixtureConfig)
    for one in fields(kind)
}
OURS = {one.name: one for kind in (TrainSettings, RankingConfig) for one in fields(kind)}
#: Names that TRL had before.
OLDER = {"torch_dtype"}


def test_every_setting_of_trl_is_accounted_for():
    inherited = {one.name for one in fields(TrainingArguments)}
    assert THEIRS.keys() - inherited - trl.SETTINGS.keys() == set()
    assert trl.SETTINGS.keys() - THEIRS.keys() == OLDER


@pytest.mark.parametrize("name", trl.SETTINGS)
def test_what_the_account_says_of_this_package_is_there(name):
    one = trl.SETTINGS[name]
    assert set(one.here) <= OURS.keys()
    assert (one.fate == "translated") == bool(one.here) or name == "lora_modules_to_save"
    if one.fate == "same":
        assert name in OURS
    else:
        assert one.kind is not None
    if one.fate == "refused":
        default = THEIRS[name].default
        asks_for_nothing = [] if default is MISSING else default
        assert one.harmless == asks_for_nothing or (one.harmless, default) == ({}, None)


def test_the_table_of_the_book_is_the_account():
    for name, one in trl.SETTINGS.items():
        here = ", ".join(f"`{own}`" for own in one.here) or one.fate
        assert f"| `{name}` | {here} | {one.remark} |" in PAGE


def test_the_book_names_every_default_that_differs():
    table = PAGE[PAGE.index("## Recipes") :]
    for name in THEIRS.keys() & OURS.keys() - trl.SETTINGS.keys():
        default = THEIRS[name].default
        if default != OURS[name].default:
            shown = f"{default:g}" if isinstance(default, int | float) else default
            assert f"| `{name}` | {shown} |" in table, name


def understood(tmp_path, text, *options):
    """Settings, and what was handed to the translation."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    seen = []

    def translate(theirs, ours):
        seen.append((theirs, ours))
        return {"model": "tiny", "data": ["simulator:9"]} | (
            {"max_tokens": theirs["max_length"]} if "max_length" in theirs else {}
        )

    parser = TrlParser((TrainSettings, RankingConfig))
    command = ["--config", str(path), "--output_dir", str(tmp_path / "out"), "--use_cpu", *options]
    settings, _ = parse(parser, command, translate)
    return settings, seen[0][0]


def test_options_win_over_the_file_whichever_name_they_use(tmp_path):
    settings, theirs = understood(tmp_path, "max_length: 20\n", "--max_length", "30")
    assert (settings.max_tokens, theirs) == (30, {"max_length": 30})
    settings, theirs = understood(tmp_path, "max_length: 20\n", "--max_tokens", "30")
    assert (settings.max_tokens, theirs) == (30, {})
    settings, theirs = understood(tmp_path, "max_tokens: 20\n", "--max-length=30")
    assert (settings.max_tokens, theirs) == (30, {"max_length": 30})


def test_both_names_of_one_setting_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"run\.yaml: max_length of TRL and max_tokens say the"):
        understood(tmp_path, "max_length: 20\nmax_tokens: 20\n")
    with pytest.raises(UserError, match="--use_peft of TRL and lora_rank say the same"):
        understood(tmp_path, "seed: 1\n", "--use_peft", "--lora_rank", "8")


def test_a_value_of_another_type_is_named(tmp_path):
    with pytest.raises(UserError, match=r"run\.yaml: lora_r must be a whole number, not 'many'"):
        understood(tmp_path, "lora_r: many\n")
    with pytest.raises(UserError, match="--use_peft must be true or false, not 'maybe'"):
        understood(tmp_path, "seed: 1\n", "--use_peft", "maybe")


def test_options_are_read_as_trl_reads_them():
    command = "--use_peft --data a.jsonl b.jsonl --lora-target-modules q_proj v_proj --seed=3"
    theirs, rest = trl.split_options("", [*command.split(), "--no_gradient_checkpointing"])
    (model,) = TrlParser((ModelConfig,)).parse_args_into_dataclasses(
        ["--use_peft", "--lora-target-modules", "q_proj", "v_proj"]
    )
    assert theirs == {
        "use_peft": model.use_peft,
        "lora_target_modules": model.lora_target_modules,
        "gradient_checkpointing": False,
    }
    assert rest == ["--data", "a.jsonl", "b.jsonl", "--seed=3"]


def test_what_is_null_says_nothing(tmp_path):
    _, theirs = understood(tmp_path, "center_rewards_coefficient: null\nmax_length: null\n")
    assert set(theirs.values()) == {None}

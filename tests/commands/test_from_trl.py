"""A configuration of ``trl reward`` trains here as it is, and what becomes of it is said."""

import json
import logging

import pytest
import torch
import yaml
from datasets import load_dataset
from tiny_runs import refusal, weights
from trl import ModelConfig, RewardConfig, ScriptArguments, TrlParser

from posttrain import cli
from posttrain.commands.common import parse
from posttrain.commands.from_trl import translated
from posttrain.commands.train_settings import TrainSettings
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.training.config import RankingConfig


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """A folder of conversations by split, as data sets on the hub are stored."""
    folder = tmp_path_factory.mktemp("preferences")
    (folder / "data").mkdir()
    groups = [simulated.ranked for simulated in simulate(60, seed=5)]
    write_groups(folder / "data/train-00000-of-00001.parquet", groups[:48])
    write_groups(folder / "data/test-00000-of-00001.parquet", groups[48:])
    return folder


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """A file of conversations, of which one is longer than those of :data:`REWARD` may be."""
    path = tmp_path_factory.mktemp("conversations") / "mine.jsonl"
    lines = []
    for number in range(40):
        prompt = [{"role": "user", "content": f"what is {number} plus {number % 7}"}]
        answers = (f"it is {number + number % 7}", "no idea " * (200 if number == 0 else 1))
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in answers)
        lines.append(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
    path.write_text("\n".join(lines) + "\n")
    return path


#: What a user of TRL may have.
REWARD = {
    "use_peft": True,
    "lora_r": 2,
    "lora_alpha": 8,
    "lora_target_modules": ["q_proj", "v_proj"],
    "lora_modules_to_save": ["score"],
    "lora_task_type": "SEQ_CLS",
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": True,
    "max_length": 128,
    "learning_rate": 1.0e-3,
    "num_train_epochs": 1,
    "dataset_num_proc": 1,
    "attn_implementation": "sdpa",
    "dtype": "float32",
    "bf16": False,
    "trust_remote_code": False,
    "load_in_4bit": False,
    "disable_dropout": True,
    "center_rewards_coefficient": 0.01,
    "remove_unused_columns": True,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "logging_steps": 1,
    "use_cpu": True,
    "report_to": "none",
    "push_to_hub": False,
}


def written(tmp_path, **settings):
    path = tmp_path / "reward.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def account_of(path, folder):
    assert cli.main(["train", "--config", str(path), "--resamples", "20"]) == 0
    return json.loads((folder / "run.json").read_text())


def test_a_configuration_with_a_folder_trains_as_it_is(
    tiny_checkpoint, preferences, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    settings = REWARD | {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset_name": str(preferences),
        "output_dir": str(run),
    }
    path = written(tmp_path, **settings)
    script, _, model = TrlParser(
        (ScriptArguments, RewardConfig, ModelConfig)
    ).parse_args_and_config(["--config", str(path)])
    assert (script.dataset_name, model.lora_r) == (str(preferences), 2)
    account = account_of(path, run)
    # The same files as TRL's loader takes.
    splits = load_dataset(str(preferences), cache_dir=str(tmp_path / "cache"))
    assert account["data"]["training"]["groups"] == len(splits["train"]) == 48
    assert account["data"]["evaluation"]["groups"] == len(splits["test"]) == 12
    assert account["steps"] == 48 // (4 * 2)
    chosen = account["settings"] | account["training"]
    names = ("lora_rank", "pairs_per_step", "max_tokens", "attention")
    assert [chosen[name] for name in names] == [2, 8, 128, "sdpa"]
    assert chosen["lora_target_modules"] == ["q_proj", "v_proj"]
    moved = {
        name.rpartition("layers.")[2]
        for name, weight in weights(tiny_checkpoint).items()
        if not torch.equal(weight.float(), weights(run)[name])
    }
    assert moved == {f"{layer}.self_attn.{one}_proj.weight" for layer in (0, 1) for one in "qv"}
    assert (
        "per_device_train_batch_size 4 × gradient_accumulation_steps 2 on 1 process: "
        "pairs_per_step is 8"
    ) in caplog.text
    said = [message for message in caplog.messages if "pairs_per_step is 8" in message]
    assert len(said) == 1


def test_a_configuration_with_a_file_trains_as_it_is(
    tiny_checkpoint, conversations, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    settings = REWARD | {
        "model_name_or_path": str(tiny_checkpoint),
        "dataset_name": str(conversations),
        "output_dir": str(run),
    }
    account = account_of(written(tmp_path, **settings), run)
    counts = account["data"]
    found = counts["training"]["groups"] + counts["evaluation"]["groups"]
    # The response that is longer than max_length is left out and counted.
    assert found == 39
    assert "eval_fraction of its groups are held out" in caplog.text


def test_options_of_trl_are_understood(tiny_checkpoint, preferences, tmp_path):
    run = tmp_path / "run"
    options = f"--model_name_or_path {tiny_checkpoint} --dataset_name {preferences} --use_cpu"
    options += f" --output_dir {run} --per_device_train_batch_size 16 --report_to none"
    assert cli.main(["train", *options.split(), "--max_steps", "1", "--eval_fraction", "0"]) == 0
    account = json.loads((run / "run.json").read_text())
    assert account["training"]["pairs_per_step"] == 16
    # Nothing asks for evaluation, so the test split stays aside.
    assert account["data"]["training"]["groups"] == 48
    assert "evaluation" not in account["data"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"trust_remote_code": True}, "code of a checkpoint is never run"),
        ({"load_in_4bit": True}, "use lora_rank with dtype bfloat16"),
        ({"load_in_8bit": True}, "use lora_rank with dtype bfloat16"),
        ({"use_dora": True}, "use LoRA"),
        ({"activation_offloading": True}, "use gradient_checkpointing"),
        ({"datasets": [{"path": "a/b"}]}, "name them in data"),
        ({"lora_modules_to_save": ["score", "embed_tokens"]}, "names embed_tokens"),
        ({"per_device_train_batch_size": 0}, "must be at least 1, not 0"),
        ({"dataset_config": "default"}, "dataset_name is meant, which is not given"),
        ({"dataset_name": "imdb"}, "is no folder, no file"),
        ({"chat_template_path": "nowhere"}, "there is no file nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_with_a_remedy(given, expected):
    with pytest.raises(UserError, match=expected):
        translated(given, {})


@pytest.mark.parametrize(
    ("given", "ours", "expected"),
    [
        ({"load_in_4bit": False, "model_init_kwargs": {}, "datasets": []}, {}, {}),
        ({"lora_r": 4}, {}, {}),
        ({"use_peft": False, "lora_r": 4}, {}, {}),
        ({"use_peft": True}, {}, {"lora_rank": 16}),
        ({"gradient_accumulation_steps": 4}, {}, {"pairs_per_step": 32}),
        ({"max_length": 9}, {"skip_too_long": "false"}, {"max_tokens": 9}),
        ({"max_length": 9}, {}, {"max_tokens": 9, "skip_too_long": True}),
        ({"dataset_name": "a/b"}, {}, {"data": ["a/b:train"]}),
        (
            {"dataset_name": "a/b", "dataset_config": "c", "dataset_train_split": "d"},
            {"eval_strategy": "epoch"},
            {"data": ["a/b/c:d"], "eval_data": ["a/b/c:test"]},
        ),
        (
            {"dataset_name": "a/b"},
            {"eval_strategy": "epoch", "eval_data": "mine.jsonl"},
            {"data": ["a/b:train"]},
        ),
    ],
    ids=str,
)
def test_settings_become_those_that_mean_the_same(given, ours, expected):
    assert translated(given, ours) == expected


@pytest.mark.parametrize(
    ("in_file", "options", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, "--dtype float32", {"dtype": "float32"}),
        ({"dtype": "bfloat16"}, "--torch_dtype float32", {"dtype": "float32"}),
        ({"max_length": 64}, "--max_tokens 32", {"max_tokens": 32}),
        (
            {"dataset_name": "nowhere", "dataset_test_split": "dev", "eval_strategy": "epoch"},
            "--data simulator:9",
            {"data": ["simulator:9"], "eval_data": []},
        ),
    ],
    ids=str,
)
def test_options_win_over_the_file_by_either_name(tmp_path, in_file, options, expected):
    path = tmp_path / "reward.yaml"
    path.write_text(yaml.safe_dump({"model": "tiny", "use_cpu": True} | in_file))
    arguments = ["--config", str(path), "--data", "simulator:5", *options.split()]
    if "--data" in options:
        arguments = arguments[:2] + options.split()
    settings, _ = parse("train", (TrainSettings, RankingConfig), "", arguments, translated)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize("options", ["--dtype float32 --torch_dtype float32", "--max_length 3"])
def test_one_thing_by_two_names_is_refused(tmp_path, options):
    arguments = ["--model", "tiny", "--data", "simulator:5", "--max_tokens", "3", *options.split()]
    with pytest.raises(UserError, match="say the same thing; give one of them"):
        parse("train", (TrainSettings, RankingConfig), "", arguments, translated)


def test_a_step_takes_the_batches_of_all_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert translated({"per_device_train_batch_size": 5}, {}) == {"pairs_per_step": 15}


def test_the_files_of_a_folder_are_found_by_split(tmp_path):
    for name in ("train.jsonl", "validation.jsonl", "README.md"):
        (tmp_path / name).write_text("{}\n")
    given = {"dataset_name": str(tmp_path)}
    assert translated(given, {}) == {"data": [str(tmp_path / "train.jsonl")]}
    # Without a test split, part of the training data is held out, unless that one was asked for.
    asked = {"eval_strategy": "steps"}
    assert translated(given, asked) == {"data": [str(tmp_path / "train.jsonl")]}
    with pytest.raises(UserError, match=r"no split 'test' .*; it has train, validation"):
        translated(given | {"dataset_test_split": "test"}, asked)
    with pytest.raises(UserError, match=r"no split 'dev' \(dataset_train_split\)"):
        translated(given | {"dataset_train_split": "dev"}, {})
    assert translated(given | {"dataset_test_split": "validation"}, asked)["eval_data"] == [
        str(tmp_path / "validation.jsonl")
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("no data")
    with pytest.raises(UserError, match="holds no files of data"):
        translated({"dataset_name": str(tmp_path / "other")}, {})


def test_a_refusal_comes_before_anything_is_read(tmp_path, capsys):
    path = written(tmp_path, model_name_or_path="no/where", dataset_name="no/where", use_dora=True)
    assert "use_dora=True of TRL is not supported here" in refusal(
        capsys, cli.main(["train", "--config", str(path)])
    )


@pytest.mark.parametrize(
    ("option", "like"),
    [("--layuot", "--layout"), ("--use_pfet", "--use_peft"), ("--lora-rnk=3", "--lora_rank")],
)
def test_an_unknown_option_gets_the_one_most_like_it(option, like, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", option, "x"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"unknown settings: {option.partition('=')[0]} (did you mean {like}?)" in error
    assert "usage:" not in error

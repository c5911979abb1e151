"""``posttrain sft``: whole runs of a tiny model, resumed, refused, and loaded by others."""

import json

import pytest
import torch
from command_line import refused, run
from policy_runs import interrupted, train
from tiny_runs import assert_equal_weights, refusal, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.commands.policy_settings import SftSettings
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models.float64 import compute_in_double
from posttrain.policy.datasets import demonstration_set
from posttrain.policy.sft import FinetuningConfig, finetune
from posttrain.training.checkpoints import MANIFEST, checkpoints_in, verify_manifest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory, tiny_checkpoint):
    """The folder of a run that nothing interrupted; nothing may write into it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train("sft", tiny_checkpoint, folder) == 0
    return folder


def test_a_run_leaves_a_model_a_card_and_an_account(finetuned):
    account = json.loads((finetuned / "run.json").read_text())
    assert account["steps"] == 6
    assert account["data"]["training"]["demonstrations"] == 48
    assert 0 < account["logged"]["mean_token_accuracy"] < 1
    assert account["training_loss"] > 0
    assert account["training"]["bf16"] is False
    assert account["training"]["gradient_checkpointing"] is False
    card = (finetuned / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "finetuned on demonstrations" in card
    assert f"| training loss | {account['training_loss']:.4f} |" in card
    assert not list(finetuned.glob(".model-partial"))
    folders = checkpoints_in(finetuned)
    assert [path.name for path in folders] == ["checkpoint-6", "checkpoint-4", "checkpoint-2"]
    assert all(verify_manifest(path) is None for path in folders)


def test_stock_classes_load_what_the_policy_room_trains(finetuned, tiny_checkpoint, tmp_path):
    groups = [group.ranked for group in simulate(48, seed=3)]
    data = demonstration_set([g.prompt for g in groups], [g.responses[0] for g in groups])
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")
    config = FinetuningConfig(
        str(tmp_path), per_device_train_batch_size=8, num_train_epochs=1, learning_rate=1e-3,
        max_length=256, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    finetune(model, AutoTokenizer.from_pretrained(tiny_checkpoint), data, config)
    loaded, found = AutoModelForCausalLM.from_pretrained(finetuned, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=0, atol=0, msg=name)
    tokens = torch.arange(9)[None]
    compute_in_double(loaded)
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits)


def test_a_run_goes_on_from_its_last_whole_checkpoint(finetuned, tiny_checkpoint, tmp_path, caplog):
    folder = interrupted(finetuned, tmp_path / "killed", after=4)
    (folder / "checkpoint-4" / MANIFEST).unlink()
    with caplog.at_level("INFO", logger="posttrain"):
        assert train("sft", tiny_checkpoint, folder, "--resume") == 0
    assert f"resuming from {folder / 'checkpoint-2'}" in caplog.text
    assert_equal_weights(finetuned, folder)


def test_a_folder_holds_one_run(finetuned, tiny_checkpoint, tmp_path, capsys):
    code = train("sft", tiny_checkpoint, finetuned)
    assert "holds a run already" in refusal(capsys, code)
    folder = interrupted(finetuned, tmp_path / "killed", after=2)
    code = train("sft", tiny_checkpoint, folder, "--resume", learning_rate=2e-3)
    assert "learning_rate (0.001 → 0.002)" in refusal(capsys, code)
    code = train("sft", tiny_checkpoint, tmp_path / "none", "--resume")
    assert "holds no run to resume" in refusal(capsys, code)


def test_other_data_under_the_same_name_are_not_gone_on_with(tiny_checkpoint, tmp_path, capsys):
    data = tmp_path / "mine.jsonl"
    rows = [{"prompt": "sort : two one", "response": "one two ."}] * 4
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    assert train("sft", tiny_checkpoint, folder, data=data, save_steps=1) == 0
    (folder / "config.json").unlink()
    data.write_text(data.read_text().replace("one two", "two one"))
    code = train("sft", tiny_checkpoint, folder, "--resume", data=data, save_steps=1)
    assert "training data of the run" in refusal(capsys, code)


def test_adapters_are_merged_into_the_model(tiny_checkpoint, tmp_path):
    folder = tmp_path / "lora"
    assert train("sft", tiny_checkpoint, folder, lora_rank=2, learning_rate=1e-2) == 0
    before, after = weights(tiny_checkpoint), weights(folder)
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all("_proj." in name for name in changed)
    difference = next(after[name] - before[name] for name in changed)
    assert torch.linalg.matrix_rank(difference, atol=1e-9) <= 2
    again = interrupted(folder, tmp_path / "again", after=2)
    assert train("sft", tiny_checkpoint, again, "--resume", lora_rank=2, learning_rate=1e-2) == 0
    assert_equal_weights(folder, again)


def test_samples_with_scores_are_read_as_they_stand(tiny_checkpoint, tmp_path):
    data = tmp_path / "samples.jsonl"
    row = {
        "id": "a", "prompt": [{"role": "user", "content": "sort : two one"}],
        "responses": ["two one .", "one two .", "one one"], "scores": [0.1, 0.7, 2.0],
        "finished": [True, True, False], "log_probabilities": [-1.0, -2.0, -3.0],
    }  # fmt: skip
    data.write_text(json.dumps(row) + "\n")
    assert train("sft", tiny_checkpoint, tmp_path / "run", data=data, save_steps=5) == 0
    account = json.loads((tmp_path / "run" / "run.json").read_text())
    assert account["data"]["training"]["demonstrations"] == 1
    assert account["data"]["notes"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_length": 3}, "are read at most (max_length"),
        ({"max_length": 3, "skip_too_long": "true"}, "nothing is left to train on"),
        ({"resume_from_checkpoint": "x"}, "go on from the last whole checkpoint with --resume"),
        ({"eval_strategy": "steps", "eval_steps": 2}, "nothing is evaluated here"),
        ({"trust_remote_code": "true"}, "code of a checkpoint is never run"),
        ({"data": None}, "give data to train on"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"lora_rank": -1}, "lora_rank must be at least 0"),
        ({"model": "no/where/at/all"}, "gave no such model"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused(tiny_checkpoint, tmp_path, capsys, changes, words):
    model = changes.pop("model", tiny_checkpoint)
    assert words in refusal(capsys, train("sft", model, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_bad_record_is_named_with_its_place(tiny_checkpoint, tmp_path, capsys):
    data = tmp_path / "mine.jsonl"
    data.write_text('{"prompt": "sort : a", "response": "a ."}\n{"prompt": "sort : b"}\n')
    arguments = {"data": data, "save_steps": 5}
    code = train("sft", tiny_checkpoint, tmp_path / "run", **arguments)
    assert f"{data}, line 2, field 'response': it is missing" in refusal(capsys, code)
    assert train("sft", tiny_checkpoint, tmp_path / "run", "--skip_bad", **arguments) == 0
    account = json.loads((tmp_path / "run" / "run.json").read_text())
    assert account["data"]["read"] == {"bad records": 1}


def test_settings_do_not_clash_with_those_of_trl(capsys):
    assert refused("sft", "--help_all") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: posttrain sft")
    for name in ("--lora_rank", "--completion_only_loss", "--packing", "--eos_token"):
        assert name in shown
    assert SftSettings(model="tiny", data=["simulator:5"]).adapters() is None


def test_a_reward_model_is_refused(tiny_model, tmp_path, capsys):
    model, tokenizer = tiny_model
    model.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    code = run("sft", "--model", tmp_path / "reward", "--data", "simulator:4", "--output_dir",
               tmp_path / "run", "--use_cpu", "--report_to", "none")  # fmt: skip
    assert "which writes no text" in refusal(capsys, code)

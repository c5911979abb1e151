"""``posttrain average``: the mean of weights as a model that others load, and what is refused."""

import json
import re
import shutil

import pytest
import torch
from command_line import refused, run
from tiny_runs import refusal, weights
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from posttrain.evaluation.calibration import FILE
from posttrain.models.loading import contents

AUTO = {"causal": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


def saved(checkpoint, folder, *, seed, kind="causal"):
    """A folder of the small checkpoint with other weights."""
    named = {"num_labels": 1} if kind == "reward" else {}
    torch.manual_seed(seed)
    model = AUTO[kind].from_pretrained(checkpoint, **named)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", AUTO)
def test_weights_are_the_mean_and_load_as_what_they_were(tiny_checkpoint, tmp_path, kind, capsys):
    folders = [
        saved(tiny_checkpoint, tmp_path / str(seed), seed=seed, kind=kind) for seed in range(3)
    ]
    (folders[1] / FILE).write_text("{}")
    assert run("average", *folders, "--output_dir", tmp_path / "mean") == 0
    assert f"{tmp_path / 'mean'}: the mean of 3" in capsys.readouterr().out
    before = [weights(folder) for folder in folders]
    after = weights(tmp_path / "mean")
    assert after.keys() == before[0].keys()
    for name, weight in after.items():
        mean = sum(one[name] for one in before) / 3
        torch.testing.assert_close(weight, mean, rtol=0, atol=1e-15)
    model, found = AUTO[kind].from_pretrained(tmp_path / "mean", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert model.dtype == torch.float64
    assert not (tmp_path / "mean" / FILE).exists()
    assert AutoTokenizer.from_pretrained(tmp_path / "mean").chat_template


def test_the_card_lists_the_sources(tiny_checkpoint, tmp_path, caplog):
    folders = [saved(tiny_checkpoint, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    (folders[0] / FILE).write_text("{}")
    assert run("average", *folders, "--output_dir", tmp_path / "mean") == 0
    assert f"the calibration of {folders[0]} is of its own scores and is not copied" in caplog.text
    card = (tmp_path / "mean" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# Average of 2 language models" in card
    for folder in folders:
        assert f"| `{folder}` | `{contents(folder)}` |" in card
    account = json.loads((tmp_path / "mean" / "run.json").read_text())
    assert [one["model"] for one in account["sources"]] == [str(folder) for folder in folders]


def test_what_is_not_alike_is_refused(tiny_checkpoint, grouped_checkpoint, tmp_path, capsys):
    first = saved(tiny_checkpoint, tmp_path / "first", seed=0)
    reward = saved(tiny_checkpoint, tmp_path / "reward", seed=0, kind="reward")
    other = saved(tiny_checkpoint, tmp_path / "other", seed=1)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template += " "
    tokenizer.save_pretrained(other)
    for folders, words in (
        ([first], "give two or more"),
        ([first, reward], "is a LlamaForSequenceClassification, and .* a LlamaForCausalLM"),
        ([reward, grouped_checkpoint], "has a vocabulary of 32"),
        ([first, other], "another tokenizer or chat template"),
        ([first, tmp_path / "none"], "no folder"),
    ):
        message = refusal(capsys, run("average", *folders, "--output_dir", tmp_path / "mean"))
        assert re.search(words, message), message
        assert not (tmp_path / "mean").exists()


def test_a_folder_with_a_model_is_not_overwritten(tiny_checkpoint, tmp_path, capsys):
    first = saved(tiny_checkpoint, tmp_path / "first", seed=0)
    code = run("average", first, first, "--output_dir", first)
    assert "holds a model already" in refusal(capsys, code)


def test_an_adapter_is_refused(tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(tiny_checkpoint, tmp_path / "adapter")
    (tmp_path / "adapter" / "config.json").unlink()
    named = json.dumps({"base_model_name_or_path": str(tiny_checkpoint)})
    (tmp_path / "adapter" / "adapter_config.json").write_text(named)
    code = run("average", tiny_checkpoint, tmp_path / "adapter", "--output_dir", tmp_path / "mean")
    assert "holds an adapter" in refusal(capsys, code)


def test_help_is_there(capsys):
    assert refused("average", "--help") == 0
    assert capsys.readouterr().out.startswith("usage: posttrain average")

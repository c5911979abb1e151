"""Adapters as peft saves them: scored as they are, merged before they are trained on."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from posttrain.errors import UserError
from posttrain.models import adapters, reward_model

IDS = torch.tensor([[7, 8, 9, 10, 11, 12, 13, 14]])
REWARD = {"task_type": "SEQ_CLS", "target_modules": "all-linear", "r": 4}
KINDS = {
    "lora": LoraConfig(**REWARD),
    "whole embedding": LoraConfig(**REWARD, modules_to_save=["embed_tokens", "score"]),
    "some embeddings": LoraConfig(**REWARD, trainable_token_indices=[8, 9]),
    "head adapted": LoraConfig(r=4, target_modules=["q_proj", "score"]),
}


@pytest.fixture
def adapter(tiny_checkpoint, tmp_path):
    """Saves an adapter of some kind that changes scores, of a float64 base with a head."""

    def save(settings, base=AutoModelForSequenceClassification):
        torch.manual_seed(0)
        labels = {} if base is AutoModelForCausalLM else {"num_labels": 1}
        whole = base.from_pretrained(tiny_checkpoint, **labels)
        whole.save_pretrained(tmp_path / "base")
        model = get_peft_model(
            base.from_pretrained(tmp_path / "base", **labels), deepcopy(settings)
        )
        for weight in model.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1)
        for folder in ("base", "adapter"):
            AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / folder)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return save


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def stock_score(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    return model(IDS).logits.item()


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_scores_as_with_the_adapter(adapter, tmp_path, kind):
    folder = adapter(KINDS[kind])
    expected = stock_score(folder)
    assert abs(expected - stock_score(tmp_path / "base")) > 1e-3
    model, _ = reward_model.load(folder)
    assert not reward_model.has_fresh_head(model)
    head = reward_model.score_head(model)
    assert reward_model._apply_head(head, model.model(IDS).last_hidden_state[:, -1]).item() == (
        pytest.approx(expected, abs=1e-6)
    )
    merged = adapters.merge(model)
    plain = AutoModelForSequenceClassification.from_config(merged.config).state_dict()
    assert merged.state_dict().keys() == plain.keys()
    assert merged(IDS).logits.item() == pytest.approx(expected, abs=1e-6)
    merged.save_pretrained(tmp_path / "merged")
    assert stock_score(tmp_path / "merged") == merged(IDS).logits.item()


def test_what_is_merged_is_rounded_after_it_is_added(adapter, tmp_path):
    folder = adapter(KINDS["lora"])
    model, _ = reward_model.load(folder, dtype=torch.bfloat16)
    assert adapters.merge(model).dtype == torch.float32
    model, _ = reward_model.load(folder, dtype=torch.bfloat16)
    merged = adapters.merge(model, precision=torch.bfloat16)
    assert (merged.dtype, merged.score.weight.dtype) == (torch.bfloat16, torch.float32)
    assert merged(IDS).logits.item() == pytest.approx(stock_score(folder), rel=0.1)


def test_an_adapter_of_a_language_model_gets_a_fresh_head(adapter):
    folder = adapter(
        LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4), AutoModelForCausalLM
    )
    scores = []
    for seed in (0, 0, 1):
        model, _ = reward_model.load(folder, seed=seed)
        assert reward_model.has_fresh_head(model)
        scores.append(model(IDS).logits.item())
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("base", ["/nowhere/base", "owner/nothing-of-this-name", None])
def test_a_base_that_is_missing_is_named(adapter, monkeypatch, base):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = adapter(KINDS["lora"])
    change(folder, base_model_name_or_path=base)
    with pytest.raises(UserError, match=base or "names no base") as refused:
        reward_model.load(folder)
    assert "base_model_name_or_path" in str(refused.value)


def test_an_adapter_of_an_adapter_is_refused(adapter, tmp_path):
    folder = adapter(KINDS["lora"])
    second = shutil.copytree(folder, tmp_path / "second")
    change(second, base_model_name_or_path=str(folder))
    with pytest.raises(UserError, match=f"adapts '{folder}', which is an adapter itself"):
        reward_model.load(second)


def test_a_base_that_lacks_weights_is_refused(adapter, tmp_path):
    folder = adapter(KINDS["lora"])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    weights = {name: weight for name, weight in model.state_dict().items() if "norm" not in name}
    model.save_pretrained(tmp_path / "base", state_dict=weights)
    with pytest.raises(UserError, match="lacks 5 weights"):
        reward_model.load(folder)


def test_pickled_and_other_adapters_are_refused(adapter):
    folder = adapter(PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2))
    with pytest.raises(UserError, match="prompt learning"):
        reward_model.load(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"in pickles \(adapter_model\.bin\)"):
        reward_model.load(folder)


def adapted(model):
    return {
        name.removeprefix("base_model.model.").partition(".lora_")[0]
        for name, weight in model.named_parameters()
        if ".lora_" in name and weight.requires_grad
    }


@pytest.mark.parametrize(
    ("targets", "ends"),
    [
        (["q_proj", "self_attn.v_proj"], {"q_proj", "v_proj"}),
        (["layers.0.mlp.up_proj"], {"up_proj"}),
        ([], {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}),
        (["all-linear"], {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}),
    ],
    ids=["two", "one", "default", "all"],
)
def test_only_targets_get_adapters(tiny_checkpoint, targets, ends):
    stock, _ = reward_model.load(tiny_checkpoint)
    settings = {"rank": 2, "alpha": 4, "dropout": 0.0, "seed": 0}
    model = adapters.add_lora(stock, **settings, targets=targets)
    found = adapted(model)
    assert {name.rpartition(".")[2] for name in found} == ends
    assert len(found) == (1 if "layers.0" in str(targets) else 2 * len(ends))
    # The head is trained whole.
    assert any("score" in name for name, one in model.named_parameters() if one.requires_grad)


@pytest.mark.parametrize("target", ["score", "qproj", "proj", "embed_tokens"])
def test_a_target_that_is_no_linear_layer_is_refused(tiny_checkpoint, target):
    stock, _ = reward_model.load(tiny_checkpoint)
    with pytest.raises(UserError, match=f"names {target}, which is no linear layer .* q_proj"):
        adapters.add_lora(stock, rank=2, alpha=4, dropout=0.0, seed=0, targets=["q_proj", target])

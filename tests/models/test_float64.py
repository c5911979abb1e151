from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain.models import reward_model
from posttrain.models.float64 import (
    DoubleRotaryEmbedding,
    compute_in_double,
    computing_in_double,
    next_token_loss,
)

IDS = torch.tensor([[7, 8, 9, 10, 11, 12, 13, 14]])


def test_double_model_is_the_stock_model_up_to_float32_rounding(tiny_checkpoint: Path) -> None:
    stock = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    double = compute_in_double(AutoModelForCausalLM.from_pretrained(tiny_checkpoint))
    difference = (stock(IDS).logits - double(IDS).logits).abs().max()
    assert 0 < difference < 1e-5


def test_parameters_and_their_names_stay(tiny_checkpoint: Path) -> None:
    stock = AutoModelForCausalLM.from_pretrained(tiny_checkpoint).state_dict()
    double = compute_in_double(AutoModelForCausalLM.from_pretrained(tiny_checkpoint)).state_dict()
    assert list(stock) == list(double)
    assert all(torch.equal(stock[name], double[name]) for name in stock)


def test_norms_compute_in_float64(tiny_checkpoint: Path) -> None:
    model = compute_in_double(AutoModelForCausalLM.from_pretrained(tiny_checkpoint))
    norm = model.model.norm
    states = torch.randn(5, model.config.hidden_size, dtype=torch.float64)
    scale = torch.sqrt((states**2).mean(dim=-1, keepdim=True) + model.config.rms_norm_eps)
    assert (norm(states) - norm.weight * states / scale).abs().max() < 1e-14


def test_rotary_angles_are_exact() -> None:
    embedding = DoubleRotaryEmbedding(10_000.0, 8)
    cosine, sine = embedding(torch.zeros(1, dtype=torch.float64), torch.arange(50)[None])
    frequencies = 10_000.0 ** -(np.arange(0, 8, 2) / 8)
    angles = np.arange(50)[:, None] * np.concatenate([frequencies, frequencies])
    np.testing.assert_allclose(cosine[0], np.cos(angles), atol=1e-14)
    np.testing.assert_allclose(sine[0], np.sin(angles), atol=1e-14)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_other_precisions_are_left_alone(tiny_checkpoint: Path, precision: torch.dtype) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_checkpoint, num_labels=1, dtype=precision
    )
    before = [type(module) for module in model.modules()]
    assert [type(module) for module in compute_in_double(model).modules()] == before


def test_next_token_loss_is_the_stock_loss_up_to_float32_rounding(tiny_checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    labels = IDS.clone()
    labels[0, 3] = -100
    outputs = model(IDS, labels=labels)
    loss = next_token_loss(outputs, labels)
    assert loss.dtype == torch.float64
    assert abs(loss - outputs.loss) < 1e-5
    counted = next_token_loss(outputs, labels, num_items_in_batch=torch.tensor(12))
    assert torch.isclose(counted, loss * 6 / 12)


def test_a_loaded_model_gives_the_stock_score_of_float64(tiny_checkpoint: Path) -> None:
    ours, _ = reward_model.load(tiny_checkpoint, seed=1)
    stock = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=1)
    stock.score.load_state_dict(ours.score.state_dict())
    expected = stock.eval()(IDS).logits
    assert torch.equal(ours(IDS).logits, expected)
    assert not torch.equal(compute_in_double(ours)(IDS).logits, expected)


def test_double_precision_ends_and_training_stays(tiny_checkpoint: Path) -> None:
    model, _ = reward_model.load(tiny_checkpoint)
    before = [(name, type(module)) for name, module in model.named_modules()]
    stock = model(IDS).logits
    with computing_in_double(model):
        assert 0 < (model(IDS).logits - stock).abs().max() < 1e-5
        model.model.norm.weight = torch.nn.Parameter(2 * model.model.norm.weight)
    assert [(name, type(module)) for name, module in model.named_modules()] == before
    assert torch.allclose(model(IDS).logits, 2 * stock, rtol=0, atol=1e-12)

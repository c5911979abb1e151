"""Scores must not depend on batching or padding, and must be those of the stock model."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from posttrain import reward_model
from posttrain.reward_model import forward_scores, score, score_head
from posttrain.rows import Row, pad

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def rows(tiny_rows):
    return [row for group in tiny_rows for row in group]


@pytest.fixture
def model(tiny_model):
    """A model whose scores are of order one, so that 1e-12 is a demanding tolerance."""
    model, _ = tiny_model
    torch.nn.init.normal_(score_head(model).weight, generator=torch.Generator().manual_seed(0))
    return model


def test_rows_differ_in_length_and_score(model, rows):
    # The tests below would pass vacuously otherwise.
    assert len({len(row.ids) for row in rows}) > 5
    assert score(model, rows, pad_token_id=0).std() > 0.1


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_scores_do_not_depend_on_the_batch_size(model, rows, batch_size):
    together = score(model, rows, pad_token_id=0, batch_size=64)
    assert together.shape == (len(rows),)
    torch.testing.assert_close(
        score(model, rows, pad_token_id=0, batch_size=batch_size), together, **EXACT
    )


def test_scores_do_not_depend_on_the_padding_token(model, rows):
    expected = score(model, rows, pad_token_id=model.config.pad_token_id)
    end = model.config.eos_token_id
    assert all(row.ids[-1] == end for row in rows)
    for pad_token_id in (end, 17):
        torch.testing.assert_close(score(model, rows, pad_token_id=pad_token_id), expected, **EXACT)


def test_scores_come_in_the_order_of_the_rows(model, rows):
    scores = score(model, rows, pad_token_id=0, batch_size=5)
    backwards = score(model, rows[::-1], pad_token_id=0, batch_size=5)
    torch.testing.assert_close(backwards.flip(0), scores, **EXACT)


def test_a_score_is_that_of_the_stock_model(model, rows):
    scores = score(model, rows, pad_token_id=0)
    stock = [model(torch.tensor([row.ids])).logits.item() for row in rows]
    torch.testing.assert_close(scores, torch.tensor(stock, dtype=torch.float64), **EXACT)


def test_the_stock_model_scores_a_padded_batch_alike(model, rows):
    batch = pad([row.ids for row in rows], model.config.pad_token_id)
    stock = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(forward_scores(model, batch), stock.squeeze(-1), **EXACT)


def test_a_row_is_scored_where_its_index_says(model):
    batch = pad([(6, 7, 8, 9, 10)], 0)
    batch.score_index[0] = 2
    expected = score(model, [Row((6, 7, 8), 1)], pad_token_id=0)
    torch.testing.assert_close(forward_scores(model, batch).detach(), expected, **EXACT)


def test_scoring_is_without_dropout_and_leaves_the_mode_alone(model, rows):
    expected = score(model, rows, pad_token_id=0)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    scores = score(model, rows, pad_token_id=0)
    torch.testing.assert_close(scores, expected, **EXACT)
    assert not scores.requires_grad
    assert model.training
    model.eval()
    score(model, rows, pad_token_id=0)
    assert not model.training


def test_forward_scores_reach_every_parameter(model, rows):
    forward_scores(model, pad([row.ids for row in rows], 0)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_no_rows_have_no_scores(model):
    assert score(model, [], pad_token_id=0).shape == (0,)


def test_the_head_depends_on_the_seed_and_on_nothing_else(tiny_checkpoint):
    first, _ = reward_model.load(tiny_checkpoint, seed=3)
    torch.rand(5)
    again, _ = reward_model.load(tiny_checkpoint, seed=3)
    other, _ = reward_model.load(tiny_checkpoint, seed=4)
    assert torch.equal(score_head(first).weight, score_head(again).weight)
    assert not torch.equal(score_head(first).weight, score_head(other).weight)
    for ours, theirs in zip(first.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_head_is_scalar_small_and_without_bias(tiny_model):
    model, _ = tiny_model
    head = score_head(model)
    assert (head.in_features, head.out_features, head.bias) == (32, 1, None)
    # 32 draws: their standard deviation lies within a third of the true one in 99 % of cases.
    assert head.weight.std().item() == pytest.approx(model.config.initializer_range, rel=0.5)
    assert not model.training
    assert model.config.pad_token_id == 0


def test_the_body_is_that_of_the_language_model(tiny_checkpoint, tiny_model):
    model, _ = tiny_model
    body = AutoModelForCausalLM.from_pretrained(tiny_checkpoint).model.state_dict()
    assert all(torch.equal(body[name], weight) for name, weight in model.model.state_dict().items())


def test_saving_and_loading_keeps_the_scores(model, tiny_model, rows, tmp_path):
    model.save_pretrained(tmp_path)
    tiny_model[1].save_pretrained(tmp_path)
    # Another seed: a head that is stored must not be drawn anew.
    loaded, tokenizer = reward_model.load(tmp_path, seed=99)
    torch.testing.assert_close(
        score(loaded, rows, pad_token_id=tokenizer.pad_token_id),
        score(model, rows, pad_token_id=0),
        **EXACT,
    )


def test_a_tokenizer_without_a_padding_token_is_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    with pytest.raises(ValueError, match="has no padding token"):
        reward_model.load(folder)


def test_models_without_a_scalar_head_are_refused(tiny_checkpoint):
    with pytest.raises(ValueError, match="LlamaForCausalLM has no scalar score head"):
        score_head(AutoModelForCausalLM.from_pretrained(tiny_checkpoint))
    two = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint, num_labels=2)
    with pytest.raises(ValueError, match="no scalar score head"):
        score_head(two)


def test_a_bfloat16_body_has_a_float32_head(bfloat16_model, tiny_model, rows):
    model, _ = bfloat16_model
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.bfloat16}
    assert score_head(model).weight.dtype == torch.float32
    scores = score(model, rows, pad_token_id=0)
    assert scores.dtype == torch.float32
    # Scores that were rounded to bfloat16 would survive the round trip.
    assert not torch.equal(scores, scores.bfloat16().float())
    with torch.no_grad():
        score_head(tiny_model[0]).weight.copy_(score_head(model).weight)
    exact = score(tiny_model[0], rows, pad_token_id=0).float()
    # A score is a product of the head with a normalised state, whose norm is about √size, so one
    # rounding to bfloat16 moves it by up to 2⁻⁸ of the product of both norms.
    head = score_head(model).weight
    bound = 2**-8 * head.norm().item() * head.shape[1] ** 0.5
    torch.testing.assert_close(scores, exact, rtol=0, atol=bound)


def test_the_stock_forward_works_with_a_bfloat16_body(bfloat16_model, rows):
    model, _ = bfloat16_model
    stock = model(torch.tensor([rows[0].ids])).logits.item()
    assert stock == pytest.approx(score(model, rows[:1], pad_token_id=0).item(), rel=1e-5)


@pytest.mark.xfail(strict=True, reason="from_pretrained rounds the stored float32 head")
def test_saving_and_loading_keeps_a_float32_head(bfloat16_model, tmp_path):
    model, tokenizer = bfloat16_model
    torch.nn.init.normal_(score_head(model).weight)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = reward_model.load(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(score_head(loaded).weight, score_head(model).weight)


def test_the_pipeline_gives_the_same_score(model, tiny_model, rows, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer = tiny_model[1]
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    scores = score(model, rows[:4], pad_token_id=0).tolist()
    for row, expected in zip(rows[:4], scores, strict=True):
        assert classify(tokenizer.decode(row.ids))[0]["score"] == pytest.approx(expected, abs=1e-6)

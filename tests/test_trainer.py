"""RankingTrainer: exact batches, exact gradients, and a run that learns."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, TrainingArguments

from posttrain import reward_model
from posttrain.losses import ranking_loss
from posttrain.reward_model import score
from posttrain.rows import Row
from posttrain.trainer import PairCollator, RankingTrainer, TrainingPair, training_set

PAIR = TrainingPair(Row((5, 6, 7), 1), Row((5, 8), 1), margin=1 / 3, weight=2.0)


@pytest.fixture
def pairs(tiny_rows):
    return [
        TrainingPair(group[0], group[1], margin=(place % 4) / 3, weight=1.0)
        for place, group in enumerate(tiny_rows)
    ]


@pytest.fixture
def make_trainer(tmp_path):
    def make(model, pairs, *, centring=0.0, evaluation=None, **settings):
        defaults = {
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 7,
            "use_cpu": True,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        return RankingTrainer(
            model,
            TrainingArguments(str(tmp_path / "run"), **defaults | settings),
            train_dataset=training_set(pairs),
            eval_dataset=training_set(evaluation) if evaluation else None,
            data_collator=PairCollator(0),
            centring=centring,
        )

    return make


def collate(pairs, pad_token_id=0):
    return PairCollator(pad_token_id)(list(training_set(pairs)))


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def plain_gradients(model, pairs, *, weighted=False):
    """Gradients by plain autograd: every row on its own through the stock forward."""
    model.zero_grad()
    total = 0.0
    mean_weight = sum(pair.weight for pair in pairs) / len(pairs)
    for pair in pairs:
        winner, loser = (
            model(torch.tensor([row.ids])).logits[0, 0] for row in (pair.winner, pair.loser)
        )
        weight = pair.weight / mean_weight if weighted else 1.0
        total = total - weight * logsigmoid(winner - loser - pair.margin)
    (total / len(pairs)).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


def mean_loss(model, pairs):
    winners, losers = (
        score(model, [getattr(pair, side) for pair in pairs], pad_token_id=0)
        for side in ("winner", "loser")
    )
    margins = torch.tensor([pair.margin for pair in pairs], dtype=torch.float64)
    return ranking_loss(winners, losers, margins=margins).item()


def test_a_training_set_has_the_ids_and_the_longer_length():
    records = training_set([PAIR, TrainingPair(Row((9,), 0), Row((10, 11), 0))])
    assert records[0] == {
        "winner": [5, 6, 7],
        "loser": [5, 8],
        "margin": 1 / 3,
        "weight": 2.0 / 1.5,
        "length": 3,
    }
    assert records["length"] == [3, 2]


def weighted_pairs(*weights):
    return [
        TrainingPair(Row((place, 5), 1), Row((place, 6), 1), weight=weight)
        for place, weight in enumerate(weights)
    ]


def test_a_training_set_scales_weights_to_mean_one_over_the_pairs_it_keeps():
    records = training_set(weighted_pairs(0.0, 1.0, 4.0, 0.0, 1.0))
    assert records["weight"] == pytest.approx([0.5, 2.0, 0.5])
    assert [winner[0] for winner in records["winner"]] == [1, 2, 4]


@pytest.mark.parametrize("weights", [(), (0.0, 0.0)])
def test_a_training_set_without_pairs_is_refused(weights):
    with pytest.raises(ValueError, match="no pair to train on"):
        training_set(weighted_pairs(*weights))


def test_the_collator_puts_winners_before_losers():
    batch = collate([PAIR, TrainingPair(Row((9,), 0), Row((10, 11), 0))], pad_token_id=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 3, 3], [5, 8, 3], [10, 11, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert batch["score_index"].tolist() == [2, 0, 1, 1]
    assert batch["margins"].tolist() == [1 / 3, 0.0]
    assert batch["weights"].tolist() == pytest.approx([2.0 / 1.5, 1.0 / 1.5])
    assert set(batch) == {"input_ids", "attention_mask", "score_index", "margins", "weights"}


def test_the_gradient_is_that_of_plain_autograd(tiny_model, tiny_rows, make_trainer):
    model, _ = tiny_model
    pairs = [
        TrainingPair(group[0], group[1], margin=margin, weight=weight)
        for group, margin, weight in zip(
            tiny_rows, (0.0, 1 / 3, 3.0, 1.0), (1.0, 4.0, 2.0, 0.5), strict=False
        )
    ]
    expected = plain_gradients(model, pairs, weighted=True)
    model.zero_grad()
    make_trainer(model, pairs).compute_loss(model, collate(pairs)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-13)


def test_scaled_bradley_terry_has_an_effect_at_batch_size_one(tiny_model, pairs, make_trainer):
    # Dividing by a batch's own weights would cancel them here.
    model, _ = tiny_model
    pairs = [replace(pair, weight=weight) for pair, weight in zip(pairs, (1.0, 3.0), strict=False)]
    before = snapshot(model)
    plain = plain_gradients(model, pairs)
    # Weights 1 and 3, scaled to mean 1, are ½ and 3/2; two batches are averaged.
    gradients = plain_gradients(model, pairs, weighted=True)
    make_trainer(
        model,
        pairs,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=1,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
    ).train()
    for name, after in snapshot(model).items():
        expected = before[name] - 0.5 * gradients[name]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)
        assert (gradients[name] - plain[name]).norm() > 0.02 * plain[name].norm()


def test_the_trainer_keeps_the_columns_that_its_collator_needs(tiny_model, pairs, make_trainer):
    model, _ = tiny_model
    trainer = make_trainer(model, pairs, remove_unused_columns=True)
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) >= {"input_ids", "score_index", "margins", "weights"}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_follows_the_gradient(tiny_model, pairs, make_trainer, accumulation):
    model, _ = tiny_model
    pairs = pairs[:8]
    before, gradients = snapshot(model), plain_gradients(model, pairs)
    make_trainer(
        model,
        pairs,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
    ).train()
    for name, after in snapshot(model).items():
        expected = before[name] - 0.5 * gradients[name]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-12)


def test_centring_reaches_the_loss(tiny_model, pairs, make_trainer):
    model, _ = tiny_model
    torch.nn.init.ones_(model.score.weight)
    batch = collate(pairs[:5])
    plain = make_trainer(model, pairs).compute_loss(model, batch)
    centred, outputs = make_trainer(model, pairs, centring=0.25).compute_loss(
        model, batch, return_outputs=True
    )
    winners, losers = outputs["scores"].chunk(2)
    added = 0.25 * ((winners + losers) ** 2).mean()
    assert added > 0.01
    torch.testing.assert_close(centred - plain, added, rtol=1e-10, atol=1e-12)


def test_training_moves_every_parameter_and_learns(tiny_model, pairs, make_trainer):
    model, _ = tiny_model
    before, loss = snapshot(model), mean_loss(model, pairs)
    make_trainer(model, pairs, num_train_epochs=6, learning_rate=3e-3).train()
    still = [name for name, value in snapshot(model).items() if torch.equal(value, before[name])]
    assert still == []
    assert mean_loss(model.eval(), pairs) < 0.8 * loss


def test_frozen_parameters_stay(tiny_model, pairs, make_trainer):
    model, _ = tiny_model
    model.model.requires_grad_(False)
    before = snapshot(model)
    make_trainer(model, pairs, max_steps=2, learning_rate=0.01).train()
    moved = [
        name for name, value in snapshot(model).items() if not torch.equal(value, before[name])
    ]
    assert moved == ["score.weight"]


def test_a_trained_model_loads_with_stock_classes(tiny_model, pairs, make_trainer, tmp_path):
    model, tokenizer = tiny_model
    trainer = make_trainer(model, pairs, max_steps=3, learning_rate=0.01)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    tokenizer.save_pretrained(tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    rows = [pair.winner for pair in pairs[:6]]
    ours = score(model, rows, pad_token_id=0)
    theirs = [stock(torch.tensor([row.ids])).logits.item() for row in rows]
    # The stock class normalises in float32; our loader computes in float64 throughout.
    assert ours.tolist() == pytest.approx(theirs, abs=1e-5)
    again = score(reward_model.load(tmp_path / "saved")[0], rows, pad_token_id=0)
    assert ours.tolist() == pytest.approx(again.tolist(), abs=1e-12)


def test_evaluation_reports_the_ranking_loss(tiny_model, pairs, make_trainer):
    model, _ = tiny_model
    # 21 pairs in batches of 7, so that every batch weighs the same.
    metrics = make_trainer(model, pairs, evaluation=pairs[:21]).evaluate()
    assert metrics["eval_loss"] == pytest.approx(mean_loss(model, pairs[:21]), rel=1e-5)


def test_the_loss_calls_the_wrapped_model(tiny_model, pairs, make_trainer, tmp_path):
    # Gradients of several devices are synchronised only if the wrapper itself is called.
    model, _ = tiny_model
    trainer = make_trainer(model, pairs)
    batch = collate(pairs[:4])
    expected = trainer.compute_loss(model, batch).item()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        calls = []
        wrapped.register_forward_hook(lambda *_: calls.append(1))
        assert trainer.compute_loss(wrapped, batch).item() == pytest.approx(expected, abs=1e-12)
        assert calls == [1]
    finally:
        torch.distributed.destroy_process_group()


def test_mixed_precision_reaches_the_body(tiny_checkpoint, pairs, make_trainer):
    model, _ = reward_model.load(tiny_checkpoint, dtype=torch.float32)
    precisions = set()
    model.model.layers[0].mlp.gate_proj.register_forward_hook(
        lambda _module, _inputs, output: precisions.add(output.dtype)
    )
    make_trainer(model, pairs, max_steps=1, bf16=True).train()
    assert precisions == {torch.bfloat16}

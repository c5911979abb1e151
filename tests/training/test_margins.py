"""Records' own margins, from the file to the gradient: TRL's trainer is the reference."""

import json
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from posttrain.data.preferences import to_record
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.store import stored
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import Limits
from posttrain.training.collator import GroupCollator
from posttrain.training.config import RankingConfig
from posttrain.training.dataset import tokenized
from posttrain.training.pairing import Pairing
from posttrain.training.trainer import RankingTrainer

#: TRL keeps margins in float32, which has these exactly.
MARGINS = (5.0, -2.25, 0.0, 0.5, -0.0, 1e6)
SETTINGS = {
    "use_cpu": True, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rated():
    """Groups of two responses."""
    return [group.ranked for group in simulate(len(MARGINS), seed=3)]


def with_margins(groups, margins):
    return [replace(group, margin=m) for group, m in zip(groups, margins, strict=True)]


@pytest.fixture
def make_trainer(tiny_model, tmp_path):
    model, tokenizer = tiny_model
    # Float32 norms would round otherwise in rows of another shape.
    compute_in_double(model)

    def make(groups, *, margins="record", **settings):
        path = tmp_path / "records.jsonl"
        path.write_text("".join(json.dumps(to_record(group)) + "\n" for group in groups))
        pairing = Pairing(margins=margins)
        rows = tokenized(stored([str(path)]), tokenizer, pairing, Limits()).rows
        settings = {"groups_per_step": len(groups), "logging_strategy": "no"} | settings
        return RankingTrainer(
            model,
            RankingConfig(str(tmp_path / "run"), **SETTINGS, **settings),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=GroupCollator(tokenizer.pad_token_id, LAYOUTS["exact"]),
        )

    return make


def gradient_of(trainer):
    """Loss of a step on all data, and its gradient, in however many micro-batches."""
    trainer.model.zero_grad()
    total = 0.0
    for batch in next(iter(trainer.get_train_dataloader()))["micro_batches"]:
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        total += loss.item()
    return total, {name: w.grad.clone() for name, w in trainer.model.named_parameters()}


def gradient_of_trl(model, tokenizer, groups, folder):
    """The same of TRL's trainer, which reads the records as they are."""
    records = [to_record(group, as_messages=True) for group in groups]
    columns = ("prompt", "chosen", "rejected", "margin")
    trainer = RewardTrainer(
        model,
        RewardConfig(
            str(folder), per_device_train_batch_size=len(groups), max_length=None, bf16=False,
            gradient_checkpointing=None, **SETTINGS,
        ),
        train_dataset=Dataset.from_list([{name: one[name] for name in columns} for one in records]),
        processing_class=tokenizer,
    )  # fmt: skip
    model.zero_grad()
    loss = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("most_tokens", [None, 1], ids=["at once", "in micro-batches"])
def test_loss_and_gradient_are_those_of_trl(tiny_model, rated, make_trainer, tmp_path, most_tokens):
    groups = with_margins(rated, MARGINS)
    trl_loss, expected = gradient_of_trl(*tiny_model, groups, tmp_path)
    trainer = make_trainer(groups, max_tokens_per_device=most_tokens)
    loss, found = gradient_of(trainer)
    assert loss == pytest.approx(trl_loss, rel=1e-12)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-13)
    # Evaluation reports the loss that training minimises.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-12)
    without, other = gradient_of(make_trainer(groups, margins="none"))
    assert abs(without - loss) > 1
    assert any((other[name] - found[name]).norm() > 0.1 * found[name].norm() for name in found)


def test_a_margin_of_nought_and_none_at_all_differ_in_nothing(rated, make_trainer):
    found = [
        gradient_of(make_trainer(with_margins(rated, [margin] * len(rated)), margins=margins))
        for margin, margins in ((0.0, "record"), (None, "record"), (5.0, "none"))
    ]
    for loss, gradients in found[1:]:
        assert loss == found[0][0]
        for name, gradient in gradients.items():
            assert torch.equal(gradient, found[0][1][name])


def test_rankings_refuse_margins_before_the_first_step(rated, make_trainer):
    groups = with_margins(rated, [None] * (len(rated) - 1) + [0.5])
    with pytest.raises(ValueError, match=r"no place for margins, and 1 pairs.*--margins none"):
        make_trainer(groups, loss_type="plackett-luce", groups_per_step=1).train()
    make_trainer(groups, loss_type="plackett-luce", margins="none", max_steps=1).train()

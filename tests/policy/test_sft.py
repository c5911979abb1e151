"""Supervised finetuning: its loss and one step of it, against plain autograd."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models.float64 import compute_in_double
from posttrain.policy.datasets import demonstration_set
from posttrain.policy.sft import FinetuningConfig, finetune

GROUPS = [group.ranked for group in simulate(4, seed=12, multi_turn=0.5)]
DEMONSTRATIONS = demonstration_set([g.prompt for g in GROUPS], [g.chosen for g in GROUPS])
#: Plain gradient descent on all demonstrations at once.
PLAIN = {
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "max_length": None,
    "save_strategy": "no",
    "logging_strategy": "no",
    "optim": "sgd",
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": len(GROUPS),
    "max_steps": 1,
}


@pytest.fixture
def load(tiny_checkpoint):
    """Loads a fresh language model in float64."""
    return lambda: AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="auto")


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def plain_loss(model, tokenizer):
    """Mean negative log-likelihood of the words and the ends of all responses."""
    total, count = 0.0, 0
    for group in GROUPS:
        text = "".join(f"<|{turn.role}|> {turn.content} <|end|> " for turn in group.prompt)
        start = len(tokenizer(text + "<|assistant|>")["input_ids"])
        ids = tokenizer(text + f"<|assistant|> {group.chosen} <|end|>")["input_ids"]
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        for place in range(start, len(ids)):
            row = logits[place - 1]
            total = total - (row[ids[place]] - torch.logsumexp(row, dim=0))
            count += 1
    return total / count


def collated(trainer):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(len(GROUPS))])


def test_defaults_are_those_of_llama_3(tmp_path):
    config = FinetuningConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert (config.learning_rate, config.completion_only_loss) == (1e-5, True)


def test_loss_is_that_of_responses_and_their_ends(load, tokenizer, tmp_path):
    model = load()
    config = FinetuningConfig(str(tmp_path), learning_rate=0.0, **PLAIN)
    trainer = finetune(model, tokenizer, DEMONSTRATIONS, config)
    outputs = []
    model.lm_head.register_forward_hook(lambda _m, _i, logits: outputs.append(logits))
    batch = collated(trainer)
    loss = trainer.compute_loss(model, dict(batch))
    assert loss.dtype == torch.float64
    reference = compute_in_double(load())
    expected = plain_loss(reference, tokenizer)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    (logits,) = outputs
    logits.retain_grad()
    loss.backward()
    expected.backward()
    for (name, weight), (other, own) in zip(
        model.named_parameters(), reference.named_parameters(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(weight.grad, own.grad, rtol=0, atol=1e-10)
    # What a prompt's words predict, other words of the prompt, carries no loss; nor does padding.
    touched = logits.grad[:, :-1].abs().sum(-1) > 0
    assert torch.equal(touched, (batch["labels"] != -100)[:, 1:])
    for ids, labels, group in zip(batch["input_ids"], batch["labels"], GROUPS, strict=True):
        kept = ids[labels != -100]
        assert tokenizer.decode(kept) == f"{group.chosen} <|end|>"
    assert not logits.grad[:, -1].any()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_one_step_follows_the_gradient_of_the_loss(load, tokenizer, tmp_path, parts):
    model, rate = load(), 0.3
    settings = PLAIN | {
        "per_device_train_batch_size": len(GROUPS) // parts,
        "gradient_accumulation_steps": parts,
    }
    config = FinetuningConfig(str(tmp_path), learning_rate=rate, **settings)
    trainer = finetune(model, tokenizer, DEMONSTRATIONS, config)
    assert trainer.model is model
    assert not model.training
    reference = compute_in_double(load())
    plain_loss(reference, tokenizer).backward()
    for weight, before in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(weight, before - rate * before.grad, rtol=0, atol=1e-10)
    assert any(
        not torch.equal(*pair) for pair in zip(model.parameters(), load().parameters(), strict=True)
    )


def test_a_trained_model_computes_what_its_weights_say(load, tokenizer, tmp_path):
    model = load()
    config = FinetuningConfig(str(tmp_path), learning_rate=0.3, **PLAIN)
    finetune(model, tokenizer, DEMONSTRATIONS, config)
    fresh = load()
    fresh.load_state_dict(model.state_dict())
    ids = torch.tensor([[7, 8, 9, 10]])
    assert torch.equal(model(ids).logits, compute_in_double(fresh).eval()(ids).logits)


def test_training_goes_on_from_a_checkpoint(load, tokenizer, tmp_path):
    settings = PLAIN | {
        "optim": "adamw_torch",
        "per_device_train_batch_size": 1,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "learning_rate": 1e-2,
    }
    config = FinetuningConfig(str(tmp_path), **settings)
    whole, resumed = load(), load()
    finetune(whole, tokenizer, DEMONSTRATIONS, config)
    halfway = str(tmp_path / "checkpoint-2")
    trainer = finetune(resumed, tokenizer, DEMONSTRATIONS, config, checkpoint=halfway)
    assert trainer.state.global_step == 4
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_quiet_training_prints_nothing(load, tokenizer, tmp_path, capfd):
    config = FinetuningConfig(str(tmp_path), **PLAIN)
    trainer = finetune(load(), tokenizer, DEMONSTRATIONS, config)
    assert "train_runtime" not in capfd.readouterr().out
    assert "PrinterCallback" not in str(trainer.callback_handler.callback_list)

"""Averages of models: exact means, untouched originals, and what does not fit together."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.policy.averaging import average
from posttrain.policy.datasets import demonstration_set
from posttrain.policy.reward import train_reward_model
from posttrain.policy.sft import FinetuningConfig, finetune
from posttrain.rows.tokenization import tokenize_groups

IDS = torch.tensor([[7, 8, 9, 10, 11]])


@pytest.fixture
def load(tiny_checkpoint):
    """Loads the language model, with noise of its own for every seed but 0."""

    def load(seed=0, dtype="auto"):
        model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight += (0.1 * noise * bool(seed)).to(weight.dtype)
        return model

    return load


def test_the_average_is_the_mean_of_all_weights(load):
    models = [load(seed) for seed in (1, 2, 3)]
    found = average(models).state_dict()
    assert found.keys() == models[0].state_dict().keys()
    for name, value in found.items():
        mean = sum(model.state_dict()[name] for model in models) / 3
        torch.testing.assert_close(value, mean, rtol=1e-14, atol=1e-15)


def test_the_average_computes_with_its_own_weights(load):
    models = [load(1), load(2)]
    merged = average(models)
    fresh = load()
    fresh.load_state_dict(merged.state_dict())
    assert torch.equal(merged(IDS).logits, fresh.eval()(IDS).logits)
    assert not torch.equal(merged(IDS).logits, models[0](IDS).logits)
    assert not merged.training
    assert merged.lm_head.weight is merged.model.embed_tokens.weight


def test_the_average_of_trained_models_computes_with_its_own_weights(
    load, tiny_checkpoint, tmp_path
):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    config = FinetuningConfig(
        str(tmp_path),
        learning_rate=1e-2,
        max_steps=1,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        save_strategy="no",
        logging_strategy="no",
    )
    models = []
    for answer in ("sure : owl .", "sorry , i can not help with that ."):
        model = load()
        demonstrations = demonstration_set([(Message("user", "repeat : owl"),)], [answer])
        finetune(model, tokenizer, demonstrations, config)
        models.append(model)
    merged = average(models)
    fresh = load()
    fresh.load_state_dict(merged.state_dict())
    expected = compute_in_double(fresh).eval()(IDS).logits
    assert (expected - models[0](IDS).logits).abs().max() > 1e-3
    torch.testing.assert_close(merged(IDS).logits, expected, rtol=0, atol=1e-12)


def test_the_models_stay_as_they_were(load):
    models = [load(1).train(), load(2)]
    before = [{n: w.clone() for n, w in model.state_dict().items()} for model in models]
    merged = average(models)
    with torch.no_grad():
        for weight in merged.parameters():
            weight.zero_()
    for model, weights in zip(models, before, strict=True):
        assert all(torch.equal(weights[name], w) for name, w in model.state_dict().items())
    assert models[0].training


def test_the_average_of_one_model_is_a_copy_of_it(load):
    model = load(1)
    merged = average([model])
    assert merged is not model
    assert all(torch.equal(model.state_dict()[n], w) for n, w in merged.state_dict().items())


def test_sums_of_low_precision_are_in_float32(load):
    models = [load(seed, torch.bfloat16) for seed in range(1, 8)]
    for name, value in average(models).state_dict().items():
        assert value.dtype == torch.bfloat16
        stacked = torch.stack([model.state_dict()[name] for model in models])
        assert torch.equal(value, stacked.float().mean(0).to(torch.bfloat16))


def test_there_must_be_a_model():
    with pytest.raises(UserError, match="give models to average"):
        average([])


def test_other_shapes_are_refused_by_name(load):
    other = load()
    weight = other.model.norm.weight
    other.model.norm.weight = torch.nn.Parameter(torch.cat([weight, weight]))
    with pytest.raises(UserError, match=r"model 3 are not like .* model\.norm\.weight is .*\[64\]"):
        average([load(), load(), other])


def test_other_precisions_are_refused(load):
    with pytest.raises(UserError, match=r"model 2 .*weight is .*bfloat16.* and .*float64"):
        average([load(), load(0, torch.bfloat16)])


@pytest.mark.parametrize("first", [True, False])
def test_weights_that_one_model_lacks_are_refused_by_name(load, first):
    other = load()
    other.extra = torch.nn.Linear(2, 2, bias=False, dtype=torch.float64)
    models = [other, load()] if first else [load(), other]
    with pytest.raises(UserError, match=r"model 2 .* extra\.weight is .*missing"):
        average(models)


def test_the_average_of_trained_reward_models_scores_rows_with_its_own_weights(tiny_checkpoint):
    groups = [one.ranked for one in simulate(16, seed=1)]
    settings = {"learning_rate": 1e-2, "pairs_per_step": 8, "use_cpu": True}
    models = [train_reward_model(tiny_checkpoint, groups, settings, seed=seed) for seed in (1, 2)]
    merged = average(models)
    plain, tokenizer = reward_model.load(tiny_checkpoint)
    plain.load_state_dict(merged.state_dict())
    tokens = tokenize_groups(tokenizer, groups).groups
    own, expected, other = (
        reward_model.score(one, tokens, pad_token_id=tokenizer.pad_token_id)
        for one in (merged, plain, models[0])
    )
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(own, other)

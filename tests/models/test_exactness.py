"""A model that lets responses in one row see each other must not pass for one that does not."""

import random
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_llama import SMALL, WORDS
from transformers import (
    BloomConfig,
    BloomForSequenceClassification,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    MptConfig,
    MptForSequenceClassification,
)

from posttrain.models import exactness
from posttrain.models.exactness import check_exact
from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import response_states
from posttrain.rows import attention
from posttrain.rows.attention import dense_mask, mask_arguments
from posttrain.rows.layout import LAYOUTS


@pytest.fixture
def model(load):
    """A model in float64 that a test may change."""
    return load("trained")


@pytest.fixture
def own_model(load):
    """Another one, with grouped heads."""
    return load("grouped")


@pytest.mark.parametrize("training", [False, True])
def test_a_check_for_exactness_leaves_mode_and_random_numbers_alone(model, training):
    model.train(training)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    check_exact(model, pad_token_id=0)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]  # noqa: NPY002
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_check_for_exactness_accepts_a_bfloat16_body(bfloat16_model):
    check_exact(bfloat16_model[0], pad_token_id=0)


def without(*names):
    """``response_states`` of a model that ignores the mask or the positions."""

    def ignoring(model, batch):
        arguments = mask_arguments(model, batch)
        hidden = model.model(
            input_ids=batch.input_ids,
            position_ids=None if "positions" in names else batch.position_ids,
            **({} if "mask" in names else arguments),
        ).last_hidden_state
        return hidden.flatten(0, 1)[batch.score_index]

    return ignoring


@pytest.mark.parametrize("ignored", [["mask"], ["positions"], ["mask", "positions"]])
def test_a_check_for_exactness_refuses_what_ignores_mask_or_positions(model, monkeypatch, ignored):
    monkeypatch.setattr(exactness, "response_states", without())
    check_exact(model, pad_token_id=0)
    monkeypatch.setattr(exactness, "response_states", without(*ignored))
    with pytest.raises(ValueError, match="does not keep responses in one row apart"):
        check_exact(model, pad_token_id=0)


@pytest.fixture
def deep_model():
    """An untrained Llama of so many layers."""

    def make(layers, dtype):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LlamaForSequenceClassification(
                LlamaConfig(**SMALL | {"num_hidden_layers": layers})
            )
        return compute_in_double(model.to(dtype)).eval()

    return make


@pytest.fixture
def leaking(monkeypatch):
    """Lets a model's rows mix a hundredth of what responses would see of each other into states."""

    def leak(model):
        def mixed(model, batch):
            isolated = response_states(model, batch)
            if batch.segment_id is None:
                return isolated
            open_rows = replace(batch, segment_id=torch.zeros_like(batch.segment_id))
            return isolated + (response_states(model, open_rows) - isolated) / 100

        monkeypatch.setattr(exactness, "response_states", mixed)

    return leak


class TestCheckExact:
    @pytest.mark.parametrize("implementation", ["shared_prefix", "sdpa", "eager"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("name", ["trained", "grouped"])
    def test_a_llama_passes(self, load, name, dtype, implementation):
        model = load(name, dtype)
        model.set_attn_implementation(implementation)
        check_exact(model, pad_token_id=0)

    def test_a_fresh_head_passes(self, tiny_model, bfloat16_model):
        for model, tokenizer in (tiny_model, bfloat16_model):
            check_exact(model, pad_token_id=tokenizer.pad_token_id)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_that_ignores_the_mask_is_refused(self, load, monkeypatch, dtype):
        monkeypatch.setattr(attention, "mask_for", lambda model, batch: None)
        expected = "LlamaForSequenceClassification does not keep responses in one row apart"
        with pytest.raises(ValueError, match=expected):
            check_exact(load("trained", dtype), pad_token_id=0)

    @pytest.mark.parametrize("number", [0, 1])
    def test_one_layer_that_ignores_what_lies_where_is_refused(self, own_model, number):
        """Attention in two pieces has to reach every layer."""
        check_exact(own_model, pad_token_id=0)
        layer = own_model.model.layers[number].self_attn

        def ignore(_module, arguments, named):
            named.pop("shared_prefix", None)
            return arguments, named | {"attention_mask": None}

        layer.register_forward_pre_hook(ignore, with_kwargs=True)
        with pytest.raises(ValueError, match="does not keep responses in one row apart"):
            check_exact(own_model, pad_token_id=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_a_model_that_ignores_positions_is_refused(self, load, dtype):
        model = load("trained", dtype)

        def count(_module, arguments, named):
            return arguments, named | {"position_ids": None}

        model.model.register_forward_pre_hook(count, with_kwargs=True)
        with pytest.raises(ValueError, match="does not keep responses in one row apart"):
            check_exact(model, pad_token_id=0)

    @pytest.mark.parametrize("depth", [12, 30])
    def test_a_small_leak_in_a_deep_model_is_refused(self, deep_model, leaking, depth):
        model = deep_model(depth, torch.float32)
        check_exact(model, pad_token_id=0)
        leaking(model)
        with pytest.raises(ValueError, match="does not keep responses in one row apart"):
            check_exact(model, pad_token_id=0)

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_rounding_in_a_deep_model_is_no_leak(self, deep_model, dtype, implementation):
        model = deep_model(30, dtype)
        model.set_attn_implementation(implementation)
        check_exact(model, pad_token_id=0)

    def test_a_model_that_cannot_take_the_mask_is_refused_with_the_remedy(self):
        config = BloomConfig(
            vocab_size=WORDS, hidden_size=32, n_layer=1, n_head=2, num_labels=1, pad_token_id=0
        )
        model = BloomForSequenceClassification(config).eval()
        with pytest.raises(ValueError, match=r"BloomFor.* takes no mask .*--layout separate"):
            check_exact(model, pad_token_id=0)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_model_with_alibi_is_refused(self, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = MptConfig(
                vocab_size=WORDS, d_model=64, n_layers=2, n_heads=4, num_labels=1, pad_token_id=0
            )
            model = MptForSequenceClassification(config).eval()
        with pytest.raises(ValueError, match=r"MptFor.* does not keep responses in one row apart"):
            check_exact(model, pad_token_id=0)

    def test_a_model_without_finite_scores_is_refused(self, own_model):
        torch.nn.init.constant_(own_model.model.norm.weight, torch.nan)
        with pytest.raises(ValueError, match="off by nan"):
            check_exact(own_model, pad_token_id=0)

    @pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
    def test_attention_to_both_sides_is_refused_in_every_layout(self, layout):
        config = Gemma3TextConfig(**SMALL, head_dim=16, use_bidirectional_attention=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Gemma3TextForSequenceClassification(config).eval()
        with pytest.raises(ValueError, match=r"Gemma3Text.* reads tokens that follow a response"):
            check_exact(model, layout, pad_token_id=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_padding_that_changes_earlier_states_is_refused(self, load, dtype):
        model = load("trained", dtype)
        check_exact(model, LAYOUTS["separate"], pad_token_id=0)

        def mix(_module, _inputs, output):
            output.last_hidden_state += output.last_hidden_state.mean(1, keepdim=True)

        model.model.register_forward_hook(mix)
        with pytest.raises(ValueError, match="reads tokens that follow a response, also padding"):
            check_exact(model, LAYOUTS["separate"], pad_token_id=0)

    def test_neighbours_in_a_batch_that_change_states_are_refused(self, own_model):
        def mix(_module, _inputs, output):
            output.last_hidden_state += output.last_hidden_state[:, :1].mean(0, keepdim=True)

        own_model.model.register_forward_hook(mix)
        with pytest.raises(ValueError, match="scores a response otherwise alone than beside"):
            check_exact(own_model, LAYOUTS["separate"], pad_token_id=0)

    @pytest.mark.parametrize("counted", ["positions", "along the row"])
    def test_a_window_that_counts_along_the_row_is_refused(self, monkeypatch, counted):
        """The window is longer than the check's rows, and the model's own is restored."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MistralForSequenceClassification(MistralConfig(**SMALL, sliding_window=500))
        if counted == "along the row":

            def dense(batch, window):
                index = torch.arange(batch.input_ids.shape[1])
                return dense_mask(batch) & (index[:, None] - index < window)

            monkeypatch.setattr(attention, "dense_mask", dense)
        with (
            pytest.raises(ValueError, match="does not keep responses in one row apart")
            if counted == "along the row"
            else nullcontext()
        ):
            check_exact(model.eval(), pad_token_id=0)
        assert model.config.sliding_window == 500

    def test_shared_rows_are_checked_whatever_the_layout(self, own_model):
        own_model.model.register_forward_pre_hook(
            lambda _module, arguments, named: (
                arguments,
                named | dict.fromkeys(("attention_mask", "position_ids", "shared_prefix")),
            ),
            with_kwargs=True,
        )
        for layout in (LAYOUTS["separate"], LAYOUTS["causal"]):
            check_exact(own_model, layout, pad_token_id=0)
            with pytest.raises(ValueError, match="does not keep responses in one row apart"):
                check_exact(own_model, layout, pad_token_id=0, shared_rows=True)

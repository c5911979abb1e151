"""Memory in closed form, against models that are built and tensors that autograd saves."""

import itertools

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification

from posttrain.studies.common.cost import SHAPES, linear_parameters
from posttrain.studies.training_run import theory
from posttrain.studies.training_run.theory import (
    SETUPS,
    Setup,
    activation_bytes,
    adapter_parameters,
    expectations,
    gpus_needed,
    layer_bytes,
    parameters,
    state_bytes,
)

GROUPED = LlamaConfig(
    vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=8, num_key_value_heads=2, num_labels=1, pad_token_id=0,
)  # fmt: skip
WIDE_HEADS = LlamaConfig(
    vocab_size=70, hidden_size=32, intermediate_size=160, num_hidden_layers=3, head_dim=16,
    num_attention_heads=4, num_key_value_heads=4, num_labels=1, pad_token_id=0,
)  # fmt: skip
LLAMA = SHAPES["Llama-3.1-8B"]


def built(config):
    model = LlamaForSequenceClassification(config)
    model.set_attn_implementation("sdpa")
    return model.train()


def saved_bytes(model, tokens):
    """Bytes of all that autograd saves of the body's forward pass, the weights aside."""
    own = {
        weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())
    }
    # The tensors are kept too, or another could come to lie in the same place.
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    ids = torch.zeros(2, tokens // 2, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        model.model(input_ids=ids, use_cache=False)
    return sum(size for size, _ in kept.values())


def deeper(config, layers):
    return LlamaConfig(**config.to_dict() | {"num_hidden_layers": layers})


@pytest.mark.parametrize("config", [GROUPED, WIDE_HEADS])
def test_parameters_are_those_of_a_built_model(config):
    assert parameters(config) == sum(weight.numel() for weight in built(config).parameters())


@pytest.mark.parametrize("config", [GROUPED, WIDE_HEADS])
@pytest.mark.parametrize("rank", [1, 5])
def test_adapter_parameters_are_those_of_peft(config, rank):
    adapters = LoraConfig(task_type="SEQ_CLS", r=rank, target_modules="all-linear")
    model = get_peft_model(built(config), adapters)
    found = sum(w.numel() for name, w in model.named_parameters() if "lora_" in name)
    assert adapter_parameters(config, rank) == found


@pytest.mark.parametrize("config", [GROUPED, WIDE_HEADS])
def test_a_layer_keeps_what_autograd_saves(config):
    found = {
        (layers, tokens): saved_bytes(built(deeper(config, layers)), tokens)
        for layers, tokens in itertools.product((1, 2), (64, 128))
    }
    per_token = {n: (found[n, 128] - found[n, 64]) / 64 for n in (1, 2)}
    assert per_token[2] - per_token[1] == layer_bytes(config)
    # Whatever the number of tokens, a bfloat16 copy of the layer's linear maps.
    of_layer = found[2, 64] - found[1, 64]
    copies = 2 * linear_parameters(deeper(config, 1))
    assert of_layer - 64 * layer_bytes(config) == copies
    kept = activation_bytes(deeper(config, 2), 64) - activation_bytes(deeper(config, 1), 64)
    assert of_layer == kept


def test_a_checkpointed_layer_keeps_its_input():
    found = {}
    for layers, tokens in itertools.product((1, 2), (64, 128)):
        model = built(deeper(GROUPED, layers))
        model.activation_checkpointing_enable()
        found[layers, tokens] = saved_bytes(model, tokens)
    per_token = {n: (found[n, 128] - found[n, 64]) / 64 for n in (1, 2)}
    assert per_token[2] - per_token[1] == 4 * GROUPED.hidden_size
    more = activation_bytes(GROUPED, 128, checkpointing=True) - activation_bytes(
        GROUPED, 64, checkpointing=True
    )
    assert more == 64 * (2 * 4 * GROUPED.hidden_size + layer_bytes(GROUPED))


def test_state():
    assert state_bytes(GROUPED) == 16 * parameters(GROUPED)
    trained = adapter_parameters(GROUPED, 4) + GROUPED.hidden_size
    assert state_bytes(GROUPED, "LoRA", rank=4) == 2 * parameters(GROUPED) + 16 * trained
    with pytest.raises(ValueError, match="unknown 'all'; known: all weights, LoRA"):
        state_bytes(GROUPED, "all")


def test_operations_in_forward_passes():
    assert [setup.passes for setup in SETUPS.values()] == [3, 4, 3]
    assert Setup("LoRA").passes == 2


def test_public_sizes():
    # As published, head and embedding counted as a reward model has them.
    millions = {name: round(parameters(config) / 1e6) for name, config in SHAPES.items()}
    assert millions == {
        "SmolLM2-135M": 135, "Llama-3.2-1B": 1236, "Llama-3.1-8B": 7505, "Llama-3.1-70B": 69503,
    }  # fmt: skip


def test_gpus_hold_state_and_one_part():
    setup = Setup(checkpointing=True)
    count = gpus_needed(LLAMA, setup, 16384)
    kept = activation_bytes(LLAMA, 16384, checkpointing=True)
    room = theory.USABLE * theory.H100_GB * 1e9
    assert state_bytes(LLAMA) / count + kept <= room < state_bytes(LLAMA) / (count - 1) + kept
    with pytest.raises(
        ValueError, match="16384 tokens do not fit on a GPU; lower max_tokens_per_device"
    ):
        gpus_needed(LLAMA, Setup(), 16384)


def test_lora_is_not_sharded():
    setup = Setup("LoRA", checkpointing=True)
    assert gpus_needed(LLAMA, setup, 16384) == 1
    large = SHAPES["Llama-3.1-70B"]
    assert state_bytes(large, "LoRA") > theory.H100_GB * 1e9
    with pytest.raises(ValueError, match="a model with LoRA is not spread over GPUs"):
        gpus_needed(large, setup, 1024)


def test_expectations():
    table = expectations(max_tokens_per_device=16384, pairs=1000).set_index(["model", "trained"])
    assert table.index.tolist() == list(itertools.product(SHAPES, SETUPS))
    assert table["GPUs"].isna().sum() == 3
    one = table.loc["Llama-3.1-8B"]
    assert one.loc["all weights", "GPU hours"] * 4 / 3 == pytest.approx(
        one.loc["all weights, checkpointed", "GPU hours"]
    )
    # Six operations a weight and token, attention aside.
    tokens = 1000 * (1041.6 + 284.0)
    least = 6 * linear_parameters(LLAMA) * tokens / (0.4 * 989e12) / 3600
    assert least < one.loc["all weights", "GPU hours"] < 1.1 * least
    assert expectations(pairs=2000)["GPU hours"].to_numpy() == pytest.approx(
        2 * table["GPU hours"].to_numpy()
    )

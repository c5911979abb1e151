"""What training a reward model takes: memory and floating-point operations, in closed form.

A reward model has no vocabulary's worth of logits, which often are the largest tensor of language
modelling; what fills memory is the optimiser's state and what each layer keeps for its backward
pass. The formulas are of decoders like Llama's with an attention kernel that keeps no matrix of
weights (``sdpa``, ``flex_attention``), weights in float32 and products in bfloat16, as
:mod:`posttrain.commands.train` computes with ``bf16``.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from transformers import LlamaConfig

from posttrain.errors import UserError
from posttrain.models.memory import layer_bytes, widths
from posttrain.studies.common.cost import (
    SHAPES,
    GroupLengths,
    forward_flops,
    linear_parameters,
    tokens,
    visible_pairs,
)
from posttrain.studies.common.llama3 import LLAMA3_PROMPT_TOKENS, LLAMA3_RESPONSE_TOKENS

#: What is trained: every weight, or LoRA adapters on all linear maps of a frozen bfloat16 model.
Trained = Literal["all weights", "LoRA"]
#: Weight, gradient and AdamW's two moments, each in float32.
BYTES_TRAINED = 16
BYTES_FROZEN = 2
#: Data sheet of an H100 SXM: dense bfloat16 products per second, and memory.
H100_FLOPS = 989e12
H100_GB = 80
#: Assumed share of it that training reaches; of a GPU's memory that state and activations may take.
UTILISATION = 0.4
USABLE = 0.9


def parameters(config: LlamaConfig) -> int:
    """Parameters of a reward model: embedding, layers with their normalisations, score head."""
    normalisations = (2 * config.num_hidden_layers + 1) * config.hidden_size
    embedding = config.vocab_size * config.hidden_size
    return embedding + linear_parameters(config) + normalisations + config.hidden_size


def adapter_parameters(config: LlamaConfig, rank: int) -> int:
    """Parameters of LoRA adapters on q, k, v, o, gate, up and down of every layer.

    An adapter of a map from m to n dimensions has rank · (m + n).
    """
    hidden, inner, queries, keys = widths(config)
    ends = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + inner)
    return config.num_hidden_layers * rank * ends


def state_bytes(config: LlamaConfig, trained: Trained = "all weights", *, rank: int = 32) -> int:
    """Weights, gradients and AdamW's moments."""
    if trained not in get_args(Trained):
        raise UserError(f"unknown {trained!r}; known: {', '.join(get_args(Trained))}")
    if trained == "all weights":
        return BYTES_TRAINED * parameters(config)
    adapters = adapter_parameters(config, rank) + config.hidden_size
    return BYTES_FROZEN * parameters(config) + BYTES_TRAINED * adapters


def activation_bytes(config: LlamaConfig, tokens: float, *, checkpointing: bool = False) -> float:
    """What the layers keep of a micro-batch's tokens, padding included, for the backward pass.

    With activation checkpointing, each layer keeps its input (4 h bytes), and one layer at a time
    computes the rest again. Without it, autocast also keeps a bfloat16 copy of every linear map.
    """
    layers = config.num_hidden_layers
    copies = 2 * linear_parameters(config)
    if checkpointing:
        inputs = layers * 4 * config.hidden_size
        return tokens * (inputs + layer_bytes(config)) + copies / layers
    return tokens * layers * layer_bytes(config) + copies


@dataclass(frozen=True)
class Setup:
    """A way of training; ``checkpointing`` computes layers again in the backward pass."""

    trained: Trained = "all weights"
    checkpointing: bool = False

    @property
    def passes(self) -> int:
        """Operations of a step, in forward passes.

        One for itself, one for gradients of activations, one for those of weights, and one for
        computing layers again.
        """
        return 2 + (self.trained == "all weights") + self.checkpointing


SETUPS = {
    "all weights": Setup(),
    "all weights, checkpointed": Setup(checkpointing=True),
    "LoRA, checkpointed": Setup("LoRA", checkpointing=True),
}


def gpus_needed(config: LlamaConfig, setup: Setup, max_tokens_per_device: int) -> int:
    """GPUs of 80 GB among which the state has to be sharded (FSDP) to leave room for a micro-batch.

    LoRA is not sharded (:mod:`posttrain.commands.train` refuses it): each GPU holds all of it.

    Raises:
        UserError: If the activations of one micro-batch, with LoRA also the state, exceed a GPU.
    """
    room = USABLE * H100_GB * 1e9 - activation_bytes(
        config, max_tokens_per_device, checkpointing=setup.checkpointing
    )
    if room <= 0:
        raise UserError(
            f"{max_tokens_per_device} tokens do not fit on a GPU; lower max_tokens_per_device"
        )
    count = math.ceil(state_bytes(config, setup.trained) / room)
    if setup.trained == "LoRA" and count > 1:
        raise UserError(
            f"a model with LoRA is not spread over GPUs, and does not fit on one beside "
            f"{max_tokens_per_device} tokens"
        )
    return count


def expectations(*, max_tokens_per_device: int = 16384, pairs: int = 100_000) -> pd.DataFrame:
    """Memory and time by model and way of training.

    Pairs have Llama 3's average lengths (Table 6) and lie in exact rows; GPUs are H100s of 80 GB
    that reach :data:`UTILISATION` of their data sheet.

    Returns:
        One row for each model and way: GB (10⁹ bytes) of ``weights and optimiser`` in all and of
        ``activations`` on each GPU; ``GPUs`` (see :func:`gpus_needed`), missing where it
        does not fit; ``GPU hours``.
    """
    group = GroupLengths.equal(LLAMA3_PROMPT_TOKENS, LLAMA3_RESPONSE_TOKENS, 2)
    rows = []
    for model, config in SHAPES.items():
        forward = forward_flops(
            config, tokens(group, "exact row"), visible_pairs(group, "exact row")
        )
        for name, setup in SETUPS.items():
            activations = activation_bytes(
                config, max_tokens_per_device, checkpointing=setup.checkpointing
            )
            try:
                gpus = gpus_needed(config, setup, max_tokens_per_device)
            except ValueError:
                gpus = None
            hours = setup.passes * forward * pairs / (UTILISATION * H100_FLOPS) / 3600
            state = state_bytes(config, setup.trained)
            rows.append((model, name, state / 1e9, activations / 1e9, gpus, hours))
    head = ["model", "trained", "weights and optimiser", "activations", "GPUs", "GPU hours"]
    return pd.DataFrame(rows, columns=head).astype({"GPUs": "Int64"})

"""How many tokens a device can train on at once: what a layer keeps of each, and what is free.

A reward model has no vocabulary's worth of logits, which often are the largest tensor of language
modelling; what fills memory is the optimiser's state and what each layer keeps for its backward
pass. The formulas are of decoders like Llama's, with an attention that keeps no matrix of weights
(``shared_prefix``, ``sdpa`` of plain rows, ``flex_attention``).
"""

import logging
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from posttrain.errors import UserError
from posttrain.models.architecture import layers_of
from posttrain.models.reward_model import stock_model

logger = logging.getLogger(__name__)

#: Share of what is free that training may plan to take: kernels and other programs need some, too.
SHARE = 0.6
#: More tokens at once make a device no faster: measured on an H100 and on a CPU of two cores.
ENOUGH = {"cuda": 16384, "cpu": 4096}
#: Responses of a merged group that read the same prompt, for what attention keeps of its keys.
RESPONSES = 4
#: Gradient and AdamW's two moments of a weight that is trained, in float32.
STATE_BYTES = 12


def widths(config: Any) -> tuple[int, int, int, int]:
    """Widths of the residual stream, the perceptron, all queries, and all keys."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    keys = (getattr(config, "num_key_value_heads", None) or heads) * size
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    given = (getattr(config, name, None) for name in names)
    inner = next((width for width in given if isinstance(width, int)), 4 * hidden)
    # A token goes through some experts of a mixture.
    experts = getattr(config, "num_experts_per_tok", None) or 1
    inner = experts * (getattr(config, "moe_intermediate_size", None) or inner)
    return hidden, inner, heads * size, keys


def layer_bytes(config: Any, *, half: bool = True, responses: int = 1) -> int:
    """What one layer keeps of one token for its backward pass.

    With products in half precision 26 h + 8 f + 4 q + 4 k + 4 a + 8, with widths h of the residual
    stream, f of the perceptron, q and k of all queries and all keys, and a attention heads: the
    inputs of the linear maps in half precision, the residual stream and normalisations in float32.
    All in float32 it is 24 h + 16 f + 12 q + 12 k + 4 a + 8. Each of several ``responses`` of a row
    keeps its prompt's keys and values once more. The tests count them again.
    """
    hidden, inner, queries, keys = widths(config)
    rest = 4 * config.num_attention_heads + 8
    if half:
        return 26 * hidden + 8 * inner + 4 * queries + 4 * responses * keys + rest
    return 24 * hidden + 16 * inner + 12 * queries + (4 + 8 * responses) * keys + rest


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; for a CPU also within the limit of its control group."""
    if device.type == "cuda":
        # What torch has reserved and does not use is free, too.
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    free = psutil.virtual_memory().available
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (int(Path("/sys/fs/cgroup", name).read_text()) for name in (limit, used))
        except (OSError, ValueError):
            continue
        free = min(free, most - now)
    return max(free, 0)


def token_bytes(model: nn.Module, *, half: bool, checkpointing: bool = False) -> int:
    """What training keeps of a token, in all layers that train or stand above one that does."""
    stock = stock_model(model)
    config: Any = stock.config.get_text_config()
    one = layer_bytes(config, half=half, responses=RESPONSES)
    owner, name = layers_of(stock)
    layers = list(getattr(owner, name))
    trained = [any(weight.requires_grad for weight in layer.parameters()) for layer in layers]
    first = trained.index(True) if True in trained else len(layers)
    count = len(layers) - first
    # While a layer computes its gradients, these are there, too.
    kept = count * 4 * config.hidden_size + one if checkpointing else count * one
    return kept + one


def fitting_tokens(
    model: nn.Module,
    device: torch.device,
    *,
    half: bool = False,
    checkpointing: bool = False,
    shards: int = 1,
    processes: int = 1,
) -> int:
    """How many tokens, padding included, training has room for at once in the memory that is free.

    Args:
        model: With its weights in memory, and those that are trained asking for gradients.
        device: Where it will be trained; it need not be there yet.
        half: Whether products are computed in half precision.
        checkpointing: Whether layers are computed again in the backward pass.
        shards: Processes over which weights and optimiser are spread (FSDP).
        processes: Processes that share the memory of the device.

    Raises:
        UserError: If not even the weights and the optimiser's state fit.
    """
    free = SHARE * free_bytes(device) / processes
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    state = STATE_BYTES * trained / shards
    if next(iter(weights)).device.type != device.type:
        state += sum(weight.numel() * weight.element_size() for weight in weights) / shards
    if half:
        # Autocast keeps a copy of every weight that is multiplied.
        state += 2 * sum(weight.numel() for weight in weights if weight.dim() == 2) / shards
    tokens = int((free - state) / token_bytes(model, half=half, checkpointing=checkpointing))
    if tokens < 1:
        raise UserError(
            f"{state / 1e9:.1f} GB for weights, gradients and optimiser do not fit: "
            f"{free / 1e9:.1f} GB may be taken on this device; train part of the weights "
            "(--top_layers, --lora_rank), spread them over GPUs (FSDP), or set "
            "--max_tokens_per_device to try all the same"
        )
    logger.info(
        "memory: %.1f GB may be taken; weights, gradients and optimiser need %.1f GB more, a token "
        "%.2f MB, so there is room for %s tokens at once",
        free / 1e9, state / 1e9,
        token_bytes(model, half=half, checkpointing=checkpointing) / 1e6, f"{tokens:,}",
    )  # fmt: skip
    return tokens


def enough_tokens(room: int, device: torch.device) -> int:
    """How many tokens to compute at once, given the room for them."""
    return min(room, ENOUGH.get(device.type, ENOUGH["cpu"]))

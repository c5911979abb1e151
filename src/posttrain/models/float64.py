"""Double precision throughout, so that training gives the same digits on every CPU.

A Llama in float64 still computes its normalisations and rotary angles in float32, whose last digit
depends on the CPU's instruction set. Training amplifies that: after a few hundred steps it shows in
the fourth digit. Scores of a loaded model come from the stock modules, in every precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding


def next_token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Language-modelling loss in the precision of the logits; the stock loss goes through float32.

    For ``Trainer(compute_loss_func=…)``: logits ``[batch, tokens, words]``; labels
    ``[batch, tokens]``, −100 where there is no target. Targets are counted here if their number is
    not given.
    """
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    total = nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return total / ((targets != -100).sum() if num_items_in_batch is None else num_items_in_batch)


class DoubleRotaryEmbedding(nn.Module):
    """Default rotary embedding, of θ = ``base``, computed in float64."""

    def __init__(self, base: float, head_size: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.float64) / head_size
        self.frequencies: Tensor
        self.register_buffer("frequencies", base**-exponents, persistent=False)

    def forward(self, states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles, shape ``[batch, tokens, head size]``."""
        angles = position_ids[..., None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(states.dtype), angles.sin().to(states.dtype)


def compute_in_double(model: PreTrainedModel) -> PreTrainedModel:
    """Replace, in place, the float32 parts of a float64 Llama; the parameters and their names stay.

    Other precisions, and rotary embeddings of another type than the default, are left alone.
    """
    for parent, name, child in _in_single(model):
        setattr(parent, name, _doubled(child))
    return model


@contextmanager
def computing_in_double(model: PreTrainedModel) -> Iterator[None]:
    """Within, a model is as :func:`compute_in_double` makes it; afterwards it is as before."""
    replaced = _in_single(model)
    compute_in_double(model)
    try:
        yield
    finally:
        for parent, name, child in replaced:
            if isinstance(child, LlamaRMSNorm):
                # FSDP has put another parameter in its place.
                child.weight = getattr(parent, name).weight
            setattr(parent, name, child.to(model.device))


def _in_single(model: PreTrainedModel) -> list[tuple[nn.Module, str, Any]]:
    """Float32 parts of a float64 Llama: the module that holds each, its name there, and itself."""
    if model.dtype != torch.float64:
        return []
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, LlamaRMSNorm)
        or (isinstance(child, LlamaRotaryEmbedding) and child.rope_type == "default")
    ]


def _doubled(module: Any) -> nn.Module:
    if isinstance(module, LlamaRMSNorm):
        norm = nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon)
        norm.weight = module.weight
        return norm
    config: LlamaConfig = module.config
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    parameters: Any = config.rope_parameters
    return DoubleRotaryEmbedding(parameters["rope_theta"], head_size)

"""Double precision throughout, so that training gives the same digits on every CPU.

A Llama in float64 still computes its normalisations and rotary angles in float32, whose last digit
depends on the CPU's instruction set. Training amplifies that: after a few hundred steps it shows in
the fourth digit. For real training the stock modules are right.
"""

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
    if model.dtype != torch.float64:
        return model
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LlamaRMSNorm):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(parent, name, norm)
            elif isinstance(child, LlamaRotaryEmbedding) and child.rope_type == "default":
                config: LlamaConfig = child.config
                head_size = getattr(config, "head_dim", None) or (
                    config.hidden_size // config.num_attention_heads
                )
                parameters: Any = config.rope_parameters
                setattr(parent, name, DoubleRotaryEmbedding(parameters["rope_theta"], head_size))
    return model

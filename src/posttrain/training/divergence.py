"""Training that has diverged: found out as soon as a number is not finite, and never saved."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from posttrain.errors import UserError


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; of spread ones, in this process's part."""
    local = (
        (name, tensor.to_local() if isinstance(tensor, DTensor) else tensor)
        for name, tensor in named
    )
    return [name for name, tensor in local if not torch.isfinite(tensor).all()]


def diverged(what: str, learning_rate: float) -> UserError:
    """The error to raise; ``what`` says what is not finite, and when."""
    return UserError(
        f"{what}: training has diverged; lower learning_rate ({learning_rate:g}), warm up longer, "
        "or compute in float32"
    )


def check_weights(model: nn.Module, accelerator: Any, when: str, learning_rate: float) -> None:
    """Refuse trained weights that are not finite, on all processes if they are so on one."""
    trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
    broken = not_finite((name, weight.detach()) for name, weight in trained)
    count = accelerator.reduce(torch.tensor(len(broken), device=accelerator.device))
    if count.item():
        such_as = f", such as {broken[0]}" if broken else ""
        raise diverged(f"weights are not finite {when}{such_as}", learning_rate)

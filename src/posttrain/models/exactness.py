"""Whether a model keeps the responses of a row apart: a check on the model, before training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.models.reward_model import response_states, stock_model
from posttrain.rows.attention import mask_for
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup

#: How many times rounding an honest model may be off. Measured on Llamas of 2 to 30 layers, with
#: SDPA and eager attention, in float64 to bfloat16: at most 0.6 times.
ROUNDINGS = 10


@torch.no_grad()
def check_exact(model: PreTrainedModel, *, pad_token_id: int) -> None:
    """Refuse a model that computes otherwise in an exact single row than in separate rows.

    A model may ignore a mask or positions without saying so: with ALiBi, or recurrent layers. This
    compares the states that scores are read from on a few tokens. How far rounding moves them is
    measured on the model itself, so that the limit holds for every depth and precision: states may
    be off by :data:`ROUNDINGS` times rounding, and by a tenth of what ordinary causal attention
    does.

    Raises:
        UserError: If the exact row is off by more, or cannot be computed at all.
    """
    groups = _random_groups(model.config.get_text_config().vocab_size)

    def states(layout: Layout) -> Tensor:
        batch = lay_out(groups, layout, pad_token_id=pad_token_id).to(model.device)
        mask_for(model, batch)  # an implementation without masks is refused in its own words
        try:
            return response_states(model, batch).double()
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{type(model).__name__} cannot compute a row of layout {layout}: {error}; use "
                "layout 'separate' with one document per row"
            ) from error

    was_training = model.training
    model.eval()
    try:
        separate = states(LAYOUTS["separate"])
        off = (states(LAYOUTS["exact"]) - separate).norm().item()
        seeing = (states(Layout("single", "causal", "running")) - separate).norm().item()
        with _rounded_otherwise(model):
            rounding = (states(LAYOUTS["separate"]) - separate).norm().item()
    finally:
        model.train(was_training)
    # In bfloat16, so many roundings may be more than all that responses can tell each other.
    if not off <= min(ROUNDINGS * rounding, seeing / 10):
        raise UserError(
            f"{type(model).__name__} does not keep responses in one row apart: states are off by "
            f"{off:.2g}, by {seeing:.2g} where responses may see each other, and by "
            f"{rounding:.2g} through rounding alone; use layout 'separate' with one document per "
            "row"
        )


@contextmanager
def _rounded_otherwise(model: PreTrainedModel) -> Iterator[None]:
    """Within, each number of a token's embedding is one rounding larger or smaller.

    From there on it grows through the layers as rounding does within them. Computing the same rows
    in other batches would show rounding, too, but some kernels then give the same bits.
    """
    # In float64, too, layers take their softmax in float32.
    step = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    generator = torch.Generator().manual_seed(0)

    def perturb(_module: Any, _inputs: Any, embedded: Tensor) -> Tensor:
        signs = torch.randint(2, embedded.shape, generator=generator) * 2 - 1
        return embedded * (1 + step * signs.to(embedded))

    embedding: Any = stock_model(model).get_input_embeddings()
    hook = embedding.register_forward_hook(perturb)
    try:
        yield
    finally:
        hook.remove()


def _random_groups(vocabulary: int) -> list[TokenizedGroup]:
    """Four groups of random tokens; with fewer, rounding in half precision would blur the ratio."""
    generator = torch.Generator().manual_seed(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

    return [TokenizedGroup(words(13), tuple(map(words, (11, 14, 17, 20)))) for _ in range(4)]

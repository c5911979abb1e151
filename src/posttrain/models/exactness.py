"""Whether a model keeps the parts of a row apart: a check before training, on the model itself."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.models.reward_model import response_states
from posttrain.rows.attention import mask_for
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup


@torch.no_grad()
def check_exact(model: PreTrainedModel, *, pad_token_id: int) -> None:
    """Refuse a model that computes otherwise in an exact single row than in separate rows.

    A model may ignore a mask or positions without saying so: with ALiBi, or recurrent layers. This
    compares the states that scores are read from on a few tokens. The yardstick is how far ordinary
    causal attention moves them, so that it holds in every precision.

    Raises:
        UserError: If the exact row is more than a tenth as far off as the causal one, or cannot be
            computed at all.
    """
    groups = _random_groups(model.config.get_text_config().vocab_size)

    def states(layout: Layout) -> Tensor:
        batch = lay_out(groups, layout, pad_token_id=pad_token_id).to(model.device)
        mask_for(model, batch)  # an implementation without masks is refused in its own words
        try:
            return response_states(model, batch).float()
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
        yardstick = (states(Layout("single", "causal", "running")) - separate).norm().item()
    finally:
        model.train(was_training)
    if not off <= yardstick / 10:
        raise UserError(
            f"{type(model).__name__} does not keep responses in one row apart: states are off by "
            f"{off:.2g}, and by {yardstick:.2g} where responses may see each other; use layout "
            "'separate' with one document per row"
        )


def _random_groups(vocabulary: int) -> list[TokenizedGroup]:
    """Four groups of random tokens; with fewer, rounding in half precision would blur the ratio."""
    generator = torch.Generator().manual_seed(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

    return [TokenizedGroup(words(13), tuple(map(words, (11, 14, 17, 20)))) for _ in range(4)]

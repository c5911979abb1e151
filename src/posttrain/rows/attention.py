"""Who sees whom in a row, given to a model in the form that its attention understands."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from posttrain.rows.layout import RowBatch


def sees(
    query: Tensor,
    query_block: Tensor,
    query_branch: Tensor,
    key: Tensor,
    key_block: Tensor,
    key_branch: Tensor,
) -> Tensor:
    """The rule: a token sees itself and what comes before it in its block and on its branch.

    Branch 0, the prompt, is seen from every branch. Padding is a block of its own, so that each of
    its tokens sees at least itself and no softmax is empty.

    Args:
        query: Index of the looking token in its row.
        query_block: Its block.
        query_branch: Its branch.
        key: Index of the token looked at.
        key_block: Its block.
        key_branch: Its branch.

    Returns:
        True where the first sees the second, in the common shape of the arguments.
    """
    on_branch = (key_branch == 0) | (key_branch == query_branch)
    return (key <= query) & (key_block == query_block) & on_branch


def dense_mask(batch: RowBatch) -> Tensor:
    """The rule for every two tokens of each row, shape ``[rows, 1, longest, longest]``, boolean.

    Raises:
        ValueError: If the batch holds plain sequences, which need no mask.
    """
    block, branch = _structure(batch)
    index = torch.arange(block.shape[1], device=block.device)
    mask = sees(
        index[:, None], block[:, :, None], branch[:, :, None],
        index[None, :], block[:, None, :], branch[:, None, :],
    )  # fmt: skip
    return mask[:, None]


def block_mask(batch: RowBatch) -> BlockMask:
    """The rule for FlexAttention, which skips tiles of 128 × 128 tokens that see nothing.

    Raises:
        ValueError: As for :func:`dense_mask`.
    """
    block, branch = _structure(batch)

    def rule(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(
            query, block[row, query], branch[row, query],
            key, block[row, key], branch[row, key],
        )  # fmt: skip

    rows, longest = block.shape
    return create_block_mask(rule, rows, None, longest, longest, device=block.device)


def _structure(batch: RowBatch) -> tuple[Tensor, Tensor]:
    if batch.block is None or batch.branch is None:
        raise ValueError("the batch holds plain sequences; causal attention needs no mask for them")
    return batch.block, batch.branch


def mask_for(model: PreTrainedModel, batch: RowBatch) -> Tensor | BlockMask | None:
    """The mask to pass as ``attention_mask`` so that ``model`` follows the rule.

    Returns:
        None for plain sequences: causal attention alone is right for them, and right padding is
        seen by no other token. Otherwise a boolean mask for ``sdpa``, an additive one for
        ``eager`` (which would add a boolean mask to the logits and hide nothing), or a
        ``BlockMask`` for ``flex_attention``.

    Raises:
        ValueError: If the model's attention cannot follow the rule: another implementation, such as
            flash attention, which takes no arbitrary mask; layers that are not full attention;
            FlexAttention with gradients on a CPU.
    """
    if batch.block is None:
        return None
    _refuse_other_layers(model, batch.block.shape[1])
    implementation = model.config._attn_implementation
    if implementation == "sdpa":
        return dense_mask(batch)
    if implementation == "eager":
        hidden = torch.finfo(model.dtype).min
        visible = dense_mask(batch)
        return torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, hidden)
    if implementation == "flex_attention":
        if model.device.type == "cpu" and torch.is_grad_enabled():
            raise ValueError(
                "FlexAttention has no backward pass on a CPU; load the model with "
                "attn_implementation='sdpa'"
            )
        return block_mask(batch)
    raise ValueError(
        f"attention implementation {implementation!r} cannot keep responses or groups in one row "
        "apart; load the model with attn_implementation='sdpa' or 'flex_attention', or use layout "
        "'separate' with one block per row"
    )


def _refuse_other_layers(model: PreTrainedModel, longest: int) -> None:
    """Refuse layers with a mask of their own, unless it hides nothing in rows this short."""
    config: Any = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    # GPT-Neo and its like have a name of their own for the same thing.
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if kinds is None:
        sliding = window is not None and getattr(config, "use_sliding_window", True)
        kinds = ["sliding_attention" if sliding else "full_attention"]
    others = set(kinds) - {"full_attention", "global"}
    if not others or (others == {"sliding_attention"} and window and longest <= window):
        return
    raise ValueError(
        f"{type(model).__name__} has layers of type {', '.join(sorted(others))} (window: {window}, "
        f"longest row: {longest}), whose own mask that of the row would replace; use layout "
        "'separate' with one block per row"
    )

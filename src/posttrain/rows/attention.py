"""Who sees whom in a row, given to a model in the form that its attention understands."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.rows.layout import RowBatch


def sees(
    query: Tensor,
    query_document: Tensor,
    query_segment: Tensor,
    key: Tensor,
    key_document: Tensor,
    key_segment: Tensor,
) -> Tensor:
    """The rule: a token sees itself and what comes before it in its document and segment.

    True where the query sees the key, in the common shape of the arguments. Segment 0, the prompt,
    is seen from every segment. Padding is a document of its own, so that each of its tokens sees at
    least itself and no softmax is empty.

    >>> index, document, segment = torch.arange(4), torch.zeros(4), torch.tensor([0, 1, 1, 2])
    >>> query = index[:, None], document[:, None], segment[:, None]
    >>> sees(*query, index, document, segment).int()
    tensor([[1, 0, 0, 0],
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [1, 0, 0, 1]], dtype=torch.int32)
    """
    same_segment = (key_segment == 0) | (key_segment == query_segment)
    return (key <= query) & (key_document == query_document) & same_segment


def dense_mask(batch: RowBatch) -> Tensor:
    """The rule for every two tokens of each row, shape ``[rows, 1, longest, longest]``, boolean."""
    document, segment = _structure(batch)
    index = torch.arange(document.shape[1], device=document.device)
    mask = sees(
        index[:, None], document[:, :, None], segment[:, :, None],
        index[None, :], document[:, None, :], segment[:, None, :],
    )  # fmt: skip
    return mask[:, None]


def block_mask(batch: RowBatch) -> BlockMask:
    """The rule for FlexAttention, which skips tiles of 128 × 128 tokens that see nothing."""
    document, segment = _structure(batch)

    def rule(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(
            query, document[row, query], segment[row, query],
            key, document[row, key], segment[row, key],
        )  # fmt: skip

    rows, longest = document.shape
    return create_block_mask(rule, rows, None, longest, longest, device=document.device)


def _structure(batch: RowBatch) -> tuple[Tensor, Tensor]:
    if batch.document_id is None or batch.segment_id is None:
        raise UserError("the batch holds plain sequences; causal attention needs no mask for them")
    return batch.document_id, batch.segment_id


def kernel_options(mask: Tensor | BlockMask | None) -> dict[str, Any]:
    """What to pass to a model beside a mask of :func:`mask_for`, so that it can be computed."""
    # For rows of fewer than 128 tokens without gradients, FlexAttention would take its kernel for
    # decoding, which on a GPU cannot be compiled for every model (not for Llama-3.2-1B's heads).
    if isinstance(mask, BlockMask):
        return {"kernel_options": {"FORCE_USE_FLEX_ATTENTION": True}}
    return {}


def mask_for(model: PreTrainedModel, batch: RowBatch) -> Tensor | BlockMask | None:
    """The mask to pass as ``attention_mask`` so that ``model`` follows the rule.

    None for plain sequences: causal attention alone is right for them, and right padding is seen by
    no other token. Otherwise a boolean mask for ``sdpa``, an additive one for ``eager``, or a
    ``BlockMask`` for ``flex_attention``.

    Raises:
        UserError: If the model's attention cannot follow the rule, as flash attention and layers
            that are not full attention cannot, or FlexAttention with gradients on a CPU.
    """
    if batch.document_id is None:
        return None
    _refuse_other_layers(model, batch.document_id.shape[1])
    implementation = model.config._attn_implementation
    if implementation == "sdpa":
        return dense_mask(batch)
    if implementation == "eager":
        # A boolean mask would be added to the logits as 0 and 1, and hide nothing.
        hidden = torch.finfo(model.dtype).min
        visible = dense_mask(batch)
        return torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, hidden)
    if implementation == "flex_attention":
        if model.device.type == "cpu" and torch.is_grad_enabled():
            raise UserError(
                "FlexAttention has no backward pass on a CPU; load the model with "
                "attn_implementation='sdpa'"
            )
        return block_mask(batch)
    raise UserError(
        f"attention implementation {implementation!r} cannot keep responses or groups in one row "
        "apart; load the model with attn_implementation='sdpa' or 'flex_attention', or use layout "
        "'separate' with one document per row"
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
    raise UserError(
        f"{type(model).__name__} has layers of type {', '.join(sorted(others))} (window: {window}, "
        f"longest row: {longest}), whose own mask that of the row would replace; use layout "
        "'separate' with one document per row"
    )

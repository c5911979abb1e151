"""Who sees whom in a row, given to a model in the form that its attention understands."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.rows.layout import RowBatch

#: What to do where a model cannot keep apart what shares a row.
REMEDY = "use --layout separate without --pack_length"


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


def dense_mask(batch: RowBatch, window: int | None = None) -> Tensor:
    """The rule for every two tokens of each row, shape ``[rows, 1, longest, longest]``, boolean.

    With a ``window``, a token sees only as many positions, its own included.
    """
    document, segment, position = _structure(batch)
    index = torch.arange(document.shape[1], device=document.device)
    mask = sees(
        index[:, None], document[:, :, None], segment[:, :, None],
        index[None, :], document[:, None, :], segment[:, None, :],
    )  # fmt: skip
    if window is not None:
        mask &= position[:, :, None] - position[:, None, :] < window
    return mask[:, None]


def block_mask(batch: RowBatch, window: int | None = None) -> BlockMask:
    """The rule for FlexAttention, which skips tiles of 128 × 128 tokens that see nothing."""
    document, segment, position = _structure(batch)

    def rule(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = sees(
            query, document[row, query], segment[row, query],
            key, document[row, key], segment[row, key],
        )  # fmt: skip
        if window is None:
            return seen
        return seen & (position[row, query] - position[row, key] < window)

    rows, longest = document.shape
    return create_block_mask(rule, rows, None, longest, longest, device=document.device)


def _structure(batch: RowBatch) -> tuple[Tensor, Tensor, Tensor]:
    if batch.document_id is None or batch.segment_id is None or batch.position_ids is None:
        raise UserError("the batch holds plain sequences; causal attention needs no mask for them")
    return batch.document_id, batch.segment_id, batch.position_ids


#: What a model takes as ``attention_mask``; with two kinds of layers a mask for each, by its name.
Mask = Tensor | BlockMask | dict[str, Any] | None


def kernel_options(mask: Mask) -> dict[str, Any]:
    """What to pass to a model beside a mask of :func:`mask_for`, so that it can be computed."""
    # For rows of fewer than 128 tokens without gradients, FlexAttention would take its kernel for
    # decoding, which on a GPU cannot be compiled for every model (not for Llama-3.2-1B's heads).
    masks = mask.values() if isinstance(mask, dict) else (mask,)
    if any(isinstance(one, BlockMask) for one in masks):
        return {"kernel_options": {"FORCE_USE_FLEX_ATTENTION": True}}
    return {}


def mask_for(model: PreTrainedModel, batch: RowBatch) -> Mask:
    """The mask to pass as ``attention_mask`` so that ``model`` follows the rule.

    None for plain sequences: causal attention alone is right for them, and right padding is seen by
    no other token. Otherwise a boolean mask for ``sdpa``, an additive one for ``eager``, or a
    ``BlockMask`` for ``flex_attention``. Layers with a sliding window get a mask with that window,
    in positions; a model that has such layers beside full ones gets both, by the kind of layer.

    Raises:
        UserError: If the model's attention cannot follow the rule, as flash attention and other
            kinds of layers cannot, or FlexAttention with gradients on a CPU.
    """
    if batch.document_id is None:
        return None
    masks = {kind: _mask(model, batch, window) for kind, window in _windows(model).items()}
    return masks if len(masks) > 1 else masks.popitem()[1]


def _mask(model: PreTrainedModel, batch: RowBatch, window: int | None) -> Tensor | BlockMask:
    implementation = model.config.get_text_config()._attn_implementation
    if implementation == "sdpa":
        return dense_mask(batch, window)
    if implementation == "eager":
        # A boolean mask would be added to the logits as 0 and 1, and hide nothing.
        hidden = torch.finfo(model.dtype).min
        visible = dense_mask(batch, window)
        return torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, hidden)
    if implementation == "flex_attention":
        if model.device.type == "cpu" and torch.is_grad_enabled():
            raise UserError(
                "FlexAttention has no backward pass on a CPU; take --attention sdpa or eager"
            )
        return block_mask(batch, window)
    raise UserError(
        f"attention implementation {implementation!r} cannot keep responses or groups in one row "
        f"apart; take --attention sdpa, eager or flex_attention, or {REMEDY}"
    )


def _windows(model: PreTrainedModel) -> dict[str, int | None]:
    """How far the layers of a model see, by their kind; None: all that came before."""
    config: Any = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    # GPT-Neo has a name of its own for its kinds, of which the local one counts along the row.
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    if kinds is None:
        sliding = window is not None and getattr(config, "use_sliding_window", True)
        kinds = ["sliding_attention" if sliding else "full_attention"]
    others = set(kinds) - {"full_attention", "global", "sliding_attention"}
    if others:
        raise UserError(
            f"{type(model).__name__} has layers of type {', '.join(sorted(others))}, which do not "
            f"follow the mask of a row; {REMEDY}"
        )
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}

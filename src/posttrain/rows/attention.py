"""Who sees whom in a row, given to a model in the form that its attention understands."""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.rows import shared_prefix
from posttrain.rows.layout import RowBatch
from posttrain.rows.shared_prefix import SharedPrefix

logger = logging.getLogger(__name__)

#: What to do where a model cannot keep apart what shares a row.
REMEDY = "use --layout separate without --pack_length"
#: Where a model cannot take attention in two pieces.
OTHERS = "take --attention sdpa or eager"


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


#: What :func:`mask_for` gives; with two kinds of layers a mask for each, by its name.
Mask = Tensor | BlockMask | SharedPrefix | dict[str, Any] | None


def mask_arguments(model: PreTrainedModel, batch: RowBatch) -> dict[str, Any]:
    """Arguments of a model's forward, by name, that make it follow the rule (:func:`mask_for`).

    Raises:
        UserError: As for :func:`mask_for`.
    """
    mask = mask_for(model, batch)
    if isinstance(mask, SharedPrefix):
        return {"attention_mask": mask.placeholder, "shared_prefix": mask}
    arguments: dict[str, Any] = {"attention_mask": mask}
    # For rows of fewer than 128 tokens without gradients, FlexAttention would take its kernel for
    # decoding, which on a GPU cannot be compiled for every model (not for Llama-3.2-1B's heads).
    masks = mask.values() if isinstance(mask, dict) else (mask,)
    if any(isinstance(one, BlockMask) for one in masks):
        arguments["kernel_options"] = {"FORCE_USE_FLEX_ATTENTION": True}
    return arguments


def mask_for(model: PreTrainedModel, batch: RowBatch) -> Mask:
    """The mask with which ``model`` follows the rule.

    None for plain sequences: causal attention alone is right for them, and right padding is seen by
    no other token. Otherwise a boolean mask for ``sdpa``, an additive one for ``eager``, a
    ``BlockMask`` for ``flex_attention``, or for ``shared_prefix`` what lies where. Layers with a
    sliding window get a mask with that window, in positions; a model that has such layers beside
    full ones gets both, by the kind of layer.

    Raises:
        UserError: If the model's attention cannot follow the rule, as flash attention and other
            kinds of layers cannot, or FlexAttention with gradients on a CPU.
    """
    if batch.document_id is None:
        return None
    masks = {kind: _mask(model, batch, window) for kind, window in _windows(model).items()}
    return masks if len(masks) > 1 else masks.popitem()[1]


def _mask(
    model: PreTrainedModel, batch: RowBatch, window: int | None
) -> Tensor | BlockMask | SharedPrefix:
    implementation = _implementation(model)
    if in_pieces(model):
        document, segment, _ = _structure(batch)
        return SharedPrefix(document, segment)
    if implementation in ("sdpa", shared_prefix.NAME):
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


def in_pieces(model: PreTrainedModel) -> bool:
    """Whether a model computes shared rows in two pieces, at the cost of what is seen alone."""
    return _implementation(model) == shared_prefix.NAME and why_dense(model) is None


def why_dense(model: PreTrainedModel) -> str | None:
    """Why a model cannot take attention in two pieces (:mod:`.shared_prefix`); None: it can."""
    config: Any = model.config.get_text_config()
    if not model._supports_attention_backend:
        return "it computes attention with code of its own"
    if any(window is not None for window in _windows(model).values()):
        return "its attention has a sliding window"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention caps logits"
    names = [name for name in vars(config) if "att" in name and "drop" in name]
    if any(getattr(config, name) for name in names):
        return "its attention has dropout"
    return None


def share_prefixes(model: PreTrainedModel, *, asked_for: bool = False) -> None:
    """Let a model compute shared rows as :mod:`.shared_prefix` does, where it can.

    Plain sequences, and what is saved, stay as with transformers' ``sdpa``. A model that cannot
    keeps its attention, which one line says.

    Raises:
        UserError: If it cannot, and is ``asked_for``.
    """
    name = type(model).__name__
    try:
        reason = why_dense(model)
    except UserError as error:
        reason = str(error)
    if reason is None and not asked_for and _implementation(model) != "sdpa":
        reason = f"its attention is {_implementation(model)}"
    if reason is None:
        model.set_attn_implementation(shared_prefix.NAME)
    elif asked_for:
        raise UserError(f"attention {shared_prefix.NAME!r} is not for {name}: {reason}; {OTHERS}")
    else:
        logger.info(
            "rows that responses share get a mask for every two tokens, for %s: %s", name, reason
        )


def _implementation(model: PreTrainedModel) -> str:
    return model.config.get_text_config()._attn_implementation


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

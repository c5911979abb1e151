"""Rotary embeddings whose frequencies depend on the length of the longest row of a batch."""

import logging
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig

from posttrain.errors import UserError
from posttrain.rows.layout import Layout
from posttrain.rows.tokenization import Limits

logger = logging.getLogger(__name__)


def rope_boundary(config: PreTrainedConfig) -> int | None:
    """Up to how many tokens a model takes the same rotary frequencies; None: whatever the length.

    With ``longrope`` (Phi-3) a longer row takes a second set of them, and with it all rows beside
    it; with ``dynamic``, each length beyond the context has its own, which later rows then keep.

    >>> from transformers import LlamaConfig
    >>> rope_boundary(LlamaConfig())
    """
    kinds = _boundaries(config)
    return min(kinds.values(), default=None)


def within_boundary(config: PreTrainedConfig, limits: Limits, layout: Layout) -> Limits:
    """Limits that leave no row beyond :func:`rope_boundary`; the log says so.

    For training, whose rows of either side are computed together.
    """
    boundary = rope_boundary(config)
    if boundary is None or (limits.max_tokens is not None and limits.max_tokens <= boundary):
        return limits
    logger.info(
        "prompts are cut so that rows have at most %d tokens (max_tokens): longer ones would "
        "change this model's rotary frequencies, also for the rows beside them", boundary,
    )  # fmt: skip
    limits = replace(limits, max_tokens=boundary, context=boundary)
    if layout.rows == "separate" or layout.positions == "restarting":
        return limits
    return replace(limits, max_row_tokens=min(limits.max_row_tokens or boundary, boundary))


def rope_side(config: PreTrainedConfig, length: int) -> bool:
    """Whether a row of so many tokens is beyond the boundary; only rows of a side go together.

    Raises:
        UserError: If frequencies would be different for every row.
    """
    kinds = _boundaries(config)
    if length > kinds.get("dynamic", length):
        raise UserError(
            f"a row of {length} tokens is beyond this model's context of {kinds['dynamic']}, where "
            "its rotary frequencies (rope_type dynamic) depend on the rows before it; set "
            f"--max_tokens {kinds['dynamic']}, and leave out responses that are longer by "
            "themselves (--skip_too_long); posttrain data check FILE --model NAME shows how many "
            "there are"
        )
    return length > kinds.get("longrope", length)


def _boundaries(config: PreTrainedConfig) -> dict[str, int]:
    text: Any = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    # Where kinds of layers differ, each has parameters of its own.
    each = [one for one in parameters.values() if isinstance(one, dict)] or [parameters]
    found: dict[str, int] = {}
    for one in each:
        if one.get("rope_type") == "longrope":
            found["longrope"] = one["original_max_position_embeddings"]
        elif one.get("rope_type") == "dynamic":
            found["dynamic"] = text.max_position_embeddings
    return found

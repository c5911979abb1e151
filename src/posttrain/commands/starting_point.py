"""What a run starts from: a model all of whose chosen weights can be trained."""

import logging
from typing import Any

import torch
from trl.trainer.utils import disable_dropout_in_model

from posttrain.commands.common import ModelSettings
from posttrain.errors import UserError
from posttrain.models import adapters, architecture

logger = logging.getLogger(__name__)


def trainable(
    model: Any, settings: ModelSettings, *, lora_rank: int, top_layers: int, dropout: bool = True
) -> Any:
    """The model of some settings with adapters merged, in a precision that training needs.

    All but its ``top_layers`` are frozen, if there are any; with ``lora_rank`` it keeps its
    precision, because what is trained are other weights. Without ``dropout`` its layers of that
    name let everything through.

    Raises:
        UserError: If its weights are quantised, or see :func:`.adapters.merge` and
            :func:`.architecture.freeze_below`.
    """
    if getattr(model, "is_quantized", False):
        raise UserError(
            f"the weights of {settings.model} are quantised, so they can be scored with but not "
            "trained; take the model of which they were made"
        )
    merged = adapters.merge(model, precision=None if settings.dtype == "auto" else model.dtype)
    if not lora_rank:
        _use_trainable_precision(merged, settings.dtype)
    architecture.freeze_below(merged, top_layers)
    if not dropout:
        disable_dropout_in_model(merged)
    return merged


def _use_trainable_precision(model: Any, chosen: str) -> None:
    """AdamW moves a weight by about the learning rate; half precision has eight bits to show it."""
    precision = torch.promote_types(model.dtype, torch.float32)
    if model.dtype != precision and chosen == "auto":
        model.to(precision)
    elif model.dtype != precision:
        logger.warning(
            "weights are trained in %s, in which updates below a 256th of a weight are lost; "
            "with --dtype float32 --bf16 only products are computed in half precision",
            chosen,
        )

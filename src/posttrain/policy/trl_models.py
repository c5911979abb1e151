"""What TRL's trainers do to a model, and how to live with it.

Their loss would go through float32 (:mod:`.float64`), and they change what a copy computes.
"""

import copy
import functools
from types import MethodType
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

Model = TypeVar("Model", bound=PreTrainedModel)


def log_probs_in_double(model: PreTrainedModel) -> PreTrainedModel:
    """Let TRL's trainers read log-probabilities of a float64 model in its own precision.

    They ask a model for those of ``labels`` with ``fused_lm_head=True``, which TRL answers through
    float32. What they ask otherwise, and models of other precisions, are left alone. Call it on the
    model of a trainer, once TRL has prepared it.
    """
    if model.dtype != torch.float64:
        return model
    answered_by_trl = model.forward

    @functools.wraps(answered_by_trl)
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head:
            if labels is not None:
                kwargs["labels"] = labels
            return answered_by_trl(*args, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        logits = answered_by_trl(*args, **kwargs).logits[:, :-1]
        targets = labels[:, 1:]
        mask = targets != -100
        log_probs = logits.log_softmax(-1)
        of_targets = log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            is_top1 = logits.argmax(-1) == targets
        return FusedCausalLMOutput(
            log_probs=of_targets.masked_fill(~mask, 0),
            entropy=entropy.masked_fill(~mask, 0),
            mean_logits=logits.detach().mean(-1).masked_fill(~mask, 0),
            is_top1=is_top1 & mask,
            label_mask=mask,
        )

    model.forward = MethodType(forward, model)
    return model


def copied(model: Model) -> Model:
    """A copy that computes with its own weights, also of a model that TRL's trainers have changed.

    They put functions in place of ``forward`` that go on computing with the weights of the model
    that they were made for. What reward models have there (:func:`.reward_model.accept_rows`) is
    copied with them.
    """
    twin = copy.deepcopy(model)
    if "accepts_rows" not in vars(twin):
        vars(twin).pop("forward", None)
    return twin

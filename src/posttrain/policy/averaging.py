"""Models as the mean of the weights of others (Llama 3, section 4.1.5)."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.policy.trl_models import copied

Model = TypeVar("Model", bound=PreTrainedModel)


def average(models: Sequence[Model]) -> Model:
    """A model whose weights are the mean of those of some models, which it does not change.

    Sums are in float32 at least, and in the models' own precision if that is higher.

    Raises:
        UserError: If there is no model, or their weights differ in names, shapes or precision.
    """
    if not models:
        raise UserError("give models to average")
    states = [model.state_dict() for model in models]
    _check_alike([{name: (w.shape, w.dtype) for name, w in state.items()} for state in states])
    merged = copied(models[0])
    mean = {}
    for name, first in states[0].items():
        precision = torch.promote_types(first.dtype, torch.float32)
        stacked = torch.stack([state[name].to(precision) for state in states])
        mean[name] = stacked.mean(dim=0).to(first.dtype)
    merged.load_state_dict(mean)
    return merged.eval()


def _check_alike(shapes: Sequence[dict]) -> None:
    for number, other in enumerate(shapes[1:], start=2):
        for name in shapes[0].keys() | other.keys():
            if shapes[0].get(name) != other.get(name):
                raise UserError(
                    f"weights of model {number} are not like those of the first: {name} is "
                    f"{other.get(name, 'missing')} and {shapes[0].get(name, 'missing')}; average "
                    "models that started from one checkpoint"
                )

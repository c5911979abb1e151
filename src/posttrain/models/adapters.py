"""Adapters, such as LoRA's: folders of peft that hold what changes of another model, their base."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.peft_utils import find_adapter_config_file

from posttrain.errors import UserError


def base_of(checkpoint: str | Path) -> str | None:
    """The model that a checkpoint adapts, a folder or a name; None where it is a model itself.

    Raises:
        UserError: If it is an adapter that does not say so.
    """
    try:
        path = find_adapter_config_file(str(checkpoint))
    except OSError:
        return None  # whoever loads it says what is wrong
    # For transformers, too, a whole model beside an adapter is its base.
    if path is None or (Path(checkpoint) / "config.json").exists():
        return None
    try:
        base = json.loads(Path(path).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{str(checkpoint)!r} holds an adapter whose adapter_config.json names no base; set "
            "base_model_name_or_path in it to the folder or name of the model that it adapts"
        )
    return base


@torch.no_grad()
def merge(model: Any, *, precision: torch.dtype | None = None) -> PreTrainedModel:
    """Merge a stock model's adapters into its weights, in place, in float32 at least.

    Its precision is then that in which it was merged, or the one given, and all weights can be
    trained. A model without adapters stays as it is.

    Raises:
        UserError: If adapters are of a kind that cannot be merged.
    """
    if not getattr(model, "_hf_peft_config_loaded", False):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    model.to(torch.promote_types(model.dtype, torch.float32))
    within = "\n"  # no module's name
    for name, module in list(model.named_modules()):
        if name.startswith(within):
            continue
        owner, _, own = name.rpartition(".")
        try:
            if isinstance(module, AuxiliaryTrainingWrapper):  # trained and saved whole
                merged: nn.Module = module.unload_and_optionally_merge_module(
                    merge=True, safe_merge=True, adapter_names=None
                )
            elif isinstance(module, BaseTunerLayer):
                module.merge(safe_merge=True)
                merged = module.get_base_layer()
            else:
                continue
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise UserError(
                f"the adapter on {name} ({type(module).__name__}) cannot be merged into its base "
                f"({error}); merge it where it was made, and start from the result"
            ) from error
        setattr(model.get_submodule(owner), own, merged)
        within = f"{name}."
    del model.peft_config
    model._hf_peft_config_loaded = False
    # It had frozen what it adapts.
    model.requires_grad_(True)
    # Saving would undo the renaming with which an adapter's weights were loaded.
    model._weight_conversions = None
    if precision is not None:
        model.to(precision)
        # A score head is float32 at least.
        model.score.to(torch.promote_types(precision, torch.float32))
    return model


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    seed: int,
    targets: Sequence[str] = (),
) -> Any:
    """Wrap a reward model in fresh LoRA adapters on its linear layers; its head is trained whole.

    With ``targets``, only layers whose names are these, or end with them after a dot, get adapters.
    With one seed, all processes draw the same ones, and a run that is repeated draws them again.

    Raises:
        UserError: If a target is no linear layer's name, or that of the head.
    """
    from peft import LoraConfig, get_peft_model

    if list(targets) == ["all-linear"]:
        targets = ()
    linear = [name for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D)]
    body = [name for name in linear if name != "score"]
    for target in targets:
        # peft itself is content if one of them is there.
        if not any(f".{name}".endswith(f".{target}") for name in body):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in body}))
            raise UserError(
                f"lora_target_modules names {target}, which is no linear layer that can have "
                f"adapters; there are {known}"
            )

    # For this kind of task, peft trains and saves the score head.
    adapters = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets) or "all-linear",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, adapters)

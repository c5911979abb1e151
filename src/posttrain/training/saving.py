"""Saving a model: a plain Hugging Face folder that other programs load as it is."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.errors import UserError
from posttrain.models.reward_model import score_head, stock_model
from posttrain.training.divergence import not_finite

#: Without this file no program takes a folder for a model, so it comes first and last.
CONFIG = "config.json"


def finish(model: Any) -> PreTrainedModel:
    """The model as it will be saved: adapters merged, the head as other programs will read it.

    A peft model is of no use any more afterwards.
    """
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    # Stock classes load all weights in one precision. The float32 head of a half-precision body is
    # rounded here, so that what is evaluated, saved and loaded is the same.
    if model.dtype in (torch.bfloat16, torch.float16):
        weight = score_head(model).weight
        weight.data = weight.data.to(model.dtype).to(weight.dtype)
    return model


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    state: Mapping[str, torch.Tensor] | None = None,
    files: Mapping[str, str | bytes] | None = None,
    auto: Any = AutoModelForSequenceClassification,
) -> list[str]:
    """Save a finished model, tokenizer and further files into a folder, whole or not at all.

    Weights are written as safetensors; ``state`` are those to save instead of the model's own,
    where these are spread over processes. ``files`` are contents of further files by name.
    ``auto`` is the class of transformers as which others will load it. Returns the names of what
    was written.

    Raises:
        UserError: If stock classes could not load the weights, or they are not finite.
        OSError: If the folder cannot be written.
    """
    scratch = folder / ".model-partial"
    shutil.rmtree(scratch, ignore_errors=True)
    stock = stock_model(model)
    state = state or stock.state_dict()
    weights = {name: tensor.to(stock.dtype) for name, tensor in state.items()}
    _check(weights, stock, folder, auto)
    try:
        stock.save_pretrained(scratch, state_dict=weights)
        tokenizer.save_pretrained(scratch)
        for name, content in (files or {}).items():
            (scratch / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (folder / CONFIG).unlink(missing_ok=True)
        # Shards of a larger model would be there beside the new file, or the other way round.
        for stale in folder.glob("*.safetensors*"):
            stale.unlink()
        mode = (scratch / CONFIG).stat().st_mode
        written = sorted(scratch.iterdir(), key=lambda path: path.name == CONFIG)
        for path in written:
            if path.is_dir():  # such as that of a tokenizer's further chat templates
                shutil.rmtree(folder / path.name, ignore_errors=True)
            else:
                # safetensors writes files that nobody else may read.
                path.chmod(mode)
            os.replace(path, folder / path.name)
        return [path.name for path in written]
    # safetensors has an error of its own for a disk that is full.
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"the model could not be written to {folder} ({error}); make room and go on from the "
            "last checkpoint (--resume)"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check(
    weights: Mapping[str, torch.Tensor], model: PreTrainedModel, folder: Path, auto: Any
) -> None:
    """Refuse what would load as another model: names that are missing there would be random."""
    with torch.device("meta"):
        stock: Any = auto.from_config(model.config)
    differing = sorted(weights.keys() ^ stock.state_dict().keys())
    if differing:
        raise UserError(
            f"no model is written to {folder}: {len(differing)} names of weights differ from those "
            f"of its class, such as {differing[0]}; a wrapper (adapters, compilation) is still "
            "around the model; its checkpoints are whole"
        )
    broken = not_finite(weights.items())
    if broken:
        raise UserError(
            f"no model is written to {folder}: {len(broken)} weights are not finite, such as "
            f"{broken[0]}; training has diverged, or they exceed the range of their precision"
        )

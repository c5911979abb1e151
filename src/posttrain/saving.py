"""Saving a reward model: a plain Hugging Face folder that other programs load as it is."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.reward_model import score_head, stock_model

#: Without this file no program takes a folder for a model, so it comes first and last.
CONFIG = "config.json"


def finish(model: Any) -> PreTrainedModel:
    """The model as it will be saved: adapters merged, the head as other programs will read it.

    Stock classes load all weights in one precision. The float32 head of a half-precision body is
    rounded here, so that what is evaluated, saved and loaded is the same.

    Args:
        model: A reward model, or a peft model of one, which is of no use any more afterwards.
    """
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
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
    texts: Mapping[str, str] | None = None,
) -> None:
    """Save model, tokenizer and texts into a folder, where they appear whole or not at all.

    Weights are written as safetensors.

    Args:
        model: The reward model, finished.
        tokenizer: Its tokenizer.
        folder: May exist and hold other files.
        state: Weights to save instead of the model's own, where these are spread over processes.
        texts: Contents of further files by name.
    """
    scratch = folder / ".model-partial"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        stock = stock_model(model)
        dtype = stock.dtype
        weights = {name: tensor.to(dtype) for name, tensor in (state or stock.state_dict()).items()}
        stock.save_pretrained(scratch, state_dict=weights)
        tokenizer.save_pretrained(scratch)
        for name, text in (texts or {}).items():
            (scratch / name).write_text(text, encoding="utf-8")
        (folder / CONFIG).unlink(missing_ok=True)
        # Shards of a larger model would be there beside the new file, or the other way round.
        for stale in folder.glob("*.safetensors*"):
            stale.unlink()
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == CONFIG):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

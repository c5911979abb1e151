"""What the steps of rounds leave in their folders, and how it is read again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from posttrain.data.preferences import RankedGroup
from posttrain.data.reading import read_groups


def load_policy(folder: Path | str) -> tuple[PreTrainedModel, Any]:
    """A language model in float32 at least, and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.to(torch.promote_types(model.dtype, torch.float32))
    return model, AutoTokenizer.from_pretrained(folder)


def preferences(folder: Path) -> list[RankedGroup]:
    """The annotations of a round."""
    return read_groups(folder / "pairs.jsonl").groups


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write objects as :func:`read_lines` reads them."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def save_policy(model: PreTrainedModel, tokenizer_of: Path, folder: Path) -> None:
    """Save a model with the tokenizer of another folder, a plain Hugging Face folder."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)

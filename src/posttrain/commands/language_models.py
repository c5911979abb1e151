"""Language models for commands that sample from them or train them."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.commands.common import PRECISIONS, files_of
from posttrain.commands.models import read_template, use_day
from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.models import adapters, embedded
from posttrain.models.architecture import vocabulary_size
from posttrain.models.loading import load_language_model, load_tokenizer


@dataclass(frozen=True)
class LanguageModelSettings:
    """Which language model, and how it is computed."""

    model: str = setting(
        None, "A folder, a name on the Hugging Face hub, or smollm2 or tiny (embedded models)."
    )
    dtype: str = setting(
        "auto",
        "Precision of the weights: float32, bfloat16, float64, or auto, as they are stored.",
        PRECISIONS,
    )
    attention: str | None = setting(
        None, "Attention implementation: sdpa, eager and the like; by default transformers' own."
    )
    chat_template: str | None = setting(
        None, "A file with a Jinja chat template, for a tokenizer that has none."
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("give a model: a folder, a name on the hub, or smollm2 or tiny")
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}; known: {', '.join(PRECISIONS)}")

    def inputs(self) -> list[str]:
        """Files that are read; no output may replace them."""
        return files_of(self.model) + ([self.chat_template] if self.chat_template else [])


def load_policy(
    settings: LanguageModelSettings, *, day: datetime.date | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model of some settings, on the CPU in evaluation mode, and its tokenizer.

    ``day`` is written into a chat template that asks for today's date; by default it is today, and
    a warning says so.

    Raises:
        UserError: See :func:`.load_language_model` and :func:`.load_tokenizer`; also if tokens
            have no embedding.
    """
    template = None if settings.chat_template is None else read_template(settings.chat_template)
    checkpoint = embedded.find(settings.model)
    tokenizer = load_tokenizer(checkpoint, chat_template=template, pads=False)
    model = load_language_model(
        checkpoint,
        dtype="auto" if settings.dtype == "auto" else getattr(torch, settings.dtype),
        attn_implementation=settings.attention,
    )
    largest = max(tokenizer.get_vocab().values(), default=0)
    used = [one for one in (tokenizer.eos_token_id, tokenizer.pad_token_id) if one is not None]
    if max(used, default=0) >= vocabulary_size(model):
        raise UserError(
            f"tokens of {settings.model!r} that end or pad a text have ids up to {max(used)} (of "
            f"{largest}), and the model embeddings for ids below {vocabulary_size(model)} only; "
            "take the tokenizer that belongs to the model"
        )
    if Path(checkpoint).is_dir():
        # What is saved names it as its base: from everywhere.
        model.name_or_path = str(Path(checkpoint).resolve())
    use_day(tokenizer, day)
    return model.eval(), tokenizer


def trainable_policy(model: Any, settings: LanguageModelSettings, *, lora_rank: int) -> Any:
    """A language model with adapters merged, in float32 at least unless settings say otherwise.

    With ``lora_rank`` it keeps its precision, because what is trained are other weights.

    Raises:
        UserError: If its weights are quantised, or see :func:`.adapters.merge`.
    """
    if getattr(model, "is_quantized", False):
        raise UserError(
            f"the weights of {settings.model} are quantised, so they can be sampled from but not "
            "trained; take the model of which they were made"
        )
    stored = model.dtype
    merged: Any = adapters.merge(model)
    wide = torch.promote_types(stored, torch.float32)
    keeps = lora_rank or settings.dtype != "auto"
    return merged.to(stored if keeps else wide)

"""What commands load by their settings: a model, its tokenizer with its chat template, a device."""

import datetime
import logging
from pathlib import Path

import torch
from jinja2 import TemplateSyntaxError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from posttrain.commands.common import ModelSettings, RowSettings
from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.models.loading import load_tokenizer
from posttrain.rows.rendering import pin_date
from posttrain.rows.shared_prefix import NAME as SHARED_PREFIX

logger = logging.getLogger(__name__)


def find_device(name: str | None) -> torch.device:
    """The device of a setting; by default a GPU if there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1).to(name).cpu()  # not all devices that have a name are there and can compute
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"device {name!r} cannot be used here ({reason}); set device to cpu, or leave it out"
        ) from None


def load_model(
    settings: ModelSettings,
    rows: RowSettings,
    *,
    seed: int,
    gpu: bool,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of some settings, on the CPU, and its tokenizer (see :func:`.reward_model.load`).

    ``seed`` is for a score head that the checkpoint lacks; ``gpu``, whether it will be computed on
    a GPU, and the rows decide the attention implementation. The ``tokenizer`` is one of
    :func:`tokenizer_of`, by default with today's date.
    """
    if tokenizer is None:
        tokenizer = tokenizer_of(settings)
    model, tokenizer = reward_model.load(
        settings.find(),
        seed=seed,
        dtype=None if settings.dtype == "auto" else getattr(torch, settings.dtype),
        attention=settings.attention,
        tokenizer=tokenizer,
    )
    needs_mask = rows.rows.needs_mask(shared_rows=rows.pack_length is not None)
    shares = model.config.get_text_config()._attn_implementation == SHARED_PREFIX
    if (
        settings.attention is None
        and gpu
        and needs_mask
        and model._supports_flex_attn
        and not shares
    ):
        model.set_attn_implementation("flex_attention")
    return model, tokenizer


def tokenizer_of(
    settings: ModelSettings, day: datetime.date | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of some settings, with its chat template.

    ``day`` is written into a template that asks for today's date; by default it is today, and a
    warning says so.
    """
    template = None if settings.chat_template is None else read_template(settings.chat_template)
    tokenizer = load_tokenizer(settings.find(), settings.pad_token, template)
    use_day(tokenizer, day)
    return tokenizer


def use_day(tokenizer: PreTrainedTokenizerBase, day: datetime.date | None) -> None:
    """Write a day into the template that is used: the only one, or of several the default one."""
    written = day or datetime.date.today()
    several = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else None
    template = tokenizer.chat_template if several is None else several.get("default")
    pinned = pin_date(template or "", written)
    if pinned == (template or ""):
        return
    tokenizer.chat_template = pinned if several is None else several | {"default": pinned}
    tokenizer.pinned_day = written
    if day is None:
        logger.warning(
            "the chat template of %s writes today's date, so results change with the day; "
            "these are those of %s", tokenizer.name_or_path, written,
        )  # fmt: skip
    else:
        logger.info(
            "the chat template writes today's date; here and in the model that is saved it writes "
            "%s, the day on which the run was started", written,
        )  # fmt: skip


def read_template(path: str) -> str:
    """The text of a file with a chat template; a UserError if it is none."""
    try:
        template = Path(path).read_text(encoding="utf-8")
        render_jinja_template(conversations=[], chat_template=template)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not UTF-8 text")
        raise UserError(f"--chat_template {path}: cannot be read ({reason})") from None
    except TemplateSyntaxError as error:
        raise UserError(
            f"--chat_template {path}, line {error.lineno}: no Jinja template ({error.message})"
        ) from None
    return template

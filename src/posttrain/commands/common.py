"""Settings that several commands share, and what they mean."""

import datetime
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateSyntaxError
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.utils import is_liger_kernel_available
from transformers.utils import logging as transformers_logging
from transformers.utils.chat_template_utils import render_jinja_template
from trl import TrlParser

from posttrain.commands.pages import CONFIG, PAGES
from posttrain.config import yaml
from posttrain.config.fields import at_least_one, setting
from posttrain.config.help import add_help
from posttrain.data import store
from posttrain.data.columns import parse_columns
from posttrain.data.ratings import check_min_difference
from posttrain.errors import UserError
from posttrain.evaluation.calibration import FILE
from posttrain.evaluation.scoring import limits_for
from posttrain.models import embedded, reward_model
from posttrain.models.loading import load_tokenizer, snapshot
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.rendering import pin_date
from posttrain.rows.shared_prefix import NAME as SHARED_PREFIX
from posttrain.rows.tokenization import Limits

logger = logging.getLogger(__name__)

LAYOUT_NAMES = ("separate", "exact", "causal")
LAYOUT_HELP = (
    "separate (a row for each response), exact (one row for all, same scores), or causal (one row, "
    "shuffled, responses see those before them)."
)
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
#: Names that mean an embedded model, also beside a folder of that name.
EMBEDDED = ("smollm2", "tiny", "tiny-praise")


def parse(
    command: str,
    kinds: tuple[type, ...],
    description: str,
    arguments: Sequence[str],
    translate: yaml.Translate | None = None,
) -> list[Any]:
    """Settings of a command, an object of each kind, and quiet libraries.

    With ``translate``, TRL's settings are understood, too (see :func:`.yaml.parse`).
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("posttrain").setLevel(logging.INFO)
    # TrainingArguments takes quiet logging for a wish to see no progress, so that comes after it.
    transformers_logging.set_verbosity_warning()
    of_settings: Any = kinds
    parser = TrlParser(
        of_settings, prog=f"posttrain {command}", description=description, add_help=False
    )
    add_help(parser, PAGES[command], CONFIG)
    try:
        return yaml.parse(parser, arguments, translate)
    finally:
        transformers_logging.set_verbosity_error()
        bars_on_terminals_only()


def bars_on_terminals_only() -> None:
    """Keep bars of libraries out of files and pipes."""
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
        store.quiet()


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and how it is computed."""

    model: str = setting(
        None, "A folder, a name on the Hugging Face hub, or smollm2 or tiny (embedded models)."
    )
    model_revision: str | None = setting(
        None, "Branch, tag or commit of a model on the Hugging Face hub; by default main."
    )
    dtype: str = setting(
        "auto",
        "Precision of the weights: float32, bfloat16, float64, or auto, as they are stored. The "
        "score head is float32 at least.",
        PRECISIONS,
    )
    attention: str | None = setting(
        None,
        "Attention implementation: shared_prefix, sdpa, eager or flex_attention. By default the "
        "first that the model can take: shared_prefix, which computes nothing that rows hide; on a "
        "GPU, where rows need a mask, flex_attention; sdpa; eager.",
    )
    pad_token: str | None = setting(
        None, "Padding token, for a tokenizer that has none or one that ends responses."
    )
    chat_template: str | None = setting(
        None, "A file with a Jinja chat template, for a tokenizer that has none."
    )

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("give a model: a folder, a name on the hub, or smollm2 or tiny")
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}; known: {', '.join(PRECISIONS)}")
        named = self.model_revision not in (None, "main")
        if named and (self.model in EMBEDDED or Path(self.model).is_dir()):
            raise UserError(
                f"model_revision {self.model_revision} is of models on the hub, and {self.model} "
                "is on this machine; leave it out, or name the folder of that revision"
            )

    def find(self) -> str | Path:
        """Where the model is: a folder, or a name on the hub whose main revision is meant."""
        if self.model_revision in (None, "main"):
            return embedded.find(self.model)
        return snapshot(self.model, self.model_revision)


@dataclass(frozen=True)
class RecordSettings:
    """How records are read."""

    skip_bad: bool = setting(False, "Leave out, and count, bad records.")
    columns: str | None = setting(
        None,
        "What files call the columns that are read here, where they have names of their own: "
        "prompt=question,chosen=good,rejected=bad, the file's name on the right.",
    )

    def __post_init__(self) -> None:
        parse_columns(self.columns)

    @property
    def reading(self) -> dict[str, Any]:
        """What functions that read sources are given."""
        return {"skip_bad": self.skip_bad, "columns": parse_columns(self.columns)}


@dataclass(frozen=True)
class ReadingSettings(RecordSettings):
    """How records are read, and what of them is compared."""

    min_difference: float = setting(
        0.0,
        "Least difference of two scores, or ranks, that makes a pair, where records have lists of "
        "responses with scores or ranks. By default any difference does.",
    )

    def __post_init__(self) -> None:
        RecordSettings.__post_init__(self)
        check_min_difference(self.min_difference)

    @property
    def reading(self) -> dict[str, Any]:
        """What functions that read sources are given."""
        return super().reading | {"min_difference": self.min_difference}


@dataclass(frozen=True)
class RowSettings:
    """How groups become rows, and how long they may be."""

    layout: str = setting("exact", LAYOUT_HELP, LAYOUT_NAMES)
    pack_length: int | None = setting(
        None,
        "Most tokens of a row; several groups then share rows. By default none do, but in training "
        "with attention in two pieces all of a micro-batch share one.",
    )
    max_tokens: int | None = setting(
        None,
        "Most tokens of a prompt with one response; prompts are cut on the left to fit. Default: "
        "the model's context.",
    )
    skip_too_long: bool = setting(
        False,
        "Leave out, and count, groups whose responses alone are too long. Otherwise the first one "
        "is an error.",
    )

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"unknown layout {self.layout!r}; known: {', '.join(LAYOUTS)}")
        at_least_one(self, "pack_length", "max_tokens")

    @property
    def rows(self) -> Layout:
        """The layout."""
        return LAYOUTS[self.layout]

    def limits(self, model: PreTrainedModel) -> Limits:
        """How long groups may be (see :func:`.limits_for`)."""
        return limits_for(
            model,
            self.rows,
            max_tokens=self.max_tokens,
            pack_length=self.pack_length,
            skip_too_long=self.skip_too_long,
        )


def folder_of(model: str) -> Path | None:
    """The folder of a model, by the setting's value; None for the hub's and the embedded ones."""
    return Path(model) if model not in EMBEDDED and Path(model).is_dir() else None


def files_of(model: str | None) -> list[str]:
    """The files in a model's folder, but for a calibration, which may be made anew."""
    folder = None if model is None else folder_of(model)
    if folder is None:
        return []
    return [str(path) for path in folder.iterdir() if path.is_file() and path.name != FILE]


def refuse_repeated(name: str, sources: Sequence[str]) -> None:
    """Refuse sources of which one is named twice, also by another path."""
    seen: dict[str, str] = {}
    for source in sources:
        place = os.path.realpath(source) if Path(source).exists() else source
        if place in seen:
            other = "" if seen[place] == source else f" (the other time as {seen[place]})"
            raise UserError(
                f"{name} names {source} twice{other}, so its records would count double; name it "
                "once"
            )
        seen[place] = source


def refuse_overwriting(output: str | Path, inputs: Sequence[str]) -> None:
    """Refuse an output that is a folder, or a file that is read, also by another path."""
    if Path(output).is_dir():
        raise UserError(f"output {output} is a folder; give the path of a file in it")
    for source in inputs:
        if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
            raise UserError(
                f"output {output} is {source}, which is read and would be overwritten; write to "
                "another file"
            )


def check_packages(config: TrainingArguments) -> None:
    """Refuse settings of which packages are not installed, before data and model are prepared."""
    try:
        for kind in get_reporting_integration_callbacks(config.report_to):
            kind()
    # A ValueError names all there are.
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(f"report_to: {error} Or set report_to to none") from None
    if config.use_liger_kernel and not is_liger_kernel_available():
        raise UserError(
            "use_liger_kernel needs the package liger-kernel, which is not installed; install it, "
            "or leave use_liger_kernel out"
        )
    try:
        Trainer.get_optimizer_cls_and_kwargs(config)
    except ImportError as error:
        raise UserError(f"optim: {error}. Or take another optim") from None
    except ValueError:
        pass  # some can be made with the model only, and say later what is wrong


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
    :func:`load_reader`, by default with today's date.
    """
    if tokenizer is None:
        tokenizer = load_reader(settings)
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


def load_reader(
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

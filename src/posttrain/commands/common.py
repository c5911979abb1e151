"""Settings that several commands share, and what they mean."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.utils import is_liger_kernel_available
from transformers.utils import logging as transformers_logging
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
from posttrain.models import embedded
from posttrain.models.loading import snapshot
from posttrain.rows.layout import LAYOUTS, Layout
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
    if Path(output).exists() and not Path(output).is_file():
        raise UserError(
            f"output {output} is a device or a pipe, which a file would replace; write to standard "
            "output (-), or to a file"
        )
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

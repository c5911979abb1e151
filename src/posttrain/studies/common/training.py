"""One training run of a study: a checkpoint, some groups, a layout, a learning rate and a seed."""

import gc
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Memory
from transformers import PreTrainedModel, PrinterCallback

from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.models import reward_model
from posttrain.models.architecture import freeze_below
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import Layout
from posttrain.storage import cache
from posttrain.training.collator import GroupCollator, LossType, TrainingGroup, training_set
from posttrain.training.config import PLAIN_ADAMW, RankingConfig
from posttrain.training.merging import Merging
from posttrain.training.trainer import RankingTrainer

#: Raise when what is kept of a run changes; what a run computes goes by the commit.
KEPT_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What runs of one study have in common.

    bfloat16 is about twice as fast on processors that have such instructions, and serves later
    scoring too.
    """

    batch_size: int = setting(32, "Groups per step.")
    epochs: int = setting(1, "Passes over the training groups.")
    top_layers: int = setting(0, "Last layers to train; 0 trains the whole model.")
    gpu: bool = setting(False, "Train on a GPU.")
    bf16: bool = setting(False, "Compute in bfloat16; weights, score head and loss in float32.")
    processes: int = setting(1, "Trainings at a time, each in a process of its own.")


@contextmanager
def many_runs() -> Iterator[None]:
    """Wrap many short runs: all that exists now is left out of garbage collections.

    Every training ends with one, which would look at all imported modules and prepared groups each
    time; on small runs that takes longer than the training.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def train(
    checkpoint: Path,
    groups: Sequence[TrainingGroup],
    layout: Layout,
    recipe: Recipe,
    *,
    loss_type: LossType = "pairs",
    learning_rate: float,
    seed: int,
    head_seed: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    auxiliary_weight: float = 0.0,
    merging: Merging | None = None,
    pairs_per_step: int | None = None,
) -> tuple[PreTrainedModel, int]:
    """Train a reward model: AdamW, five steps of warm-up to the learning rate, cosine to zero.

    ``seed`` decides the order of groups, that of responses, and unless ``head_seed`` does, the
    score head; ``epochs`` or ``steps`` of the optimiser take the place of the recipe's epochs, and
    ``pairs_per_step`` that of its groups. For ``loss_type`` and ``auxiliary_weight`` see
    :class:`.training.config.RankingConfig`, for ``merging`` :func:`.collator.training_set`.

    Returns:
        The trained model, and the id of its padding token.

    Raises:
        UserError: If the model has fewer layers than ``recipe.top_layers``, or a GPU is asked for
            where there is none.
    """
    if recipe.gpu and not torch.cuda.is_available():
        # Trainer would take the CPU instead, for days.
        raise UserError("gpu is set, but torch finds no GPU; leave it out to train on the CPU")
    started = time.monotonic()
    model, tokenizer = reward_model.load(checkpoint, seed=seed if head_seed is None else head_seed)
    compute_in_double(model)
    pad_token_id = tokenizer.pad_token_id
    assert isinstance(pad_token_id, int)
    freeze_below(model, recipe.top_layers)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = RankingConfig(
            scratch,
            groups_per_step=None if pairs_per_step else recipe.batch_size,
            pairs_per_step=pairs_per_step,
            # A CPU gains nothing from larger ones, and smaller ones of like length save padding;
            # on a GPU several trainings share its memory.
            max_tokens_per_device=4096 if recipe.gpu else 1024,
            loss_type=loss_type,
            auxiliary_weight=auxiliary_weight,
            num_train_epochs=epochs or recipe.epochs,
            max_steps=-1 if steps is None else steps,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            **PLAIN_ADAMW,
            seed=seed,
            use_cpu=not recipe.gpu,
            bf16=recipe.bf16,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = RankingTrainer(
            model,
            arguments,
            train_dataset=training_set(groups, merging),
            data_collator=GroupCollator(pad_token_id, layout),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    logger.info(
        "trained on %d groups in rows %s, learning rate %g, seed %d: %.0f s",
        len(groups), layout, learning_rate, seed, time.monotonic() - started,
    )  # fmt: skip
    return model.eval(), pad_token_id


def memoize(
    function: Callable[..., Any],
    folder: Path | None,
    *,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    ignore: Sequence[str],
) -> Callable[..., Any]:
    """A function whose results are kept in a folder, if any, so that an interrupted study goes on.

    See :func:`folder_of_finished`. ``ignore`` names arguments that settings and data determine.

    Raises:
        UserError: If the code is not committed.
    """
    if folder is None:
        return function
    kept = folder_of_finished(folder, settings=settings, data=data)
    return Memory(kept, verbose=0).cache(function, ignore=list(ignore))


@contextmanager
def working_folder(
    folder: Path | None, *, settings: Mapping[str, Any], data: Mapping[str, Any]
) -> Iterator[Path]:
    """Where a study keeps the steps of its runs: for good in a folder, or while it runs.

    See :func:`folder_of_finished`.

    Raises:
        UserError: If the code is not committed.
    """
    if folder is not None:
        yield folder_of_finished(folder, settings=settings, data=data)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def folder_of_finished(
    folder: Path, *, settings: Mapping[str, Any], data: Mapping[str, Any]
) -> Path:
    """The part of a folder for what runs of one study have finished.

    It is another one for each code, machine, settings and ``data``, the account of the study's
    data, but not for how many are trained at a time.

    Raises:
        UserError: If the code is not committed.
    """
    where = records.machine()
    if (where["commit"] or "").endswith("+"):
        raise UserError(
            f"{folder} cannot keep finished runs of code that is not committed, because runs of "
            "different code must not be mixed; commit, or leave out cache_dir"
        )
    deciding = {name: value for name, value in settings.items() if name != "processes"}
    account = {"settings": deciding, "data": data, "machine": where}
    return folder / cache.key(account, version=KEPT_VERSION)

"""Stopping a run once evaluations no longer improve, and keeping the best model of it."""

import logging
import re
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from posttrain.errors import UserError

#: What transformers has where nothing is set.
SAVE_STEPS = 500

logger = logging.getLogger(__name__)


def imply(config: Any) -> None:
    """Set what early stopping needs in a :class:`.training.config.RankingConfig`, in place.

    The best model, by default that of the lowest ``eval_loss``, is what remains at the end, so a
    checkpoint is written with each evaluation; and a run that goes on counts on.

    Raises:
        UserError: If other settings contradict it.
    """
    patience = config.early_stopping_patience
    if config.eval_strategy == "no" and config.eval_steps is None:
        raise UserError(
            f"early_stopping_patience={patience} counts evaluations without improvement, and there "
            "are none; set eval_steps, or eval_strategy to epoch"
        )
    if config.eval_strategy == "no":
        config.eval_strategy = "steps"
    by_steps = config.eval_strategy == "steps"
    every = (config.eval_steps or config.logging_steps) if by_steps else config.save_steps
    saved = config.save_strategy != "best" and (config.save_strategy, config.save_steps)
    if saved and saved not in (("steps", SAVE_STEPS), (config.eval_strategy, every)):
        raise UserError(
            "with early_stopping_patience a checkpoint is written with each evaluation, so that "
            f"the best one is there, and save_strategy={config.save_strategy}, "
            f"save_steps={config.save_steps:g} say otherwise; leave them out, or set save_strategy "
            "to best"
        )
    if saved:
        config.save_strategy, config.save_steps = config.eval_strategy, every
    metric = (config.metric_for_best_model or "loss").removeprefix("eval_")
    if metric != "loss" and not re.fullmatch(r"accuracy(_[1-4])?", metric):
        raise UserError(
            f"metric_for_best_model={metric!r} does not say which model is better; set it to loss, "
            "accuracy or, where records have strengths, accuracy_1 to accuracy_4"
        )
    if config.greater_is_better not in (None, metric != "loss"):
        raise UserError(
            f"greater_is_better={config.greater_is_better} contradicts metric_for_best_model="
            f"{metric!r}; leave it out"
        )
    config.metric_for_best_model = metric
    config.load_best_model_at_end = config.restore_callback_states_from_checkpoint = True


class EarlyStopping(EarlyStoppingCallback):
    """As transformers has it; a run that goes on after it was stopped stays so, and it says so."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the best checkpoint of a run that goes on; if that had stopped, it has ended.

        Raises:
            UserError: If that checkpoint is gone.
        """
        super().on_train_begin(args, state, control, **kwargs)
        if state.best_global_step:
            # The run may have been moved since its path was noted.
            best = Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}"
            if not best.is_dir():
                raise UserError(
                    f"{best}, the best one so far, is gone; restore it, or start another run in "
                    "another output_dir"
                )
            state.best_model_checkpoint = str(best)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say which model remains."""
        if state.is_world_process_zero and state.best_global_step:
            logger.info(
                "of %d steps, of %d planned, the model after step %d remains, whose eval_%s of "
                "%.4f is the best", state.global_step, state.max_steps, state.best_global_step,
                args.metric_for_best_model, state.best_metric,
            )  # fmt: skip


def callbacks(config: Any) -> list[EarlyStopping]:
    """What a trainer needs for the settings."""
    if config.early_stopping_patience is None:
        return []
    return [EarlyStopping(config.early_stopping_patience, config.early_stopping_threshold)]

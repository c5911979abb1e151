"""What a training run shows while it goes: a bar with the time left, and one short line a log."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.utils import logging as transformers_logging

from posttrain.commands.terminal import console

Item = TypeVar("Item")

#: What trainers call the share of comparisons, or of tokens, that a model gets right.
ACCURACIES = ("accuracy", "rewards/accuracies", "mean_token_accuracy")


def in_line(logs: Mapping[str, Any], step: int, steps: int) -> str | None:
    """The line of a log; None for one that has no loss.

    >>> in_line({"loss": 0.69314, "accuracy": 0.53125, "pairs_per_second": 8.04}, 10, 120)
    'step  10/120  loss 0.6931  accuracy 53.1 %  8.0 pairs/s'
    >>> in_line({"eval_loss": 0.5, "eval_accuracy": 0.75, "eval_runtime": 3.2}, 20, 120)
    'step  20/120  held out: loss 0.5000  accuracy 75.0 %'
    """
    held_out = "eval_loss" in logs
    prefix = "eval_" if held_out else ""
    if f"{prefix}loss" not in logs:
        return None
    accuracies = [logs[prefix + name] for name in ACCURACIES if prefix + name in logs]
    parts = [f"{'held out: ' if held_out else ''}loss {float(logs[f'{prefix}loss']):.4f}"]
    parts += [f"accuracy {100 * float(value):.1f} %" for value in accuracies[:1]]
    if "pairs_per_second" in logs:
        parts.append(f"{logs['pairs_per_second']:.1f} pairs/s")
    return "  ".join([f"step {step:>{len(str(steps))}}/{steps}", *parts])


class RunProgress(TrainerCallback):
    """Shows a run's progress, in place of what transformers shows.

    Lines are written to standard output. If standard error is a terminal there is a bar, too,
    unless ``disable_tqdm`` is set. It is a context, so that an interrupted run leaves the terminal
    as it was. Only the first process shows anything.
    """

    def __init__(self, trainer: Trainer) -> None:
        # The first is another one in a notebook.
        for shown in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):
            trainer.remove_callback(shown)
        trainer.add_callback(self)
        # One bar is enough; checkpoints are written in the middle of it.
        transformers_logging.disable_progress_bar()
        self._console = console(sys.stderr)
        first = trainer.is_world_process_zero()
        self._shows_bar = first and self._console.is_terminal and not trainer.args.disable_tqdm
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "RunProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def track(self, items: Iterable[Item], count: int, what: str) -> Iterator[Item]:
        """The items, with a bar of their own while they are drawn."""
        self._start(what, count, 0)
        try:
            for item in items:
                yield item
                self._advance()
        finally:
            self._stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, of a resumed run where it was."""
        self._start("training", state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar, and have the last step logged, too."""
        self._advance()
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show one line."""
        line = in_line(logs or {}, state.global_step, state.max_steps)
        if line is not None and state.is_world_process_zero:
            with suppress(BrokenPipeError):  # who reads it has seen enough; the run goes on
                print(line, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self._stop()

    def _start(self, what: str, total: int, done: int) -> None:
        self._stop()
        if not self._shows_bar:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            # Lines are written above the bar, unless they go elsewhere.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._bar.start()

    def _advance(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

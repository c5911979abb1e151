"""What trainers have in common that write checkpoints which an interrupted run can trust."""

from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from posttrain.training.checkpoints import BackgroundManifests, discard
from posttrain.training.divergence import check_weights


class WholeCheckpoints:
    """Put before a ``transformers.Trainer`` among the bases of a class.

    Each checkpoint gets a manifest, only then are older ones removed, and what is not finite is not
    saved.
    """

    # Those of the trainer.
    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any

    @cached_property
    def _manifests(self) -> BackgroundManifests:
        return BackgroundManifests()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer does; afterwards all checkpoints are whole.

        Raises:
            UserError: If weights are not finite.
        """
        try:
            result = super().train(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._manifests.wait()
        self._check_weights()
        return result

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer does, unless the run has ended: resumed, it would go a step beyond."""
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            return None
        return super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _check_weights(self) -> None:
        when = f"after step {self.state.global_step}"
        check_weights(self.model, self.accelerator, when, self.args.learning_rate)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the trainer does, with a manifest, and only then are older ones removed."""
        self._check_weights()
        self._manifests.wait()
        # Other processes, too, write nothing while folders without a manifest may be removed.
        self.accelerator.wait_for_everyone()
        runs = Path(self._get_output_dir(trial=trial))  # type: ignore[attr-defined]
        folder = runs / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            # All processes have written theirs.
            self.accelerator.wait_for_everyone()
        # safetensors and torch have errors of their own for a disk that is full.
        except (OSError, RuntimeError, SafetensorError) as error:
            raise discard(folder, error) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            self._manifests.start(folder, limit, keep={folder} | ({Path(best)} if best else set()))
            if limit == 1:
                # Then Trainer removes all but the best at its end, perhaps this one.
                self._manifests.wait()

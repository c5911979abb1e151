"""Supervised finetuning as Llama 3 does it (section 4.1.3), on TRL's trainer.

The loss is that of the response's tokens only, its end included.
"""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from posttrain.config.fields import setting
from posttrain.models.float64 import compute_in_double
from posttrain.policy.trl_models import log_probs_in_double


@dataclass
class FinetuningConfig(SFTConfig):
    """Settings of TRL's ``SFTTrainer``, with Llama 3's learning rate and masked prompts."""

    learning_rate: float = setting(1e-5, "Peak learning rate (Llama 3: 1e-5).")
    completion_only_loss: bool | None = setting(True, "Train on responses, not on prompts.")


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Dataset,
    config: FinetuningConfig,
    *,
    checkpoint: str | None = None,
) -> SFTTrainer:
    """Train a language model in place on demonstrations, and return its trainer.

    ``demonstrations`` are those of :func:`.datasets.demonstration_set`; with a ``checkpoint`` of
    the same run, training goes on from it.
    """
    trainer = SFTTrainer(
        compute_in_double(model), config, train_dataset=demonstrations, processing_class=tokenizer
    )
    return trained(trainer, checkpoint)


def trained(trainer: Any, checkpoint: str | None = None) -> Any:
    """A trainer that has trained, quietly where progress bars are off."""
    log_probs_in_double(trainer.model)
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.model.eval()
    return trainer

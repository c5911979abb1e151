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
from posttrain.policy.trainers import PolicyTrainer, no_word_of_renames, settle_precision
from posttrain.policy.trl_models import log_probs_in_double


@dataclass
class FinetuningConfig(SFTConfig):
    """Settings of TRL's ``SFTTrainer``, with Llama 3's learning rate and masked prompts."""

    learning_rate: float = setting(1e-5, "Peak learning rate (Llama 3: 1e-5).")
    completion_only_loss: bool | None = setting(True, "Train on responses, not on prompts.")
    bf16: bool | None = setting(  # type: ignore[assignment]
        None, "Compute in bfloat16; by default on a GPU that has it."
    )
    gradient_checkpointing: bool | None = setting(  # type: ignore[assignment]
        None, "Compute layers again rather than keep what they computed; by default on a GPU."
    )

    def __post_init__(self) -> None:
        settle_precision(self)
        super().__post_init__()


class FinetuningTrainer(PolicyTrainer, SFTTrainer):
    """TRL's trainer with whole checkpoints."""


def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Dataset,
    config: FinetuningConfig,
    *,
    checkpoint: str | None = None,
) -> FinetuningTrainer:
    """Train a language model in place on demonstrations, and return its trainer.

    ``demonstrations`` are those of :func:`.datasets.demonstration_set`; with a ``checkpoint`` of
    the same run, training goes on from it.
    """
    return trained(finetuning_trainer(model, tokenizer, demonstrations, config), checkpoint)


@no_word_of_renames()
def finetuning_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Dataset,
    config: FinetuningConfig,
    **others: Any,
) -> FinetuningTrainer:
    """The trainer of :func:`finetune`, for :func:`trained`; ``others`` are its own arguments."""
    return FinetuningTrainer(
        compute_in_double(model),
        config,
        train_dataset=demonstrations,
        processing_class=tokenizer,
        **others,
    )


@no_word_of_renames()
def trained(trainer: Any, checkpoint: str | None = None) -> Any:
    """A trainer that has trained, quietly where progress bars are off."""
    log_probs_in_double(trainer.model)
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.model.eval()
    return trainer

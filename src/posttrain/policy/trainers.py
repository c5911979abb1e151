"""What the trainers of policies share: whole checkpoints, quiet, and defaults that fit the machine.

TRL computes layers again and in bfloat16 wherever nothing else is said, which on a CPU is slow, and
in bfloat16 inexact; its trainers write cards of their own beside the run and report their use.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainingArguments

from posttrain.training.whole_checkpoints import WholeCheckpoints

#: What old versions of transformers call it to compute layers again, and what new ones do.
_NAMES = ("gradient_checkpointing", "activation_checkpointing")
#: What this one calls it.
RECOMPUTE = next(name for name in reversed(_NAMES) if hasattr(TrainingArguments, name))


class PolicyTrainer(WholeCheckpoints):
    """Put before a trainer of TRL among the bases of a class."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: a run gets its card once it is finished."""

    def _send_telemetry(self) -> None:
        """Nothing is reported to anyone."""


@contextmanager
def no_word_of_renames() -> Iterator[None]:
    """Within, no warning of TRL's own calls of what transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def settle_precision(config: Any) -> None:
    """Set ``bf16`` and ``gradient_checkpointing`` of some settings where they are None.

    Both are for a GPU; the former for one that has it, unless ``fp16`` is set.
    """
    gpu = torch.cuda.is_available() and not config.use_cpu
    if config.bf16 is None:
        config.bf16 = gpu and torch.cuda.is_bf16_supported() and not config.fp16
    if all(getattr(config, name, None) is None for name in _NAMES):
        setattr(config, RECOMPUTE, gpu)

"""The settings of a training run: transformers' own, with the papers' recipe as defaults."""

import math
from dataclasses import dataclass, field
from typing import Any, get_args

from transformers import TrainingArguments

from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.training.collator import LossType

#: AdamW as transformers sets it, for runs that are to differ from others in nothing else.
PLAIN_ADAMW: dict[str, Any] = {"weight_decay": 0.0, "adam_beta2": 0.999, "adam_epsilon": 1e-8}

#: Settings of transformers that would change nothing here: the value that says so, and the remedy.
WITHOUT_EFFECT: dict[str, tuple[Any, str]] = {
    "resume_from_checkpoint": (
        None,
        "go on from the last whole checkpoint with --resume, or in Python with "
        "trainer.train(resume_from_checkpoint=...)",
    ),
    "label_smoothing_factor": (0, "the ranking loss has no labels to smooth; see margins"),
    "dataloader_drop_last": (
        False,
        "the last step of an epoch takes what is left, and its loss is the mean over that; where "
        "groups_per_step divides the number of groups, all steps are equal",
    ),
    "auto_find_batch_size": (False, "max_tokens_per_device limits memory; lower it"),
}


@dataclass
class RankingConfig(TrainingArguments):
    """Settings of :class:`.trainer.RankingTrainer`.

    All of ``transformers.TrainingArguments``, some of which have no say here: a step takes
    ``groups_per_step`` groups on all devices together, computed in micro-batches of
    ``max_tokens_per_device`` tokens, so neither batch sizes nor accumulation are to be set, nor
    :data:`WITHOUT_EFFECT`. Where Llama 2 gives a number (section 3.2.2), it is the default; Llama 3
    gives none.

    Raises:
        UserError: If settings contradict each other or are out of range.
    """

    groups_per_step: int = setting(
        512,
        "Ranked groups of one optimiser step, over all devices. Llama 2 takes 512 pairs.",
    )
    max_tokens_per_device: int | None = setting(
        16384,
        "Most tokens that a device computes at once, padding included (in rows that groups share: "
        "padding aside); a step takes as many parts as it needs. It limits memory and changes "
        "nothing else.",
    )
    loss_type: str = setting(
        "pairs",
        "What is maximised: the likelihood of each pair (pairs) or of whole rankings "
        "(plackett-luce).",
    )
    center_rewards_coefficient: float = setting(
        0.0, "Factor of the squared sum of a pair's scores, which keeps scores around 0."
    )
    auxiliary_weight: float = setting(
        0.0,
        "Factor of the auxiliary loss: the cross-entropy of sigmoid(score) with whether a response "
        "is acceptable (safe), as Llama 2 trains its safety model beside ranking. It needs "
        "labelled responses, which only data sets made in Python have. 0: none.",
    )
    min_learning_rate_share: float = setting(
        0.1, "The learning rate falls along a cosine to this share of its peak (Llama 2: 10 %%)."
    )
    min_warmup_steps: int = setting(
        5, "Least steps of warm-up, where warmup_steps is a share (Llama 2: 5)."
    )
    logging_steps: float = setting(10, "Steps between logs, or, below 1, their share of all steps.")
    # Defaults of transformers that the recipe replaces.
    learning_rate: float = setting(
        1e-5, "Peak learning rate. Llama 2: 1e-5, and 5e-6 for its model of 70 billion parameters."
    )
    num_train_epochs: float = setting(1.0, "Passes over the training groups (Llama 2: one).")
    lr_scheduler_type: str = setting(
        "cosine_with_min_lr", "Schedule of the learning rate, by transformers' names."
    )
    warmup_steps: float = setting(
        0.03, "Steps of linear warm-up, or, below 1, their share of all steps (Llama 2: 3 %%)."
    )
    weight_decay: float = setting(0.1, "AdamW's weight decay (Llama 2: 0.1).")
    adam_beta2: float = setting(0.95, "AdamW's second moment decay (Llama 2: 0.95).")
    adam_epsilon: float = setting(1e-5, "AdamW's epsilon (Llama 2: 1e-5).")
    per_device_train_batch_size: int | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "Not to be set; see groups_per_step and max_tokens_per_device."},
    )

    def __post_init__(self) -> None:
        if self.loss_type not in get_args(LossType):
            known = ", ".join(get_args(LossType))
            raise UserError(f"unknown loss_type {self.loss_type!r}; known: {known}")
        if self.loss_type == "plackett-luce" and self.center_rewards_coefficient:
            raise UserError(
                "center_rewards_coefficient is defined on pairs; use loss_type 'pairs', or set "
                "it to 0"
            )
        at_least_one(self, "groups_per_step", "max_tokens_per_device")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise UserError(
                f"num_train_epochs must be above 0, not {self.num_train_epochs}: nothing would be "
                "trained; or set max_steps"
            )
        if not 0 <= self.min_learning_rate_share <= 1:
            raise UserError(
                f"min_learning_rate_share must lie in [0, 1], not {self.min_learning_rate_share}"
            )
        if not math.isfinite(self.auxiliary_weight):
            raise UserError(f"auxiliary_weight must be finite, not {self.auxiliary_weight}")
        for name in ("center_rewards_coefficient", "auxiliary_weight", "min_warmup_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.per_device_train_batch_size is not None or self.gradient_accumulation_steps != 1:
            raise UserError(
                "per_device_train_batch_size and gradient_accumulation_steps have no say here: set "
                "groups_per_step (groups of an optimiser step, on all devices together) and "
                "max_tokens_per_device (tokens that a device computes at once)"
            )
        for name, (nothing, remedy) in WITHOUT_EFFECT.items():
            if getattr(self, name) != nothing:
                raise UserError(
                    f"{name}={getattr(self, name)!r} has no effect here, so leave it out: {remedy}"
                )
        if self.train_sampling_strategy not in ("random", "sequential"):
            raise UserError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} is not random or "
                "sequential; within a step, groups of like length are computed together anyway"
            )
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_learning_rate_share}
        # transformers reads it for its account of a run, and nothing else.
        self.per_device_train_batch_size = self.groups_per_step
        super().__post_init__()
        self.per_device_train_batch_size = math.ceil(self.groups_per_step / self.world_size)
        # The model's forward takes none of the columns of a training set; the collator does.
        self.remove_unused_columns = False

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of warm-up: at least ``min_warmup_steps`` where they are given as a share."""
        steps = super().get_warmup_steps(num_training_steps)
        return max(steps, self.min_warmup_steps) if 0 < self.warmup_steps < 1 else steps

    def to_dict(self) -> dict[str, Any]:
        """The settings, from which an equal object can be made."""
        return super().to_dict() | {"per_device_train_batch_size": None}

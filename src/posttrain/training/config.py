"""The settings of a training run: transformers' own, with the papers' recipe as defaults."""

import math
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, get_args

from transformers import TrainingArguments

from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.training import early_stopping
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
        "the last step of an epoch takes what is left, and its loss is the mean over that",
    ),
    "auto_find_batch_size": (False, "max_tokens_per_device limits memory; lower it"),
    "average_tokens_across_devices": (True, "the loss is the mean over a step's pairs anyway"),
    "include_num_input_tokens_seen": ("no", "tokens_per_second is logged anyway"),
    "label_names": (None, "what the loss compares is in the data set's own columns"),
    "length_column_name": ("length", "groups of like length are computed together anyway"),
    "prediction_loss_only": (False, "evaluation reports the loss and the metrics of scores"),
}

#: Settings of transformers that would break here: the value that is allowed, and why.
NOT_SUPPORTED: dict[str, tuple[Any, str]] = {
    "deepspeed": (
        None,
        "it would update weights after every micro-batch; spread them with FSDP (accelerate launch "
        "--config_file runs/accelerate/fsdp2.yaml)",
    ),
    "parallelism_config": (
        None,
        "every process computes other groups; leave it out, and spread weights with FSDP",
    ),
    "neftune_noise_alpha": (
        None,
        "its noise depends on the length of a padded row, so it would change with "
        "max_tokens_per_device; leave it out",
    ),
    "batch_eval_metrics": (False, "metrics are means over all pairs; leave it out"),
    "eval_do_concat_batches": (True, "metrics are means over all pairs; leave it out"),
    "include_for_metrics": ([], "metrics are computed from scores alone; leave it out"),
}

#: Optimisers that do not go with steps of several micro-batches, by the beginning or end of their
#: names, and why.
OPTIMIZERS_NOT_SUPPORTED: dict[str, str] = {
    "schedule_free": "it trains other weights than it evaluates, and checkpoints would mix them up",
    "lomo": "it updates weights in each backward pass, and a step has several",
    "adalomo": "it updates weights in each backward pass, and a step has several",
    "layerwise": "it updates weights in each backward pass, and a step has several",
}


@dataclass
class RankingConfig(TrainingArguments):
    """Settings of :class:`.trainer.RankingTrainer`.

    All of ``transformers.TrainingArguments``, some of which have no say here: a step takes
    ``pairs_per_step`` pairs on all devices together, computed in micro-batches of
    ``max_tokens_per_device`` tokens, so neither batch sizes nor accumulation are to be set, nor
    :data:`WITHOUT_EFFECT` and :data:`NOT_SUPPORTED`. Where Llama 2 gives a number (section 3.2.2),
    it is the default; Llama 3 gives none.

    >>> config = RankingConfig("runs/mine", groups_per_step=64, report_to="none", use_cpu=True)
    >>> config.learning_rate, config.groups_per_step
    (1e-05, 64)
    """

    pairs_per_step: int | None = setting(
        None,
        "Pairs of one optimiser step, over all devices, on average. By default 512, as Llama 2 "
        "has it.",
    )
    groups_per_step: int | None = setting(
        None,
        "In place of pairs_per_step: ranked groups of a step, before those of one prompt are "
        "merged.",
    )
    max_tokens_per_device: int | None = setting(
        None,
        "Most tokens that a device computes at once, padding included (in rows that groups share: "
        "padding aside), in training and evaluation; a step takes as many micro-batches as it "
        "needs. It limits memory and changes nothing else. By default as many as there is room "
        "for, up to 16384 on a GPU and 4096 on a CPU.",
    )
    loss_type: str = setting(
        "pairs",
        "What is maximised: the likelihood of each pair (pairs) or of whole rankings "
        "(plackett-luce).",
        get_args(LossType),
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
        0.1, "The learning rate falls along a cosine to this share of its peak (Llama 2: 10 %)."
    )
    min_warmup_steps: int = setting(
        5, "Least steps of warm-up, where warmup_steps is a share (Llama 2: 5)."
    )
    early_stopping_patience: int | None = setting(
        None,
        "Stop after so many evaluations in a row without a better metric_for_best_model (by "
        "default loss), and keep the best model. It needs eval_steps or eval_strategy, and writes "
        "a checkpoint with each evaluation.",
    )
    early_stopping_threshold: float = setting(
        0.0, "What the metric must improve by for early stopping to count it."
    )
    logging_steps: float = setting(10, "Steps between logs, or, below 1, their share of all steps.")
    # In this order the parser reads a text, as for transformers' own.
    report_to: None | str | list[str] = setting(  # noqa: RUF036
        None,
        "Where logs go, beside the terminal: tensorboard, trackio, wandb or others that "
        "transformers knows, or none. By default to TensorBoard, where it is installed.",
    )
    # Defaults of transformers that the recipe replaces.
    learning_rate: float = setting(
        1e-5, "Peak learning rate. Llama 2: 1e-5, and 5e-6 for its model of 70 billion parameters."
    )
    num_train_epochs: float = setting(1.0, "Passes over the training groups (Llama 2: one).")
    lr_scheduler_type: str = setting(
        "cosine_with_min_lr", "Schedule of the learning rate, by transformers' names."
    )
    warmup_steps: float = setting(
        0.03, "Steps of linear warm-up, or, below 1, their share of all steps (Llama 2: 3 %)."
    )
    weight_decay: float = setting(0.1, "AdamW's weight decay (Llama 2: 0.1).")
    adam_beta2: float = setting(0.95, "AdamW's second moment decay (Llama 2: 0.95).")
    adam_epsilon: float = setting(1e-5, "AdamW's epsilon (Llama 2: 1e-5).")
    per_device_train_batch_size: int | None = setting(  # type: ignore[assignment]
        None, "Not to be set; see pairs_per_step and max_tokens_per_device."
    )
    per_device_eval_batch_size: int | None = setting(  # type: ignore[assignment]
        None, "Not to be set; see max_tokens_per_device."
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
        at_least_one(self, "pairs_per_step", "groups_per_step", "max_tokens_per_device")
        at_least_one(self, "early_stopping_patience")
        if self.pairs_per_step is None and self.groups_per_step is None:
            self.pairs_per_step = 512
        elif self.pairs_per_step is not None and self.groups_per_step is not None:
            raise UserError(
                f"pairs_per_step={self.pairs_per_step} and groups_per_step={self.groups_per_step} "
                "both say how large a step is; leave one of them out"
            )
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise UserError(
                f"num_train_epochs must be above 0, not {self.num_train_epochs}: nothing would be "
                "trained; or set max_steps"
            )
        if not 0 <= self.min_learning_rate_share <= 1:
            raise UserError(
                f"min_learning_rate_share must lie in [0, 1], not {self.min_learning_rate_share}"
            )
        for one in fields(self):
            value = getattr(self, one.name, None)
            # No limit on gradients is a limit of infinity.
            if (
                isinstance(value, float)
                and not math.isfinite(value)
                and one.name != "max_grad_norm"
            ):
                raise UserError(f"{one.name} must be finite, not {value}")
        if not (0 <= self.adam_beta1 < 1 and 0 <= self.adam_beta2 < 1):
            raise UserError(
                f"adam_beta1 and adam_beta2 must be at least 0 and below 1, not {self.adam_beta1} "
                f"and {self.adam_beta2}"
            )
        for name in (
            "learning_rate",
            "center_rewards_coefficient",
            "auxiliary_weight",
            "min_warmup_steps",
            "early_stopping_threshold",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, not {getattr(self, name)}")
        sizes = (self.per_device_train_batch_size, self.per_device_eval_batch_size)
        if sizes != (None, None) or self.gradient_accumulation_steps != 1:
            raise UserError(
                "per_device_train_batch_size, per_device_eval_batch_size and "
                "gradient_accumulation_steps have no say here: set pairs_per_step (pairs of an "
                "optimiser step, on all devices together) and max_tokens_per_device (tokens that a "
                "device computes at once, also in evaluation)"
            )
        self._refuse_what_transformers_alone_supports()
        if self.early_stopping_patience is not None:
            early_stopping.imply(self)
        if self.eval_strategy == "no" and self.eval_steps is not None:
            self.eval_strategy = "steps"
        if self.train_sampling_strategy not in ("random", "sequential"):
            raise UserError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} is not random or "
                "sequential; within a step, groups of like length are computed together anyway"
            )
        if self.report_to is None:
            self.report_to = "tensorboard" if find_spec("tensorboard") else "none"
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_learning_rate_share}
        # transformers reads it for its account of a run, and nothing else.
        self.per_device_train_batch_size = self.per_device_eval_batch_size = self.step_size
        super().__post_init__()
        own = math.ceil(self.step_size / self.world_size)
        self.per_device_train_batch_size = self.per_device_eval_batch_size = own
        # The model's forward takes none of the columns of a training set; the collator does.
        self.remove_unused_columns = False

    def _refuse_what_transformers_alone_supports(self) -> None:
        # The command line has a truth value for it.
        self.include_num_input_tokens_seen = self.include_num_input_tokens_seen or "no"
        for name, (nothing, remedy) in WITHOUT_EFFECT.items():
            if getattr(self, name) != nothing:
                raise UserError(
                    f"{name}={getattr(self, name)!r} has no effect here, so leave it out: {remedy}"
                )
        for name, (nothing, reason) in NOT_SUPPORTED.items():
            if getattr(self, name) != nothing:
                raise UserError(f"{name}={getattr(self, name)!r} is not supported here: {reason}")
        # By transformers' enumeration or as a word.
        optimizer = getattr(self.optim, "value", self.optim)
        for name, reason in OPTIMIZERS_NOT_SUPPORTED.items():
            if optimizer.startswith(name) or optimizer.endswith(name):
                raise UserError(
                    f"optim={optimizer!r} is not supported here: {reason}; take another"
                )

    @property
    def step_size(self) -> int:
        """Pairs of a step, or groups before merging where these are given."""
        size = self.groups_per_step or self.pairs_per_step
        assert size is not None
        return size

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of warm-up: at least ``min_warmup_steps`` where they are given as a share."""
        steps = super().get_warmup_steps(num_training_steps)
        return max(steps, self.min_warmup_steps) if 0 < self.warmup_steps < 1 else steps

    def to_dict(self) -> dict[str, Any]:
        """The settings, from which an equal object can be made."""
        computed = ("per_device_train_batch_size", "per_device_eval_batch_size")
        return super().to_dict() | dict.fromkeys(computed)

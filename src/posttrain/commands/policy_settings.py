"""Settings that ``posttrain sft`` and ``posttrain dpo`` have beside those of TRL's trainers."""

import os
from dataclasses import dataclass
from typing import Any

from posttrain.commands.common import (
    PRECISIONS,
    ReadingSettings,
    RecordSettings,
    refuse_repeated,
)
from posttrain.commands.language_models import LanguageModelSettings
from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.training.pairing import Pairing

#: Settings of TRL and transformers that would change nothing here, or break: the value that is
#: allowed, and the remedy.
NOT_SUPPORTED: dict[str, tuple[Any, str]] = {
    "resume_from_checkpoint": (None, "go on from the last whole checkpoint with --resume"),
    "model_init_kwargs": (None, "see --dtype and --attention"),
    "trust_remote_code": (False, "code of a checkpoint is never run"),
    "chat_template_path": (None, "see --chat_template"),
    "dataset_kwargs": (None, "data are prepared here"),
    "dataset_text_field": ("text", "see --data for what records may hold"),
    "eval_strategy": ("no", "nothing is evaluated here; score samples (posttrain sample)"),
    "deepspeed": (None, "weights are not spread over processes here; use DDP, or --lora_rank"),
    "fsdp": (None, "weights are not spread over processes here; use DDP, or --lora_rank"),
    "parallelism_config": (None, "weights are not spread over processes here"),
}
#: Variables by which accelerate says that weights are spread over processes.
_SPREAD = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


@dataclass(frozen=True)
class PolicySettings(LanguageModelSettings, RecordSettings):
    """Which language model is trained, on what, and how much of it."""

    dtype: str = setting(
        "auto",
        "Precision of the weights: float32, bfloat16, float64, or auto: as they are stored with "
        "LoRA, otherwise at least float32, because in bfloat16 small updates round to nothing.",
        PRECISIONS,
    )
    data: list[str] = setting(
        [],
        "What to train on: files (.jsonl, .jsonl.gz, .csv, .parquet), data sets of the hub "
        "(owner/name), human data by name, or simulator:COUNT.",
    )
    skip_too_long: bool = setting(
        False,
        "Leave out, and count, records that exceed max_length or the model's context. Otherwise "
        "the first one is an error; none is cut.",
    )
    lora_rank: int = setting(0, "Rank of LoRA adapters on all linear layers; 0: none.")
    lora_alpha: int = setting(32, "LoRA's alpha.")
    lora_dropout: float = setting(0.0, "LoRA's dropout.")
    resume: bool = setting(
        False, "Go on with the run in output_dir from its last whole checkpoint."
    )
    overwrite_output_dir: bool = setting(
        False, "Replace the run in output_dir: its checkpoints and its model are removed first."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        RecordSettings.__post_init__(self)
        if not self.data:
            raise UserError("give data to train on: files or other sources")
        refuse_repeated("data", self.data)
        if self.lora_rank < 0:
            raise UserError(f"lora_rank must be at least 0, not {self.lora_rank}")

    def adapters(self) -> Any:
        """LoRA's settings, as peft has them; None without."""
        if not self.lora_rank:
            return None
        from peft import LoraConfig

        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules="all-linear",
        )


@dataclass(frozen=True)
class SftSettings(PolicySettings):
    """Settings of ``posttrain sft`` beside those of :class:`.policy.sft.FinetuningConfig`."""


@dataclass(frozen=True)
class DpoSettings(PolicySettings, ReadingSettings):
    """Settings of ``posttrain dpo`` beside those of :class:`.policy.dpo.PreferenceConfig`."""

    min_strength: int = setting(
        1,
        "Least strength of chosen over rejected to train on. Llama 3 takes 3, which needs data "
        "with strengths.",
    )
    reference: str | None = setting(
        None,
        "The reference, a folder or a name on the hub; by default the model as it is before "
        "training.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadingSettings.__post_init__(self)
        self.pairing()

    def pairing(self) -> Pairing:
        """Which comparisons are strong enough."""
        return Pairing(min_strength=self.min_strength)


def check_supported(settings: PolicySettings, config: Any) -> None:
    """Refuse settings of TRL and transformers that have no effect here, or would break.

    Raises:
        UserError: If there is one.
    """
    for name, (nothing, remedy) in NOT_SUPPORTED.items():
        value = getattr(config, name, nothing)
        value = getattr(value, "value", value)  # of an enumeration
        if value != nothing and (value or nothing):
            raise UserError(f"{name}={value!r} is not supported here: {remedy}; leave it out")
    for name in _SPREAD:
        if os.environ.get(name, "").lower() in ("1", "true"):
            raise UserError(f"{name} is set: {NOT_SUPPORTED['fsdp'][1]}")
    if settings.resume and getattr(config, "sync_ref_model", False):
        raise UserError(
            "sync_ref_model changes the reference, which checkpoints do not hold, so a run cannot "
            "go on from them; start it anew in another output_dir"
        )

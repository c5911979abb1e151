"""The settings of ``posttrain train`` that are not those of its trainer."""

import os
from dataclasses import dataclass
from typing import get_args

from transformers import PreTrainedModel

from posttrain.commands.common import (
    PRECISIONS,
    ModelSettings,
    ReadingSettings,
    RowSettings,
    refuse_repeated,
)
from posttrain.config.fields import at_least_one, setting
from posttrain.data.mixing import parse_mix
from posttrain.errors import UserError
from posttrain.training.config import RankingConfig
from posttrain.training.losses import MARGINS
from posttrain.training.merging import Merging
from posttrain.training.pairing import PAIRINGS, EditMargins, Pairing, Weighting

#: Most tokens of a merged row where attention computes a mask for every two of them.
DENSE_ROW = 2048


@dataclass(frozen=True)
class TrainSettings(RowSettings, ReadingSettings, ModelSettings):
    """Settings of ``posttrain train`` beside those of :class:`.training.config.RankingConfig`."""

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
    eval_data: list[str] = setting([], "What to evaluate on; by default part of the data.")
    eval_fraction: float = setting(
        0.05, "Share of the data's groups kept for evaluation where there is no eval_data; 0: none."
    )
    split_seed: int = setting(0, "Seeds which groups those are, and which a mix takes.")
    mix: str | None = setting(
        None,
        "Shares of the training groups by domain, such as helpfulness:0.7,safety:0.3, or one of "
        "Llama 2's: helpfulness (half and half), safety (90 % safety). As many groups are taken "
        "as the scarcest domain allows. Evaluation keeps all domains. By default all groups.",
    )
    pairs: str = setting(
        "all",
        "Which pairs of edited, chosen and rejected are trained on, where there is an edit: "
        f"{', '.join(PAIRINGS)}.",
    )
    weighting: str = setting(
        "pair", "All pairs weigh the same (pair), or all groups (prompt).", get_args(Weighting)
    )
    margins: str = setting(
        "record",
        "Margin of chosen over rejected: that of the record, if it has one (record), none at all "
        "(none; Llama 3), or by strength (small, large; Llama 2).",
        ("record", *MARGINS),
    )
    edit_margins: str = setting(
        "transitive",
        "Margins of pairs with an edit: that of chosen over rejected for edited over rejected "
        "(transitive), or none.",
        get_args(EditMargins),
    )
    merge_prompts: bool | None = setting(
        None,
        "Whether all comparisons of one prompt become one group, in which each response is "
        "computed once. By default they do where this changes no score: in exact layouts, with "
        "loss_type pairs.",
    )
    min_strength: int = setting(
        1,
        "Least strength of chosen over rejected to train on. Llama 3 takes 3, which needs data "
        "with strengths.",
    )
    top_layers: int = setting(0, "Train only so many of the last layers, and the head; 0: all.")
    lora_rank: int = setting(0, "Rank of LoRA adapters on all linear layers; 0: none.")
    lora_alpha: int = setting(32, "LoRA's alpha.")
    lora_dropout: float = setting(0.0, "LoRA's dropout.")
    lora_target_modules: list[str] = setting(
        [],
        "Linear layers that get adapters, by the ends of their names, such as q_proj; by default "
        "all of them.",
    )
    disable_dropout: bool = setting(
        False, "Train without the dropout of the model's own layers; that of LoRA stays."
    )
    processes: int = setting(os.cpu_count() or 1, "Processes that tokenise.")
    resamples: int = setting(1000, "Bootstrap replicates of the final evaluation.")
    resume: bool = setting(
        False, "Go on with the run in output_dir from its last whole checkpoint."
    )
    overwrite_output_dir: bool = setting(
        False, "Replace the run in output_dir: its checkpoints and its model are removed first."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        ReadingSettings.__post_init__(self)
        ModelSettings.__post_init__(self)
        self.pairing()
        if not self.data:
            raise UserError("give data to train on: files or other sources")
        refuse_repeated("data", self.data)
        refuse_repeated("eval_data", self.eval_data)
        at_least_one(self, "processes", "resamples")
        if self.mix is not None:
            parse_mix(self.mix)
        if not 0 <= self.eval_fraction < 1:
            raise UserError(f"eval_fraction must be at least 0 and below 1: {self.eval_fraction}")
        if self.lora_rank < 0 or not 0 <= self.lora_dropout < 1:
            raise UserError(
                f"lora_rank must not be negative, and lora_dropout at least 0 and below 1, not "
                f"{self.lora_rank} and {self.lora_dropout}"
            )
        if self.split_seed < 0:
            raise UserError(f"split_seed must not be negative, not {self.split_seed}")
        if self.lora_rank and self.top_layers:
            raise UserError("lora_rank and top_layers exclude each other; set one of them to 0")

    @property
    def in_both(self) -> list[str]:
        """Sources of data that are evaluated on, too."""
        places = {os.path.realpath(source) for source in self.data}
        return [source for source in self.eval_data if os.path.realpath(source) in places]

    def pairing(self) -> Pairing:
        """How groups become comparisons."""
        return Pairing(
            self.pairs,
            self.weighting,  # type: ignore[arg-type]
            self.margins,
            self.edit_margins,  # type: ignore[arg-type]
            self.min_strength,
        )

    def merging(self, config: RankingConfig, model: PreTrainedModel) -> Merging | None:
        """How groups of one prompt are merged; None: not at all.

        A model that takes a mask for every two tokens of a row computes the square of the row, so
        its rows are kept short.

        Raises:
            UserError: If they are to be merged where that would change what is optimised.
        """
        exact = self.rows.is_exact and config.loss_type == "pairs"
        if self.merge_prompts and not exact:
            raise UserError(
                f"merge_prompts goes with exact layouts and loss_type pairs, not with layout "
                f"{self.layout} and loss_type {config.loss_type}, where it would change what is "
                "optimised; leave it out"
            )
        if not exact or self.merge_prompts is False:
            return None
        attention = model.config.get_text_config()._attn_implementation
        dense = self.rows.rows == "single" and attention in ("sdpa", "eager")
        limits = (config.max_tokens_per_device, self.pack_length, DENSE_ROW if dense else None)
        most = min((limit for limit in limits if limit is not None), default=None)
        return Merging(self.rows, max_tokens=most, max_pairs=config.step_size)

"""``posttrain train``: from preference data to a reward model that other programs load."""

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME

from posttrain.commands.common import (
    ModelSettings,
    ReadingSettings,
    RowSettings,
    check_packages,
    load_model,
    parse,
    refuse_repeated,
)
from posttrain.commands.run_folder import claim, claim_data
from posttrain.commands.starting_point import trainable
from posttrain.config.fields import at_least_one, setting
from posttrain.data.mixing import parse_mix
from posttrain.data.store import Stored, stored
from posttrain.errors import UserError
from posttrain.evaluation.report import report
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.evidence import records
from posttrain.models import adapters, embedded, reward_model
from posttrain.models.loading import contents as contents_of
from posttrain.models.rotary import within_boundary
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.rendering import tokenizer_hash
from posttrain.training import saving
from posttrain.training.checkpoints import check_launcher, last_whole_checkpoint
from posttrain.training.collator import GroupCollator
from posttrain.training.config import RankingConfig
from posttrain.training.dataset import Tokenized, tokenized
from posttrain.training.model_card import model_card
from posttrain.training.pairing import Pairing
from posttrain.training.trainer import RankingTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings(RowSettings, ReadingSettings, ModelSettings):
    """Settings of ``posttrain train`` beside those of :class:`.training.config.RankingConfig`."""

    dtype: str = setting(
        "auto",
        "Precision of the weights: float32, bfloat16, float64, or auto: as they are stored with "
        "LoRA, otherwise at least float32, because in bfloat16 small updates round to nothing.",
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
        "Llama 2's: helpfulness (half and half), safety (90 %% safety). As many groups are taken "
        "as the scarcest domain allows. Evaluation keeps all domains. By default all groups.",
    )
    pairs: str = setting("all", "Which pairs of edited, chosen and rejected are trained on.")
    weighting: str = setting("pair", "All pairs weigh the same (pair), or all groups (prompt).")
    margins: str = setting(
        "record",
        "Margin of chosen over rejected: that of the record, if it has one (record), none at all "
        "(none; Llama 3), or by strength (small, large; Llama 2).",
    )
    edit_margins: str = setting(
        "transitive",
        "Margins of pairs with an edit: that of chosen over rejected for edited over rejected "
        "(transitive), or none.",
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
    processes: int = setting(os.cpu_count() or 1, "Processes that tokenise.")
    resamples: int = setting(1000, "Bootstrap replicates of the final evaluation.")
    resume: bool = setting(
        False, "Go on with the run in output_dir from its last whole checkpoint."
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
        if self.lora_rank and self.top_layers:
            raise UserError("lora_rank and top_layers exclude each other; set one of them to 0")

    def pairing(self) -> Pairing:
        """How groups become comparisons."""
        return Pairing(
            self.pairs,
            self.weighting,  # type: ignore[arg-type]
            self.margins,
            self.edit_margins,  # type: ignore[arg-type]
            self.min_strength,
        )


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain train`` and return its exit code."""
    settings, config = parse(
        "train",
        (TrainSettings, RankingConfig),
        "Train a reward model on ranked responses and save it in --output_dir, a folder that "
        "transformers, TRL and posttrain load. Settings come from --config FILE (YAML; see runs/) "
        "and from options, which win. Beside those listed first, every one of transformers' "
        "TrainingArguments is understood.",
        arguments,
    )
    if run(settings, config):
        print(f"wrote {config.output_dir}: the model, its card README.md, and run.json")
    return 0


def run(settings: TrainSettings, config: RankingConfig) -> dict[str, Any]:
    """Train a reward model, save it in ``config.output_dir``, and return what ``run.json`` holds.

    Beside the model stand its card (``README.md``), ``run.json`` (settings, data, environment and
    evaluation), ``trainer_state.json`` (what was logged) and the checkpoints.

    Raises:
        UserError: If settings, data, model or the folder do not allow it, or training diverges.
        OSError: If the folder cannot be written.
    """
    started = time.time()
    if config.auxiliary_weight:
        raise UserError(
            f"auxiliary_weight={config.auxiliary_weight:g} needs labelled responses, and records "
            "carry no labels; set it to 0, or train in Python on TrainingGroup with labels"
        )
    check_packages(config)
    folder = Path(str(config.output_dir))
    described = _described(settings, config)
    main = config.process_index == 0
    day = claim(folder, described, resume=settings.resume, main=main)
    gpu = config.device.type == "cuda"
    model, tokenizer = load_model(settings, settings, seed=config.seed, gpu=gpu, day=day)
    model = trainable(model, settings, lora_rank=settings.lora_rank, top_layers=settings.top_layers)
    # The others find what the first process has made in the cache.
    with config.main_process_first(desc="preparing data"):
        training, held_out, counts, contents = _data(settings, model, tokenizer)
    if settings.resume or main:  # others compare nothing, and weights take long to read
        contents["model"] = contents_of(embedded.find(settings.model))
    claim_data(folder, contents, resume=settings.resume, main=main)
    collator = GroupCollator(
        tokenizer.pad_token_id,
        settings.rows,
        settings.pack_length,
        mean_weight=training.mean_weight,
    )
    try:
        trainer = RankingTrainer(
            _with_adapters(model, settings, config.seed),
            config,
            data_collator=collator,
            train_dataset=training.rows,
            eval_dataset=held_out[1].rows if held_out else None,
            # Each checkpoint holds it, and so is a whole model.
            processing_class=tokenizer,
        )
    except ValueError as error:
        # What transformers and peft refuse are settings that do not go together.
        raise UserError(str(error)) from error
    if settings.lora_rank and _sharded(trainer):
        raise UserError(
            f"lora_rank={settings.lora_rank} does not go with FSDP: adapters could not be merged "
            "into weights that are spread over processes; use DDP (accelerate launch --config_file "
            "runs/accelerate/ddp.yaml), where LoRA needs little memory, or set lora_rank to 0"
        )
    checkpoint = last_whole_checkpoint(folder) if settings.resume else None
    if checkpoint is not None:
        check_launcher(checkpoint, sharded=_sharded(trainer))
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    if result.global_step <= config.get_warmup_steps(result.global_step):
        logger.warning(
            "all %d steps were warm-up, so the learning rate was hardly reached; give more data or "
            "epochs, a smaller --groups_per_step, or --min_warmup_steps 0", result.global_step,
        )  # fmt: skip
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if _sharded(trainer) else None
    found: dict[str, Any] = {}
    if held_out and _sharded(trainer):
        found = trainer.evaluate()
    # Without autocast, as whoever loads it will compute.
    finished = saving.finish(
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    )
    if trainer.is_world_process_zero():
        if held_out and not _sharded(trainer):
            found = _evaluate(
                finished, tokenizer, held_out[0], settings, config.max_tokens_per_device
            )
        account = described | {
            "data": counts,
            "steps": result.global_step,
            "training_loss": result.training_loss,
            "evaluation": found,
            "environment": records.environment(started),
        }
        texts = {
            "run.json": json.dumps(account, indent=2, ensure_ascii=False) + "\n",
            "README.md": model_card(account),
            # What was logged, where Trainer.save_state would write it.
            TRAINER_STATE_NAME: json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n",
        }
        saving.save(finished, tokenizer, folder, state=state, texts=texts)
    trainer.accelerator.wait_for_everyone()
    return account if trainer.is_world_process_zero() else {}


def _described(settings: TrainSettings, config: RankingConfig) -> dict[str, Any]:
    """All settings as JSON has them."""
    plain = {"settings": asdict(settings), "training": config.to_dict()}
    return json.loads(json.dumps(plain, default=str))


def _data(
    settings: TrainSettings, model: Any, tokenizer: Any
) -> tuple[Tokenized, tuple[Stored, Tokenized] | None, dict[str, Any], dict[str, str | None]]:
    """Training data, data to evaluate on, an account of both, and hashes of their contents."""
    groups = stored(settings.data, **settings.reading)
    held_out = None
    if settings.eval_data:
        held_out = stored(settings.eval_data, **settings.reading)
    elif settings.eval_fraction:
        groups, held_out = groups.split(
            test_fraction=settings.eval_fraction, seed=settings.split_seed
        )
    reward_model.check_padding(tokenizer, next(iter(groups)))
    read, left_out = groups.counts, dict[str, int]()
    if settings.mix is not None:
        available = groups.domains()
        groups = groups.mixed(parse_mix(settings.mix), seed=settings.split_seed)
        taken = groups.domains()
        left_out = {
            f"groups in {name} left out by the mix": count - taken.get(name, 0)
            for name, count in available.items()
            if count > taken.get(name, 0)
        }
    # Stock classes will read what is saved with this padding token.
    limits = replace(
        settings.limits(model),
        skipped_end=tokenizer.pad_token_id,
        skip_unreadable=settings.skip_bad,
    )
    if settings.max_tokens is None:
        limits = within_boundary(model.config, limits, settings.rows)

    def prepared(part: Stored) -> tuple[Tokenized, dict[str, int]]:
        made = tokenized(part, tokenizer, settings.pairing(), limits, processes=settings.processes)
        by_domain = made.domains if len(made.domains) > 1 or settings.mix is not None else {}
        return made, made.counts | {
            "groups without a domain" if name is None else f"groups in {name}": count
            for name, count in by_domain.items()
        }

    contents = {
        "training data": groups.fingerprint,
        "evaluation data": None if held_out is None else held_out.fingerprint,
        "tokenizer and chat template": tokenizer_hash(tokenizer),
    }
    training, found = prepared(groups)
    counts: dict[str, Any] = {"sources": settings.data, "read": read}
    counts["notes"] = groups.notes.lines()
    if settings.eval_data and held_out is not None:
        counts["notes"] += [f"evaluation data: {note}" for note in held_out.notes.lines()]
    if getattr(tokenizer, "pinned_day", None):
        counts["notes"].append(
            f"the chat template writes today's date, which is fixed to {tokenizer.pinned_day}"
        )
    counts |= {"training": found | left_out, "fingerprint": groups.fingerprint}
    if held_out is None:
        return training, None, counts, contents
    evaluation, found = prepared(held_out)
    return training, (held_out, evaluation), counts | {"evaluation": found}, contents


def _with_adapters(model: Any, settings: TrainSettings, seed: int) -> Any:
    if not settings.lora_rank:
        return model
    return adapters.add_lora(
        model,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        seed=seed,
    )


def _sharded(trainer: RankingTrainer) -> bool:
    return bool(trainer.is_fsdp_enabled)


def _evaluate(
    model: Any,
    tokenizer: Any,
    held_out: Stored,
    settings: TrainSettings,
    max_tokens_per_device: int | None,
) -> dict[str, Any]:
    """What ``posttrain evaluate`` would report, in separate rows as other programs score."""
    limits = limits_for(
        model,
        LAYOUTS["separate"],
        max_tokens=settings.max_tokens,
        skip_too_long=True,
    )
    limits = replace(limits, skipped_end=tokenizer.pad_token_id, skip_unreadable=settings.skip_bad)
    tokens = max_tokens_per_device or sys.maxsize
    scored = score_groups(
        model, tokenizer, held_out, LAYOUTS["separate"], limits, batch_tokens=tokens
    )
    return report(scored, resamples=settings.resamples)

"""``posttrain train``: from preference data to a reward model that other programs load."""

import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from posttrain.commands.common import check_packages, parse
from posttrain.commands.from_trl import translated
from posttrain.commands.hub import check_hub, push
from posttrain.commands.models import load_model, tokenizer_of
from posttrain.commands.progress import RunProgress
from posttrain.commands.run_folder import claim, claim_data
from posttrain.commands.starting_point import trainable
from posttrain.commands.train_report import in_words, show_run
from posttrain.commands.train_settings import TrainSettings
from posttrain.commands.training_data import TrainingData, prepare
from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation.report import report
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.evidence import records
from posttrain.models import adapters
from posttrain.models.architecture import check_decoder
from posttrain.models.loading import contents as contents_of
from posttrain.models.loading import load_skeleton
from posttrain.models.memory import enough_tokens
from posttrain.models.reward_model import stock_model
from posttrain.rows.layout import LAYOUTS
from posttrain.training import saving
from posttrain.training.checkpoints import check_launcher, last_whole_checkpoint
from posttrain.training.collator import GroupCollator
from posttrain.training.config import RankingConfig
from posttrain.training.curves import curves
from posttrain.training.model_card import model_card
from posttrain.training.room import check_room, find_room
from posttrain.training.trainer import RankingTrainer

logger = logging.getLogger(__name__)

#: A run of fewer steps than the first is warned of, and told how to make as many as the second.
FEW_STEPS, ENOUGH_STEPS = 20, 100


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain train`` and return its exit code."""
    settings, config = parse(
        "train",
        (TrainSettings, RankingConfig),
        "Train a reward model on ranked responses and save it in --output_dir, a folder that "
        "transformers, TRL and posttrain load. The settings of trl reward are understood, too.",
        arguments,
        translated,
    )
    account = run(settings, config)
    if account:
        show_run(account, str(config.output_dir))
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
    check_hub(config)
    folder = Path(str(config.output_dir))
    described = _described(settings, config)
    main = config.process_index == 0
    day = claim(folder, described, main=main)
    # The others find what the first process has made in the cache.
    with config.main_process_first(desc="preparing data"):
        tokenizer = tokenizer_of(settings, day)
        checkpoint = settings.find()
        skeleton = load_skeleton(checkpoint)
        check_decoder(skeleton)
        data = prepare(settings, skeleton, tokenizer)
    if main:
        print(f"data: {in_words(data.counts)}", flush=True)
    if config.eval_strategy != "no" and data.evaluation is None:
        raise UserError(
            "eval_strategy asks for evaluation, and no data are held out; set eval_data or "
            "eval_fraction"
        )
    if main:
        for source in settings.in_both:
            logger.warning(
                "%s is in data and in eval_data, so evaluation is on what was trained on", source
            )
        _warn_of_few_steps(config, data.training.counts["pairs"])
    model = _model(settings, config, tokenizer)
    room = None
    if config.max_tokens_per_device is None:
        room = find_room(model, config)
        config.max_tokens_per_device = enough_tokens(room, config.device)
    with config.main_process_first(desc="merging prompts"):
        data = data.merged(settings.merging(config, stock_model(model)))
    if room is not None:
        check_room(data.training.rows, settings.rows, room)
    trainer = _trainer(settings, config, model, tokenizer, data)
    last = last_whole_checkpoint(folder) if settings.resume else None
    if last is not None:
        check_launcher(last, sharded=_sharded(trainer))
    contents = dict(data.contents)
    if settings.resume or main:  # others compare nothing, and weights take long to read
        contents["model"] = contents_of(checkpoint)
    claim_data(folder, described, contents, day, main=main)
    progress = RunProgress(trainer)
    with progress:
        try:
            result = trainer.train(resume_from_checkpoint=str(last) if last else None)
        except KeyError as error:
            if "metric_for_best_model" not in str(error):
                raise
            raise UserError(
                f"metric_for_best_model={config.metric_for_best_model} is not among what the "
                "held-out data give, such as accuracy_4 of data without that strength; take loss "
                "or accuracy"
            ) from error

    if result.global_step <= config.get_warmup_steps(result.global_step):
        logger.warning(
            "all %d steps were warm-up, so the learning rate was hardly reached; give more data or "
            "epochs, a smaller --pairs_per_step, or --min_warmup_steps 0", result.global_step,
        )  # fmt: skip
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if _sharded(trainer) else None
    found: dict[str, Any] = {}
    if data.held_out is not None and _sharded(trainer):
        found = trainer.evaluate()
    # Without autocast, as whoever loads it will compute.
    finished = saving.finish(
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    )
    if trainer.is_world_process_zero():
        if data.held_out is not None and not _sharded(trainer):
            groups = progress.track(data.held_out, len(data.held_out.rows), "evaluating")
            found = _evaluate(finished, tokenizer, groups, settings, config.max_tokens_per_device)
        account = described | {
            "tokens at once": config.max_tokens_per_device,
            "data": data.counts,
            "steps": result.global_step,
            "best_step": trainer.state.best_global_step if config.load_best_model_at_end else None,
            "training_loss": _training_loss(trainer, result),
            "evaluation": found,
            "environment": records.environment(started),
        }
        files = {
            "run.json": json.dumps(account, indent=2, ensure_ascii=False) + "\n",
            "README.md": model_card(account),
            # What was logged, where Trainer.save_state would write it.
            TRAINER_STATE_NAME: json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n",
        } | curves(trainer.state.log_history)
        written = saving.save(finished, tokenizer, folder, state=state, files=files)
        push(config, folder, written)
    trainer.accelerator.wait_for_everyone()
    return account if trainer.is_world_process_zero() else {}


def _warn_of_few_steps(config: RankingConfig, pairs: int) -> None:
    """Say before training that a run is too short to learn much, and what makes it longer."""
    if config.max_steps > 0 or config.pairs_per_step is None:
        return
    seen = pairs * config.num_train_epochs
    steps = math.ceil(seen / config.pairs_per_step)
    better = int(seen // ENOUGH_STEPS)
    if steps < FEW_STEPS and 0 < better < config.pairs_per_step:
        logger.warning(
            "%s pairs at %d a step make %d steps, and a run wants a hundred: set --pairs_per_step "
            "to %d or so, or give more data", f"{pairs:,}", config.pairs_per_step, steps, better,
        )  # fmt: skip


def _training_loss(trainer: RankingTrainer, result: TrainOutput) -> float:
    """The mean over the steps of this call, or what was logged last if it had none to make."""
    if result.training_loss:
        return result.training_loss
    logged = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return logged[-1] if logged else result.training_loss


def _described(settings: TrainSettings, config: RankingConfig) -> dict[str, Any]:
    """All settings as JSON has them."""
    plain = {"settings": asdict(settings), "training": config.to_dict()}
    return json.loads(json.dumps(plain, default=str))


def _model(
    settings: TrainSettings, config: RankingConfig, tokenizer: PreTrainedTokenizerBase
) -> Any:
    """The model to train, with adapters if they are what is trained."""
    gpu = config.device.type == "cuda"
    model, _ = load_model(settings, settings, seed=config.seed, gpu=gpu, tokenizer=tokenizer)
    model = trainable(
        model,
        settings,
        lora_rank=settings.lora_rank,
        top_layers=settings.top_layers,
        dropout=not settings.disable_dropout,
    )
    if not settings.lora_rank:
        return model
    return adapters.add_lora(
        model,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
        targets=settings.lora_target_modules,
        seed=config.seed,
    )


def _trainer(
    settings: TrainSettings,
    config: RankingConfig,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    data: TrainingData,
) -> RankingTrainer:
    """The trainer of a run; settings that do not go together are refused."""
    collator = GroupCollator(
        tokenizer.pad_token_id,
        settings.rows,
        settings.pack_length,
        mean_weight=data.training.mean_weight,
    )
    try:
        trainer = RankingTrainer(
            model,
            config,
            data_collator=collator,
            train_dataset=data.training.rows,
            eval_dataset=data.evaluation and data.evaluation.rows,
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
    return trainer


def _sharded(trainer: RankingTrainer) -> bool:
    return bool(trainer.is_fsdp_enabled)


def _evaluate(
    model: Any,
    tokenizer: Any,
    held_out: Iterable[RankedGroup],
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

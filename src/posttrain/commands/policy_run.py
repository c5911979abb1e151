"""A run of ``posttrain sft`` or ``posttrain dpo``, from its folder to the model that it leaves."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.trainer import TRAINER_STATE_NAME

from posttrain.commands.common import check_packages
from posttrain.commands.language_models import load_policy, trainable_policy
from posttrain.commands.policy_settings import PolicySettings, check_supported
from posttrain.commands.progress import RunProgress
from posttrain.commands.run_folder import claim, claim_data
from posttrain.data import store
from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.models import embedded
from posttrain.models.loading import contents as contents_of
from posttrain.policy.card import policy_card
from posttrain.policy.sft import trained
from posttrain.rows.rendering import tokenizer_hash
from posttrain.training import saving
from posttrain.training.checkpoints import check_launcher, last_whole_checkpoint

logger = logging.getLogger(__name__)

#: What a run's trainer is made of, once its model and tokenizer are there: the trainer, an account
#: of the data, and hashes of what else the run was started with.
Prepare = Callable[[Any, Any], tuple[Any, dict[str, Any], dict[str, str | None]]]
#: What is logged that is no result.
_NO_RESULT = ("epoch", "step", "learning_rate", "loss", "grad_norm")


def run(command: str, settings: PolicySettings, config: Any, prepare: Prepare) -> dict[str, Any]:
    """Train a language model, save it in ``config.output_dir``, and return what ``run.json`` holds.

    Beside the model stand its card (``README.md``), ``run.json``, ``trainer_state.json`` (what was
    logged) and the checkpoints.

    Raises:
        UserError: If settings, data, model or the folder do not allow it, or training diverges.
        OSError: If the folder cannot be written.
    """
    started = time.time()
    check_supported(settings, config)
    check_packages(config)
    if config.disable_tqdm:
        store.quiet()
    folder = Path(str(config.output_dir))
    plain = {"settings": asdict(settings), "training": config.to_dict()}
    described = json.loads(json.dumps(plain, default=str))
    main = config.process_index == 0
    day = claim(folder, described, main=main)
    model, tokenizer = load_policy(settings, day=day)
    model = trainable_policy(model, settings, lora_rank=settings.lora_rank)
    # The others find what the first process has made in the cache.
    with config.main_process_first(desc="preparing data"):
        try:
            trainer, counts, contents = prepare(model, tokenizer)
        except UserError:
            raise
        except (ValueError, NotImplementedError) as error:
            # What transformers, TRL and peft refuse are settings that do not go together.
            raise UserError(str(error)) from error
    contents |= {
        "training data": counts["fingerprint"],
        "tokenizer and chat template": tokenizer_hash(tokenizer),
    }
    if settings.resume or main:  # others compare nothing, and weights take long to read
        contents["model"] = contents_of(embedded.find(settings.model))
    claim_data(folder, described, contents, day, main=main)
    if getattr(tokenizer, "pinned_day", None):
        counts["notes"].append(
            f"the chat template writes today's date, which is fixed to {tokenizer.pinned_day}"
        )
    checkpoint = last_whole_checkpoint(folder) if settings.resume else None
    if checkpoint is not None:
        check_launcher(checkpoint, sharded=False)
    with RunProgress(trainer):
        trained(trainer, str(checkpoint) if checkpoint else None)

    finished = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if hasattr(finished, "merge_and_unload"):
        finished = finished.merge_and_unload()
    account: dict[str, Any] = {}
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        logged: dict[str, Any] = next((one for one in reversed(history) if "loss" in one), {})
        account = described | {
            "data": counts,
            "steps": trainer.state.global_step,
            "training_loss": next(
                one["train_loss"] for one in reversed(history) if "train_loss" in one
            ),
            "logged": {
                name: value
                for name, value in logged.items()
                if name not in _NO_RESULT and isinstance(value, int | float)
            },
            "environment": records.environment(started),
        }
        files = {
            "run.json": json.dumps(account, indent=2, ensure_ascii=False) + "\n",
            "README.md": policy_card(command, account),
            # What was logged, where Trainer.save_state would write it.
            TRAINER_STATE_NAME: json.dumps(asdict(trainer.state), indent=2, sort_keys=True) + "\n",
        }
        saving.save(finished, tokenizer, folder, files=files, auto=AutoModelForCausalLM)
    trainer.accelerator.wait_for_everyone()
    return account

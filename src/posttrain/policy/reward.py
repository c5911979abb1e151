"""A reward model of a round: all pairs of some groups, in separate rows."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback

from posttrain.data.preferences import RankedGroup
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.rows.tokenization import tokenize_groups
from posttrain.training.collator import GroupCollator, training_set
from posttrain.training.config import RankingConfig
from posttrain.training.pairing import Pairing
from posttrain.training.trainer import RankingTrainer

#: What trainers of a round do not do, unless settings say otherwise.
QUIET: dict[str, Any] = {
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "bf16": False,
}


def train_reward_model(
    checkpoint: Path, groups: Sequence[RankedGroup], arguments: Mapping[str, Any], *, seed: int
) -> PreTrainedModel:
    """A reward model trained on all pairs of groups, from a checkpoint."""
    model, tokenizer = reward_model.load(checkpoint, seed=seed)
    if arguments.get("bf16"):
        model.float()  # float64, which the tiny model has, does not go with it
    compute_in_double(model)
    tokens = tokenize_groups(tokenizer, groups)
    rows = training_set(
        [
            Pairing().apply(groups[place], tokenized)
            for place, tokenized in zip(tokens.kept, tokens.groups, strict=True)
        ]
    )
    assert isinstance(tokenizer.pad_token_id, int)
    with tempfile.TemporaryDirectory() as scratch:
        given = {"max_tokens_per_device": 4096, "use_cpu": not torch.cuda.is_available()}
        config = RankingConfig(scratch, **QUIET | given | {"seed": seed} | dict(arguments))
        trainer = RankingTrainer(
            model, config, train_dataset=rows, data_collator=GroupCollator(tokenizer.pad_token_id)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval()

"""The ways of training on ranked groups whose speed the throughput study compares.

All train the same model on the same pairs of the same groups, with the plain Bradley–Terry loss, in
``transformers.Trainer``'s own loop; they differ in the rows that they compute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
)
from trl import RewardConfig, RewardTrainer

from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import Arrangement
from posttrain.training.collator import GroupCollator, TrainingGroup, training_set
from posttrain.training.config import PLAIN_ADAMW, RankingConfig
from posttrain.training.trainer import RankingTrainer


@dataclass(frozen=True)
class Method:
    """A way of training.

    Attributes:
        name: As in tables.
        arrangement: What it computes, for the closed forms.
        layout: The layout of its rows; None for TRL's trainer.
        shares_rows: Whether several groups share a row.
    """

    name: str
    arrangement: Arrangement
    layout: Layout | None
    shares_rows: bool = False


TRL = Method("TRL RewardTrainer", "pair rows", None)
SEPARATE = Method("separate rows", "separate rows", LAYOUTS["separate"])
EXACT = Method("exact row", "exact row", LAYOUTS["exact"])
SHARED = Method("exact, shared rows", "exact row", LAYOUTS["exact"], shares_rows=True)
CAUSAL = Method("causal row", "causal row", LAYOUTS["causal"])
METHODS = (TRL, SEPARATE, EXACT, SHARED, CAUSAL)


def draw_groups(
    count: int,
    *,
    prompt_tokens: int,
    response_tokens: int,
    responses: int,
    spread: float,
    words: Sequence[int],
    seed: int,
) -> list[TokenizedGroup]:
    """Groups of random tokens.

    Args:
        count: How many.
        prompt_tokens: Average tokens of a prompt.
        response_tokens: Average tokens of a response.
        responses: Responses in a group.
        spread: Lengths are uniform from 1 − spread to 1 + spread times the average, at least one
            token; with 0 they are exact.
        words: Token ids to draw from.
        seed: Seeds lengths and tokens. Each combination of lengths and responses has a stream of
            its own.
    """
    # Converting a vocabulary for each sequence would take longer than drawing it.
    vocabulary = np.asarray(words)
    generator = np.random.default_rng([seed, prompt_tokens, response_tokens, responses])

    def sequence(average: int) -> tuple[int, ...]:
        length = round(average * generator.uniform(1 - spread, 1 + spread))
        return tuple(generator.choice(vocabulary, max(1, length)).tolist())

    return [
        TokenizedGroup(
            sequence(prompt_tokens), tuple(sequence(response_tokens) for _ in range(responses))
        )
        for _ in range(count)
    ]


def pair_set(groups: Sequence[TokenizedGroup]) -> Dataset:
    """All pairs of the groups as a data set that TRL's trainer takes as it is.

    The columns ``chosen_ids`` and ``rejected_ids`` tell it not to tokenise, nor to append an
    end-of-sequence token.
    """
    pairs = [
        {"chosen_ids": group.prompt + winner, "rejected_ids": group.prompt + loser}
        for group in groups
        for winner, loser in combinations(group.responses, 2)
    ]
    return Dataset.from_list(pairs)


class PairTrainer(RewardTrainer):
    """TRL's trainer without its telemetry, whose thread would run beside the timed steps."""

    def _send_telemetry(self) -> None: ...


def make_trainer(
    method: Method,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[TokenizedGroup],
    *,
    groups_per_step: int,
    steps: int,
    pack_length: int,
    max_tokens_per_device: int | None,
    attention: str,
    folder: str,
) -> Trainer:
    """A trainer that takes the groups in their order.

    Args:
        method: The way of training.
        model: The model to train.
        tokenizer: Its tokenizer, which has a padding token.
        groups: The groups, all with the same number of responses.
        groups_per_step: Groups in one optimiser step.
        steps: Optimiser steps.
        pack_length: Most tokens of a row that groups share.
        max_tokens_per_device: Most tokens that are computed at once; None for the whole step. Ours
            takes what fits of a step (see :mod:`.training.sampler`). TRL's takes as many pairs as
            fit, padded to the longest, and accumulates gradients over equal batches, which keeps
            the loss the mean over the step's pairs; at least one pair, even where it does not fit.
        attention: Attention implementation of rows that need a mask. Those that do not always get
            PyTorch's own ("sdpa"), which knows causal attention and is the fastest for it.
        folder: Where a trainer may write; nothing is written.
    """
    model.set_attn_implementation(attention if method.arrangement == "exact row" else "sdpa")
    common: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": steps,
        "train_sampling_strategy": "sequential",
        # Small, so that weights trained on noise stay ordinary numbers.
        "learning_rate": 1e-6,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        # For the loss of every step.
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer: Trainer
    if method.layout is None:
        # TRL's defaults would drop long pairs, compute in bfloat16 and recompute activations. For
        # the last, None means no, but does not warn that the setting has a new name.
        common |= {"max_length": None, "bf16": False, "gradient_checkpointing": None}
        pairs = comb(len(groups[0].responses), 2) * groups_per_step
        at_once = (
            pairs
            if max_tokens_per_device is None
            else _pairs_at_once(groups, pairs, max_tokens_per_device)
        )
        trainer = PairTrainer(
            model,
            RewardConfig(
                **common,
                per_device_train_batch_size=at_once,
                gradient_accumulation_steps=pairs // at_once,
            ),
            train_dataset=pair_set(groups),
            processing_class=tokenizer,
        )
    else:
        trainer = RankingTrainer(
            model,
            RankingConfig(
                **common,
                groups_per_step=groups_per_step,
                max_tokens_per_device=max_tokens_per_device,
                # TRL's, so that all do the same.
                lr_scheduler_type="linear",
                warmup_steps=0,
                **PLAIN_ADAMW,
            ),
            train_dataset=training_set([TrainingGroup.with_all_pairs(group) for group in groups]),
            data_collator=GroupCollator(
                tokenizer.pad_token_id, method.layout, pack_length if method.shares_rows else None
            ),
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _pairs_at_once(groups: Sequence[TokenizedGroup], pairs: int, max_tokens_per_device: int) -> int:
    """Most pairs of a batch within ``max_tokens_per_device`` of which a step has a whole number."""
    longest = max(len(group.prompt) + max(map(len, group.responses)) for group in groups)
    fitting = range(1, max_tokens_per_device // (2 * longest) + 1)
    return max((size for size in fitting if pairs % size == 0), default=1)

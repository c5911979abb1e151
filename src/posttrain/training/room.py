"""How many tokens a device computes at once where no setting says so: what memory has room for."""

import os
from typing import Any

import torch

from posttrain.errors import UserError
from posttrain.models.memory import fitting_tokens
from posttrain.models.reward_model import stock_model
from posttrain.rows.layout import Layout
from posttrain.training.collator import column
from posttrain.training.config import RankingConfig


def find_room(model: Any, config: RankingConfig) -> int:
    """Tokens that there is room for on the process that has least.

    Raises:
        UserError: If weights and optimiser do not fit (see :func:`.fitting_tokens`).
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
    alone = config.device.type == "cuda"
    half = config.bf16 or config.fp16 or stock_model(model).dtype.itemsize == 2
    room = fitting_tokens(
        model,
        config.device,
        half=half,
        # New versions of transformers call it activation checkpointing.
        checkpointing=bool(
            config.gradient_checkpointing or getattr(config, "activation_checkpointing", False)
        ),
        shards=config.world_size if sharded else 1,
        processes=1 if alone else int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if config.world_size == 1:
        return room
    # All plan the same steps, from the same number.
    least = torch.tensor(room, device=config.device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return int(least)


def check_room(dataset: Any, layout: Layout, room: int) -> None:
    """Refuse data of which the longest row alone exceeds the tokens that memory has room for.

    Raises:
        UserError: If there is such a row.
    """
    name = "total" if layout.rows == "single" else "length"
    lengths = column(dataset, name)
    beyond = int((lengths > room).sum())
    if beyond:
        raise UserError(
            f"the longest row takes {lengths.max():,} tokens, and memory has room for {room:,} at "
            f"once, which {beyond:,} of {len(lengths):,} groups exceed; cut prompts (--max_tokens) "
            "and leave out responses that are longer by themselves (--skip_too_long), train part "
            "of the weights (--top_layers, --lora_rank), compute layers again "
            "(--activation_checkpointing), or set --max_tokens_per_device to try all the same; "
            "posttrain data check FILE --model NAME shows what limits cut"
        )

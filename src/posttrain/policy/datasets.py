"""Prompts and responses as TRL's trainers read them."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from posttrain.data.preferences import Message, Pair, RankedGroup


def demonstration_set(prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> Dataset:
    """Prompts with one response each, for ``SFTTrainer``."""
    return Dataset.from_dict(
        {
            "prompt": [messages(prompt) for prompt in prompts],
            "completion": [_answer(response) for response in responses],
        }
    )


def preference_set(groups: Sequence[RankedGroup]) -> Dataset:
    """All pairs of ranked groups, for ``DPOTrainer``."""
    return pair_set([(group, pair) for group in groups for pair in group.pairs()])


def pair_set(pairs: Sequence[tuple[RankedGroup, Pair]]) -> Dataset:
    """Some pairs of ranked groups, for ``DPOTrainer``."""
    return Dataset.from_dict(
        {
            "prompt": [messages(group.prompt) for group, _ in pairs],
            "chosen": [_answer(group.responses[pair.winner]) for group, pair in pairs],
            "rejected": [_answer(group.responses[pair.loser]) for group, pair in pairs],
        }
    )


def messages(prompt: Sequence[Message]) -> list[dict[str, Any]]:
    """A prompt as chat messages."""
    return [{"role": turn.role, "content": turn.content} for turn in prompt]


def _answer(response: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": response}]

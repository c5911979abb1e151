"""Rows: the token sequences a model reads, and where in them each response is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from posttrain.preferences import Message, RankedGroup


@dataclass(frozen=True)
class Row:
    """One prompt with one response, tokenised (the layout *separate*).

    Attributes:
        ids: Token ids of the prompt, then of the response.
        prompt_tokens: How many of them belong to the prompt.
        trimmed: How many prompt tokens were cut off on the left to fit a limit.
    """

    ids: tuple[int, ...]
    prompt_tokens: int
    trimmed: int = 0


@dataclass(frozen=True)
class RowBatch:
    """Rows padded on the right.

    Attributes:
        input_ids: Shape ``[rows, longest]``.
        attention_mask: 1 on tokens, 0 on padding, shape ``[rows, longest]``.
        score_index: Where each row is scored: its last token, shape ``[rows]``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    score_index: Tensor


class TooLongError(ValueError):
    """A group fits into the limit only with no token left of its prompt."""


def tokenize_group(
    tokenizer: PreTrainedTokenizerBase, group: RankedGroup, *, max_tokens: int | None = None
) -> tuple[Row, ...]:
    """One row per response of a group, best first, through the tokenizer's chat template.

    Prompt and responses are tokenised apart, so that all responses share the prompt's tokens
    exactly. Where the longest row exceeds ``max_tokens``, the prompt loses the same tokens on its
    left in every row, because a prompt cut more for longer responses would reveal their length. A
    response is never cut.

    Raises:
        TooLongError: If a response leaves no token of its prompt within ``max_tokens``.
        ValueError: If the tokenizer has no chat template, or one in which the prompt is not a
            prefix of the whole conversation.
    """
    head, tails = _render(tokenizer, group.prompt, group.responses)
    prompt = tokenizer(head, add_special_tokens=False)["input_ids"]
    responses = [tokenizer(tail, add_special_tokens=False)["input_ids"] for tail in tails]
    longest = max(len(ids) for ids in responses)
    trimmed = 0 if max_tokens is None else max(0, len(prompt) + longest - max_tokens)
    if trimmed >= len(prompt):
        raise TooLongError(
            f"group {group.id!r} has a response of {longest} tokens, which leaves no room for a "
            f"prompt within {max_tokens}; raise max_tokens or leave the group out"
        )
    prompt = prompt[trimmed:]
    return tuple(Row((*prompt, *ids), len(prompt), trimmed) for ids in responses)


def _render(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], responses: Sequence[str]
) -> tuple[str, list[str]]:
    """Text of the prompt, and what each response adds to it, in the tokenizer's chat format."""
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; set "
            "tokenizer.chat_template to the format its model was trained on"
        )
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    head = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    tails = []
    for response in responses:
        conversation = [*turns, {"role": "assistant", "content": response}]
        whole = str(tokenizer.apply_chat_template(conversation, tokenize=False))
        if not whole.startswith(head):
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path!r} does not continue a prompt with "
                "its response: the prompt with add_generation_prompt=True must be a prefix of the "
                "whole"
            )
        tails.append(whole[len(head) :])
    return head, tails


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> RowBatch:
    """Pad token ids on the right to the longest row.

    Padding follows every real token, so under causal attention no token sees it, and scores are
    read at indices computed from lengths, so it does not matter which id pads.

    Raises:
        ValueError: If there are no rows, or an empty one.
    """
    if not rows or not all(rows):
        raise ValueError("cannot make a batch of no rows, or of rows without tokens")
    longest = max(len(ids) for ids in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, ids in enumerate(rows):
        input_ids[place, : len(ids)] = torch.tensor(ids)
        attention_mask[place, : len(ids)] = 1
    return RowBatch(input_ids, attention_mask, torch.tensor([len(ids) - 1 for ids in rows]))

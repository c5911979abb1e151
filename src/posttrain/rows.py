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

    @property
    def score_index(self) -> int:
        """Index of the token whose hidden state is scored: the last one."""
        return len(self.ids) - 1


@dataclass(frozen=True)
class RowBatch:
    """Rows padded on the right.

    Attributes:
        input_ids: Shape ``[rows, longest]``.
        attention_mask: 1 on tokens, 0 on padding, shape ``[rows, longest]``.
        score_index: Where each row is scored, shape ``[rows]``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    score_index: Tensor


class TooLongError(ValueError):
    """A response does not fit into the limit even without its prompt."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    response: str,
    *,
    max_tokens: int | None = None,
) -> Row:
    """Tokenise a prompt and a response through the tokenizer's chat template.

    Prompt and response are tokenised apart, so that all responses to one prompt share its tokens
    exactly. A row over ``max_tokens`` loses tokens from the prompt's left, never from the response.

    Raises:
        TooLongError: If the response alone exceeds ``max_tokens``.
        ValueError: If the tokenizer has no chat template, or one in which the prompt is not a
            prefix of the whole conversation.
    """
    if tokenizer.chat_template is None:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; set "
            "tokenizer.chat_template to the format its model was trained on"
        )
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    head = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(
        [*turns, {"role": "assistant", "content": response}], tokenize=False
    )
    assert isinstance(head, str)
    assert isinstance(whole, str)
    if not whole.startswith(head):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not continue a prompt with its "
            "response: the prompt with add_generation_prompt=True must be a prefix of the whole"
        )
    prompt_ids = tokenizer(head, add_special_tokens=False)["input_ids"]
    response_ids = tokenizer(whole[len(head) :], add_special_tokens=False)["input_ids"]
    trimmed = 0
    if max_tokens is not None and len(prompt_ids) + len(response_ids) > max_tokens:
        if len(response_ids) > max_tokens:
            raise TooLongError(
                f"a response of {len(response_ids)} tokens does not fit into {max_tokens}; raise "
                "max_tokens or leave the group out"
            )
        trimmed = len(prompt_ids) + len(response_ids) - max_tokens
        prompt_ids = prompt_ids[trimmed:]
    return Row((*prompt_ids, *response_ids), len(prompt_ids), trimmed)


def tokenize_group(
    tokenizer: PreTrainedTokenizerBase, group: RankedGroup, *, max_tokens: int | None = None
) -> tuple[Row, ...]:
    """One row per response of a group, best first. Raises what :func:`tokenize` raises."""
    return tuple(
        tokenize(tokenizer, group.prompt, response, max_tokens=max_tokens)
        for response in group.responses
    )


def pad(rows: Sequence[Row], pad_token_id: int) -> RowBatch:
    """Pad rows on the right to the longest.

    Padding follows every real token, so under causal attention no token sees it, and scores are
    read at indices computed from lengths, so it does not matter which id pads.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("cannot make a batch of no rows")
    longest = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        input_ids[place, : len(row.ids)] = torch.tensor(row.ids)
        attention_mask[place, : len(row.ids)] = 1
    return RowBatch(input_ids, attention_mask, torch.tensor([row.score_index for row in rows]))

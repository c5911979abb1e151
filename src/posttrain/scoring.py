"""Scores of groups that come one after the other, however many there are."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.dataset import Limits
from posttrain.preferences import RESPONSES, RankedGroup
from posttrain.reward_model import score
from posttrain.rows import Layout
from posttrain.tokenization import TokenizedGroup, TooLongError, tokenize_group

#: Groups that are tokenised and sorted by length together.
CHUNK = 1024


@dataclass(frozen=True)
class Scored:
    """A group with the scores of its responses.

    Attributes:
        group: The group.
        scores: Scores by response: ``edited`` where there is one, ``chosen``, ``rejected``.
    """

    group: RankedGroup
    scores: dict[str, float]


def limits_for(
    model: PreTrainedModel,
    layout: Layout,
    *,
    max_tokens: int | None = None,
    row_tokens: int | None = None,
    skip_too_long: bool = False,
) -> Limits:
    """How long groups may be, so that every row fits the model's context and the rows' limit.

    Args:
        model: The reward model.
        layout: How groups become rows.
        max_tokens: Most tokens of a prompt with one response; default the model's context.
        row_tokens: Most tokens of a row that several groups share.
        skip_too_long: See :class:`.dataset.Limits`.
    """
    context = model.config.get_text_config().max_position_embeddings
    longest = min(max_tokens or context, context)
    if layout.rows == "separate":
        return Limits(min(longest, row_tokens or longest), None, skip_too_long)
    # Restarting positions never exceed those of one response, however long the row is.
    row = context if layout.positions == "running" else None
    limits = [limit for limit in (row, row_tokens) if limit is not None]
    return Limits(longest, min(limits) if limits else None, skip_too_long)


def score_groups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Iterable[RankedGroup],
    layout: Layout,
    limits: Limits,
    *,
    batch_tokens: int = 8192,
    row_tokens: int | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Scored]:
    """Score groups in their order; a thousand at a time are in memory.

    Args:
        model: The reward model.
        tokenizer: Its tokenizer.
        groups: The groups, in any number.
        layout: How groups become rows.
        limits: See :func:`limits_for`.
        batch_tokens: Tokens of a forward pass, padding aside.
        row_tokens: Most tokens of a row that groups share; None gives each its own.
        counts: Filled with ``groups that are too long`` and ``trimmed prompts``.

    Raises:
        ValueError: As for :func:`.tokenization.tokenize_group`; a group that is too long is an
            error unless ``limits`` say otherwise.
    """
    counts = Counter() if counts is None else counts
    pad_token_id = tokenizer.pad_token_id
    assert isinstance(pad_token_id, int)

    def scored(some: list[TokenizedGroup]) -> Tensor:
        return score(
            model,
            some,
            pad_token_id=pad_token_id,
            layout=layout,
            batch_tokens=batch_tokens,
            row_tokens=row_tokens,
        )

    remaining = iter(groups)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        kept, tokens = [], []
        for group in chunk:
            try:
                found = tokenize_group(
                    tokenizer,
                    group,
                    max_tokens=limits.max_tokens,
                    max_row_tokens=limits.max_row_tokens,
                    keep_equal=True,
                )
            except TooLongError:
                if not limits.skip_too_long:
                    raise
                counts["groups that are too long"] += 1
                continue
            counts["trimmed prompts"] += found.trimmed > 0
            kept.append(group)
            tokens.append(found)
        if layout.rows == "separate":
            # Data that compare one response with many others hold it many times.
            rows = [
                TokenizedGroup(found.prompt, (response,))
                for found in tokens
                for response in found.responses
            ]
            distinct = list(dict.fromkeys(rows))
            place = {row: number for number, row in enumerate(distinct)}
            scores = scored(distinct)[[place[row] for row in rows]]
        else:
            scores = scored(tokens)
        by_group = scores.split([len(group.responses) for group in kept])
        for group, values in zip(kept, by_group, strict=True):
            names = RESPONSES[-len(group.responses) :]
            yield Scored(group, dict(zip(names, values.tolist(), strict=True)))

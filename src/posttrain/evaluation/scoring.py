"""Scores of groups that come one after the other, however many there are."""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import Message, RankedGroup
from posttrain.errors import UserError
from posttrain.models.architecture import context_length, vocabulary_size
from posttrain.models.reward_model import score
from posttrain.rows.layout import Layout
from posttrain.rows.rendering import altered_counts
from posttrain.rows.tokenization import (
    Limits,
    Responses,
    TokenizedGroup,
    TooLongError,
    UnreadableError,
    share_prompts,
    tokenize_apart,
    tokenize_group,
    tokenize_responses,
)

logger = logging.getLogger(__name__)

#: Groups that are tokenised and sorted by length together.
CHUNK = 1024
#: Responses to one prompt share a row up to so many tokens.
ROW_TOKENS = 2048


class Named(Responses, Protocol):
    """A prompt with responses that have names."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each response, such as ``chosen``."""
        ...


Group = TypeVar("Group", bound=Named)


@dataclass(frozen=True)
class Scored(Generic[Group]):
    """A group with the scores of its responses.

    Attributes:
        group: Ranked, or any prompt with responses.
        scores: Scores by the response's name: of ranked groups ``edited`` where there is one,
            ``chosen``, ``rejected``.
        trimmed: By response, how many tokens its prompt lost on the left to fit.
        parts: By name, the scores of the same responses that were combined to these.
    """

    group: Group
    scores: dict[str, float]
    trimmed: dict[str, int] = field(default_factory=dict)
    parts: Mapping[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """A reward model with all that it takes to score groups.

    Attributes:
        limits: See :func:`limits_for`.
        batch_tokens: Most tokens of a forward pass (see :func:`.reward_model.score`).
        pack_length: Most tokens of a row that groups share; None gives each its own.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    limits: Limits
    batch_tokens: int = 8192
    pack_length: int | None = None

    def tokenize(self, group: Responses) -> tuple[TokenizedGroup, ...] | str:
        """A group as this model reads it; or what it is, if the limits say to leave it out.

        Where responses do not see each other, none depends on how long another is.
        """
        try:
            if self.layout.is_exact:
                return tokenize_apart(self.tokenizer, group, self.limits)
            return (tokenize_group(self.tokenizer, group, self.limits, keep_equal=True),)
        except TooLongError as error:
            if self.limits.skip_too_long:
                return "groups that are too long"
            problem = f"{self.tokenizer.name_or_path}: {error.problem}"
            raise TooLongError(problem, error.remedy) from None
        except UnreadableError:
            if self.limits.skip_unreadable:
                return "records that the model cannot read"
            raise

    def score(self, groups: Sequence[Sequence[TokenizedGroup]]) -> list[list[float]]:
        """Scores by group, and then by rank, of what :meth:`tokenize` has returned."""
        parts = [part for group in groups for part in group]
        if self.layout.is_exact:
            # Data that compare one response with many others hold it many times.
            pieces = [(part.prompt, response) for part in parts for response in part.responses]
            single = self.layout.rows == "single"
            most = min(ROW_TOKENS, self.batch_tokens, self.pack_length or ROW_TOKENS)
            distinct = share_prompts(pieces, most if single else None)
            made = [(group.prompt, response) for group in distinct for response in group.responses]
            place = {piece: number for number, piece in enumerate(made)}
            values = self._score(distinct)[[place[piece] for piece in pieces]]
        else:
            values = self._score(parts)
        scores = iter(values.split([len(part.responses) for part in parts]))
        return [
            [value for _, value in sorted(
                pair for part in group
                for pair in zip(part.places, next(scores).tolist(), strict=True)
            )]
            for group in groups
        ]  # fmt: skip

    def _score(self, groups: Sequence[TokenizedGroup]) -> torch.Tensor:
        pad_token_id = self.tokenizer.pad_token_id
        assert isinstance(pad_token_id, int)
        return score(
            self.model,
            groups,
            pad_token_id=pad_token_id,
            layout=self.layout,
            batch_tokens=self.batch_tokens,
            pack_length=self.pack_length,
        )


def limits_for(
    model: PreTrainedModel,
    layout: Layout,
    *,
    max_tokens: int | None = None,
    pack_length: int | None = None,
    skip_too_long: bool = False,
) -> Limits:
    """How long groups may be, so that every row fits the model's context and the rows' limit.

    ``max_tokens`` is for a prompt with one response and defaults to the model's context;
    ``pack_length`` is for a row that several groups share. A model's skeleton is enough
    (:func:`.load_skeleton`).
    """
    context = context_length(model.config)
    limits = Limits(
        _least(max_tokens, context),
        None,
        skip_too_long,
        vocabulary=vocabulary_size(model),
        skipped_end=getattr(model, "stored_pad_token_id", None),
        context=context,
    )
    if layout.rows == "separate":
        return replace(limits, max_tokens=_least(limits.max_tokens, pack_length))
    # Restarting positions never exceed those of one response, however long the row is.
    row = context if layout.positions == "running" else None
    return replace(limits, max_row_tokens=_least(row, pack_length))


def _least(*limits: int | None) -> int | None:
    """The least of some limits; None is no limit."""
    return min((limit for limit in limits if limit is not None), default=None)


def score_groups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: Iterable[RankedGroup],
    layout: Layout,
    limits: Limits,
    *,
    batch_tokens: int = 8192,
    pack_length: int | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Scored[RankedGroup]]:
    """Score groups in their order; a thousand at a time are in memory.

    ``counts`` is filled with ``groups that are too long``, ``trimmed prompts`` and what the chat
    template leaves out (:func:`.altered_counts`); the other arguments are those of :class:`Scorer`.

    Raises:
        UserError: If a group cannot be tokenised (see :func:`.tokenize_group`), also for its length
            unless ``limits`` say otherwise, or a score is not finite.
    """
    scorer = Scorer(model, tokenizer, layout, limits, batch_tokens, pack_length)
    for group, trimmed, (scores,) in score_with([scorer], groups, counts=counts):
        yield Scored(group, scores, trimmed)


def score_with(
    scorers: Sequence[Scorer],
    groups: Iterable[Group],
    *,
    counts: Counter[str] | None = None,
) -> Iterator[tuple[Group, dict[str, int], tuple[dict[str, float], ...]]]:
    """Score groups with several models.

    Yields each group with the number of tokens that the prompt of each response lost (for the model
    that needs more room), and the scores by response of every model. Groups are read once, come in
    their order, and a thousand at a time are in memory. A group that one of the models cannot read
    is left out, and counted once. See :func:`score_groups`.
    """
    counts = Counter() if counts is None else counts
    remaining = iter(groups)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        fitting: list[Group] = []
        tokens: list[tuple[tuple[TokenizedGroup, ...], ...]] = []
        for group in chunk:
            by_scorer = [scorer.tokenize(group) for scorer in scorers]
            tokenized = tuple(parts for parts in by_scorer if not isinstance(parts, str))
            if len(tokenized) < len(scorers):
                counts[next(reason for reason in by_scorer if isinstance(reason, str))] += 1
                continue
            counts["trimmed prompts"] += any(part.trimmed for parts in tokenized for part in parts)
            _count_altered(counts, group, tokenized)
            fitting.append(group)
            tokens.append(tokenized)
        scores = []
        # Each model shuffles responses as it would alone; the last to go moves the random state on.
        for number, scorer in reversed(list(enumerate(scorers))):
            with torch.random.fork_rng(devices=[], enabled=number > 0):
                scores.append(scorer.score([tokenized[number] for tokenized in tokens]))
        for group, tokenized, *by_model in zip(fitting, tokens, *reversed(scores), strict=True):
            for scorer, values in zip(scorers, by_model, strict=True):
                check_finite(scorer, group, values)
            names = group.names
            trimmed = dict.fromkeys(names, 0)
            for part in itertools.chain.from_iterable(tokenized):
                for place in part.places:
                    trimmed[names[place]] = max(trimmed[names[place]], part.trimmed)
            by_name = tuple(dict(zip(names, values, strict=True)) for values in by_model)
            yield group, trimmed, by_name


def score_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[Sequence[str]],
    *,
    batch_tokens: int = 8192,
) -> list[np.ndarray]:
    """Scores of any number of responses to each prompt, in a row of their own each.

    A response that occurs several times is scored once.
    """
    assert isinstance(tokenizer.pad_token_id, int)
    distinct = [list(dict.fromkeys(texts)) for texts in responses]
    groups = [
        tokenize_responses(tokenizer, prompt, texts)
        for prompt, texts in zip(prompts, distinct, strict=True)
    ]
    values = score(model, groups, pad_token_id=tokenizer.pad_token_id, batch_tokens=batch_tokens)
    found = values.split([len(texts) for texts in distinct])
    by_text = [
        dict(zip(texts, scores.tolist(), strict=True))
        for texts, scores in zip(distinct, found, strict=True)
    ]
    return [
        np.array([known[text] for text in texts])
        for known, texts in zip(by_text, responses, strict=True)
    ]


def _count_altered(
    counts: Counter[str], group: Responses, tokenized: Sequence[Sequence[TokenizedGroup]]
) -> None:
    """Count what chat templates leave out, of the model whose template leaves out more."""
    found = Counter[str]()
    for parts in tokenized:
        found |= altered_counts(name for part in parts for name in part.altered)
    for what in found.keys() - counts.keys():
        logger.warning(
            "%s, such as of record %r: scores do not depend on them; they are counted at the end",
            what, group.id,
        )  # fmt: skip
    counts += found


def check_finite(scorer: Scorer, group: Responses, scores: Sequence[float]) -> None:
    """Refuse scores of a group that are not finite."""
    for value in scores:
        if not math.isfinite(value):
            raise UserError(
                f"{scorer.tokenizer.name_or_path} scores a response of record {group.id!r} as "
                f"{value}: its training has diverged or its precision overflows; take an earlier "
                "checkpoint of it, or score in float32 (--dtype float32)"
            )

"""Ranked groups as token ids: one prompt, and each response that may follow it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import Message, RankedGroup
from posttrain.errors import UserError


@dataclass(frozen=True)
class TokenizedGroup:
    """A prompt, up to where a response begins, and its responses, best first, as token ids.

    >>> group = TokenizedGroup(prompt=(1, 2, 3), responses=((4, 5), (6,)))
    >>> group.longest, group.total
    (5, 6)

    Attributes:
        trimmed: How many prompt tokens were cut off on the left to fit a limit.
        places: Index of each response in ``RankedGroup.responses``; by default 0, 1, ….
    """

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    trimmed: int = 0
    places: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompt or not self.responses or not all(self.responses):
            raise UserError(
                "a group needs a prompt and at least one response, of at least one token each"
            )
        if not self.places:
            object.__setattr__(self, "places", tuple(range(len(self.responses))))
        if len(self.places) != len(self.responses):
            raise UserError(
                f"{len(self.responses)} responses need as many places, not {len(self.places)}"
            )

    @property
    def longest(self) -> int:
        """Tokens of the prompt and the longest response: its longest separate row."""
        return len(self.prompt) + max(map(len, self.responses))

    @property
    def total(self) -> int:
        """Tokens of the prompt and all responses: its single row."""
        return len(self.prompt) + sum(map(len, self.responses))

    def in_order(self, order: Sequence[int]) -> "TokenizedGroup":
        """The same group with the responses of these indices, each at most once, in this order."""
        return replace(
            self,
            responses=tuple(self.responses[k] for k in order),
            places=tuple(self.places[k] for k in order),
        )


class TooLongError(UserError):
    """A group fits into a limit only with no token left of its prompt."""


class NoPairError(UserError):
    """Two responses became equal in tokens, and no pair is left."""


def tokenize_group(
    tokenizer: PreTrainedTokenizerBase,
    group: RankedGroup,
    *,
    max_tokens: int | None = None,
    max_row_tokens: int | None = None,
    keep_equal: bool = False,
) -> TokenizedGroup:
    """Tokenise a group through the tokenizer's chat template.

    Prompt and responses are tokenised apart, so that all responses share the prompt's tokens
    exactly. A group over a limit loses tokens on the left of its prompt, the same ones for every
    response, because a prompt cut more for longer responses would reveal their length. A response
    is never cut. Of responses that are equal in tokens, the rated one stays: chosen, then rejected,
    then edited.

    Args:
        tokenizer: Has a chat template, in which a prompt is a prefix of the whole conversation.
        group: The group.
        max_tokens: Most tokens of the prompt with the longest response; the model's context.
        max_row_tokens: Most tokens of the prompt with all responses; the room in a single row.
        keep_equal: Keep responses that are equal in tokens: they can be scored, if not ranked.

    Raises:
        TooLongError: If a limit leaves no token of the prompt.
        NoPairError: If fewer than two different responses are left.
    """
    whole = tokenize_responses(tokenizer, group.prompt, group.responses)
    prompt, ids = whole.prompt, whole.responses
    places = tuple(range(len(ids))) if keep_equal else _distinct(ids)
    if len(places) < 2:
        raise NoPairError(
            f"group {group.id!r}: its responses are equal in tokens, so there is nothing to rank; "
            "leave the group out"
        )
    responses = tuple(ids[place] for place in places)
    over = [0]
    for limit, name, needed, of in (
        (max_tokens, "max_tokens", max(map(len, responses)), "its longest response"),
        (max_row_tokens, "max_row_tokens", sum(map(len, responses)), "its responses together"),
    ):
        if limit is not None and needed >= limit:
            raise TooLongError(
                f"group {group.id!r} needs {needed} tokens for {of}, which leaves no room for a "
                f"prompt within {name}={limit}; raise {name} or leave the group out"
            )
        if limit is not None:
            over.append(len(prompt) + needed - limit)
    return TokenizedGroup(prompt[max(over) :], responses, max(over), places)


def tokenize_responses(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], responses: Sequence[str]
) -> TokenizedGroup:
    """Tokenise a prompt with any number of responses, which need not be ranked, or different."""
    head, tails = _render(tokenizer, prompt, responses)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head, *tails)]
    return TokenizedGroup(tuple(ids[0]), tuple(map(tuple, ids[1:])))


@dataclass(frozen=True)
class TokenizedSet:
    """Groups that could be tokenised, and an account of those that could not.

    Attributes:
        kept: Index of each in the input.
        counts: ``trimmed prompts``, ``dropped responses`` (equal in tokens to another one), and the
            skipped groups: ``too long``, ``no pair left``. Only what occurred.
    """

    groups: list[TokenizedGroup]
    kept: list[int]
    counts: dict[str, int]


def tokenize_groups(
    tokenizer: PreTrainedTokenizerBase,
    groups: Iterable[RankedGroup],
    *,
    max_tokens: int | None = None,
    max_row_tokens: int | None = None,
    skip_too_long: bool = False,
) -> TokenizedSet:
    """Tokenise groups (see :func:`tokenize_group`) and count what was cut, dropped or skipped.

    With ``skip_too_long``, groups whose responses exceed a limit are skipped; otherwise the first
    one raises :class:`TooLongError`.
    """
    counts: Counter[str] = Counter()
    tokenized_groups: list[TokenizedGroup] = []
    kept = []
    for index, group in enumerate(groups):
        try:
            tokenized = tokenize_group(
                tokenizer, group, max_tokens=max_tokens, max_row_tokens=max_row_tokens
            )
        except NoPairError:
            counts["no pair left"] += 1
            continue
        except TooLongError:
            if not skip_too_long:
                raise
            counts["too long"] += 1
            continue
        counts["trimmed prompts"] += tokenized.trimmed > 0
        counts["dropped responses"] += len(group.responses) - len(tokenized.responses)
        tokenized_groups.append(tokenized)
        kept.append(index)
    counts += Counter()  # drops what did not occur
    if not tokenized_groups:
        raise UserError(f"no group is left to work with; skipped: {dict(counts) or 'none given'}")
    return TokenizedSet(tokenized_groups, kept, dict(counts))


def _distinct(responses: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Places to keep, ascending; chosen wins over rejected, and both over edited."""
    by_ids: dict[tuple[int, ...], int] = {}
    for place in (len(responses) - 2, len(responses) - 1, *range(len(responses) - 2)):
        by_ids.setdefault(responses[place], place)
    return tuple(sorted(by_ids.values()))


def _render(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], responses: Sequence[str]
) -> tuple[str, list[str]]:
    """Text of the prompt, and what each response adds to it, in the tokenizer's chat format."""
    if tokenizer.chat_template is None:
        raise UserError(
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
            raise UserError(
                f"the chat template of {tokenizer.name_or_path!r} does not continue a prompt with "
                "its response: the prompt with add_generation_prompt=True must be a prefix of the "
                "whole"
            )
        tails.append(whole[len(head) :])
    return head, tails


@dataclass(frozen=True)
class Limits:
    """How long a group may be (see :func:`tokenize_group`).

    With ``skip_too_long``, groups whose responses exceed a limit are left out and counted;
    otherwise the first one is an error.
    """

    max_tokens: int | None = None
    max_row_tokens: int | None = None
    skip_too_long: bool = False


def tokenizer_hash(tokenizer: Any) -> str:
    """Changes with everything that decides how a conversation becomes token ids."""
    # Templates may name special tokens, such as eos_token, without spelling them out.
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    content = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, special]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()

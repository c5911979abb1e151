"""Ranked groups as token ids: one prompt, and each response that may follow it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import RESPONSES, Message, RankedGroup
from posttrain.errors import UserError
from posttrain.rows.limits import UNLIMITED, Limits, TooLongError, over, row_over
from posttrain.rows.rendering import Reading, altered_counts, read_responses


class Responses(Protocol):
    """A prompt with responses, which need not be ranked, and a name for messages."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Turns up to the last user turn."""
        ...

    @property
    def responses(self) -> tuple[str, ...]:
        """At least one."""
        ...


@dataclass(frozen=True)
class TokenizedGroup:
    """A prompt, up to where a response begins, and its responses, best first, as token ids.

    >>> group = TokenizedGroup(prompt=(1, 2, 3), responses=((4, 5), (6,)))
    >>> group.longest, group.total
    (5, 6)

    Attributes:
        trimmed: How many prompt tokens were cut off on the left to fit a limit.
        places: Index of each response in ``RankedGroup.responses``; by default 0, 1, ….
        altered: Parts that the chat template leaves out or rewrites (see :class:`.Reading`).
    """

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    trimmed: int = 0
    places: tuple[int, ...] = ()
    altered: tuple[str, ...] = field(default=(), compare=False)

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


class UnreadableError(UserError):
    """A record that a model cannot read, such as one that its chat template refuses."""


class NoPairError(UserError):
    """Two responses became equal in tokens, and no pair is left."""


def tokenize_group(
    tokenizer: PreTrainedTokenizerBase,
    group: Responses,
    limits: Limits = UNLIMITED,
    *,
    keep_equal: bool = False,
) -> TokenizedGroup:
    """Tokenise a group whose responses share all of a prompt, or what is left of it.

    Prompt and responses are those of the whole conversation (see :func:`.read_responses`), split
    where all responses share the prompt's tokens. A group over a limit loses tokens on the left of
    its prompt, the same ones for every response, because a prompt cut more for longer responses
    would reveal their length. A response is never cut. Of responses that are equal in tokens, the
    rated one stays: chosen, then rejected, then edited; with ``keep_equal`` all do.

    Raises:
        UnreadableError: See :func:`.read_responses`.
        TooLongError: If a limit leaves no token of the prompt.
        NoPairError: If fewer than two different responses are left.
    """
    reading = _read(tokenizer, group, limits)
    places = tuple(range(len(reading.rows))) if keep_equal else _distinct(reading.rows)
    if len(places) < 2 and not keep_equal:  # one alone is scored, if not ranked
        raise NoPairError(
            f"group {group.id!r}: its responses are equal in tokens, so there is nothing to rank; "
            "leave the group out"
        )
    return fit(group, _split(reading, places), limits)


def fit(group: Responses, whole: TokenizedGroup, limits: Limits) -> TokenizedGroup:
    """A tokenised group with as much of its prompt as limits leave; see :func:`tokenize_group`.

    Raises:
        TooLongError: If they leave no token of it.
    """
    prompt, needed = len(whole.prompt), [len(response) for response in whole.responses]
    longest = max(needed)
    what = _name(group, whole.places[needed.index(longest)])
    trimmed = max(
        over(what, prompt, longest, limits.max_tokens, limits.context),
        row_over(group.id, prompt, sum(needed), limits.max_row_tokens),
    )
    return _trim(whole, trimmed)


def tokenize_apart(
    tokenizer: PreTrainedTokenizerBase, group: Responses, limits: Limits
) -> tuple[TokenizedGroup, ...]:
    """Tokenise a group so that a response's score depends on its prompt and itself alone.

    Each response loses as much of its prompt as it needs to fit ``max_tokens``, whatever the others
    need. Responses to the same rest of the prompt share it, as far as ``max_row_tokens`` allows.

    Returns:
        Groups whose ``places`` together are those of all responses.

    Raises:
        UnreadableError, TooLongError: As for :func:`tokenize_group`.
    """
    reading = _read(tokenizer, group, limits)
    room = limits.max_row_tokens
    longest = min((limit for limit in (limits.max_tokens, room) if limit is not None), default=None)
    alike: dict[int, list[int]] = {}
    for place, (row, end) in enumerate(zip(reading.rows, reading.ends, strict=True)):
        what = _name(group, place)
        trimmed = over(what, end, len(row) - end, longest, limits.context)
        alike.setdefault(trimmed, []).append(place)
    apart: list[TokenizedGroup] = []
    for trimmed, places in alike.items():
        shared = _trim(_split(reading, places), trimmed)
        if room is None or shared.total <= room:
            apart.append(shared)
        else:
            apart += [_trim(_split(reading, [place]), trimmed) for place in places]
    # What the template leaves out is counted once.
    return (apart[0], *(replace(group, altered=()) for group in apart[1:]))


def tokenize_responses(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], responses: Sequence[str]
) -> TokenizedGroup:
    """Tokenise a prompt with any number of responses, which need not be ranked, or different."""
    reading = read_responses(tokenizer, prompt, responses)
    return _split(reading, range(len(responses)))


def share_prompts(
    pieces: Iterable[tuple[tuple[int, ...], tuple[int, ...]]], row_tokens: int | None
) -> list[TokenizedGroup]:
    """Each distinct response to a prompt once, those to one prompt together.

    Args:
        pieces: Prompts with a response each, in any order, and as often as they come.
        row_tokens: Most tokens of a prompt with responses that share it; a single one may have
            more. None: every response alone.

    Returns:
        Groups of ascending size. Their responses are not ranked.

    >>> pieces = [((1,), (2,)), ((1,), (3, 4)), ((1,), (2,)), ((5,), (2,))]
    >>> [(group.prompt, group.responses) for group in share_prompts(pieces, row_tokens=9)]
    [((5,), ((2,),)), ((1,), ((2,), (3, 4)))]
    """
    groups: list[TokenizedGroup] = []
    for prompt, response in sorted(set(pieces)):
        last = groups[-1] if groups and groups[-1].prompt == prompt else None
        if last and row_tokens is not None and last.total + len(response) <= row_tokens:
            groups[-1] = TokenizedGroup(prompt, (*last.responses, response))
        else:
            groups.append(TokenizedGroup(prompt, (response,)))
    return sorted(groups, key=lambda group: group.total)


@dataclass(frozen=True)
class TokenizedSet:
    """Groups that could be tokenised, and an account of those that could not.

    Attributes:
        kept: Index of each in the input.
        counts: ``trimmed prompts``, ``dropped responses`` (equal in tokens to another one), what
            the chat template leaves out (:func:`.altered_counts`), and the skipped groups:
            ``too long``, ``no pair left``. Only what occurred.
    """

    groups: list[TokenizedGroup]
    kept: list[int]
    counts: dict[str, int]


def tokenize_groups(
    tokenizer: PreTrainedTokenizerBase,
    groups: Iterable[RankedGroup],
    limits: Limits = UNLIMITED,
) -> TokenizedSet:
    """Tokenise groups (see :func:`tokenize_group`) and count what was cut, dropped or skipped."""
    counts: Counter[str] = Counter()
    tokenized_groups: list[TokenizedGroup] = []
    kept = []
    for index, group in enumerate(groups):
        try:
            tokenized = tokenize_group(tokenizer, group, limits)
        except NoPairError:
            counts["no pair left"] += 1
            continue
        except TooLongError:
            if not limits.skip_too_long:
                raise
            counts["too long"] += 1
            continue
        counts["trimmed prompts"] += tokenized.trimmed > 0
        counts["dropped responses"] += len(group.responses) - len(tokenized.responses)
        counts += altered_counts(tokenized.altered)
        tokenized_groups.append(tokenized)
        kept.append(index)
    counts += Counter()  # drops what did not occur
    if not tokenized_groups:
        raise UserError(f"no group is left to work with; skipped: {dict(counts) or 'none given'}")
    return TokenizedSet(tokenized_groups, kept, dict(counts))


def _read(tokenizer: PreTrainedTokenizerBase, group: Responses, limits: Limits) -> Reading:
    try:
        return read_responses(
            tokenizer,
            group.prompt,
            group.responses,
            skipped_end=limits.skipped_end,
            vocabulary=limits.vocabulary,
        )
    except UserError as error:
        raise UnreadableError(
            f"record {group.id!r}: {error}; or leave such records out (--skip_bad)"
        ) from error


def _split(reading: Reading, places: Sequence[int]) -> TokenizedGroup:
    """Some responses, and as much of the prompt as they share."""
    end = min(reading.ends[place] for place in places)
    rows = [reading.rows[place] for place in places]
    return TokenizedGroup(
        rows[0][:end], tuple(row[end:] for row in rows), 0, tuple(places), reading.altered
    )


def _name(group: Responses, place: int) -> str:
    """A response as messages call it."""
    if isinstance(group, RankedGroup):
        response = f"{RESPONSES[place - len(group.responses)]} response"
    else:
        response = f"response {place + 1}"
    return f"record {group.id!r}: its {response}"


def _trim(group: TokenizedGroup, trimmed: int) -> TokenizedGroup:
    return replace(group, prompt=group.prompt[trimmed:], trimmed=trimmed)


def _distinct(responses: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Places to keep, ascending; chosen wins over rejected, and both over edited."""
    by_ids: dict[tuple[int, ...], int] = {}
    for place in (len(responses) - 2, len(responses) - 1, *range(len(responses) - 2)):
        by_ids.setdefault(responses[place], place)
    return tuple(sorted(by_ids.values()))

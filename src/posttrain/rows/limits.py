"""How long groups may be, and how much of a prompt a limit leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.errors import UserError

#: Where errors about lengths send people.
_SHOWN = "posttrain data check FILE --model NAME shows what limits cut and leave out"


class TooLongError(UserError):
    """A group fits into a limit only with no token left of its prompt.

    Attributes:
        problem: Which group, how long it is, and what the limit is.
        remedy: What its owner can do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        # Both go to the base class so that the error survives pickling between workers.
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"

    def among(self, count: int, records: int, sources: Sequence[str] = ()) -> "TooLongError":
        """The same error as the first of so many ``records``, from where they were read."""
        place = f"{', '.join(sources)}, " if sources else ""
        return TooLongError(
            f"{place}{self.problem}; too long: {count:,} of {records:,} records", self.remedy
        )


@dataclass(frozen=True)
class Limits:
    """What a model can read, and how long a group may be.

    Attributes:
        max_tokens: Most tokens of the prompt with one response.
        max_row_tokens: Most tokens of the prompt with all responses; the room in a single row.
        skip_too_long: Groups whose responses exceed a limit are left out and counted; otherwise the
            first one is an error.
        vocabulary: How many ids the model has an embedding for.
        skip_unreadable: Records that the model cannot read are left out and counted; otherwise the
            first one is an error.
        skipped_end: Id that stock classes skip at the end of a row (see :func:`.read_responses`).
        context: How far ``max_tokens`` can be raised, for messages: the model's context, or what
            training allows (:func:`.within_boundary`).
    """

    max_tokens: int | None = None
    max_row_tokens: int | None = None
    skip_too_long: bool = False
    vocabulary: int | None = None
    skipped_end: int | None = None
    skip_unreadable: bool = False
    context: int | None = None


UNLIMITED = Limits()


def over(what: str, prompt: int, response: int, limit: int | None, context: int | None) -> int:
    """How many tokens a prompt loses so that a response of so many fits with it into a limit.

    ``what`` names the record and the response in messages; ``context`` is that of :class:`Limits`.

    >>> over("record 'a': its chosen response", 70, 40, limit=100, context=None)
    10

    Raises:
        TooLongError: If no token of the prompt is left.
    """
    if limit is None:
        return 0
    if response < limit:
        return max(0, prompt + response - limit)
    if context is not None and response >= context:
        raised = f"; no limit helps, for the model takes {context:,} tokens at most"
    else:
        most = "" if context is None else f" (the model takes {context:,} at most)"
        raised = (
            f", or raise --max_tokens, and --pack_length if it is set, above {response:,}{most}"
        )
    raise TooLongError(
        f"{what} has {response:,} tokens, which leaves no room for its prompt within the limit of "
        f"{limit:,} (max_tokens)",
        f"leave such groups out (--skip_too_long){raised}; {_SHOWN}",
    )


def row_over(name: str, prompt: int, responses: int, limit: int | None) -> int:
    """How many tokens a prompt loses so that all responses fit with it into the room of a row.

    Raises:
        TooLongError: If no token of the prompt is left.
    """
    if limit is None:
        return 0
    if responses < limit:
        return max(0, prompt + responses - limit)
    raise TooLongError(
        f"record {name!r}: its responses together have {responses:,} tokens, which leaves no room "
        f"for its prompt in a row of {limit:,} (max_row_tokens)",
        "leave such groups out (--skip_too_long), take --layout separate, or raise --pack_length, "
        f"if it is set, above {responses:,}; {_SHOWN}",
    )

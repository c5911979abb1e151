"""What a model would read of preference data: the figures of ``posttrain data check --model``."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import RankedGroup
from posttrain.rows.limits import Limits, TooLongError
from posttrain.rows.rendering import altered_counts
from posttrain.rows.tokenization import NoPairError, UnreadableError, fit, tokenize_group

#: How many records are named that cannot be read, and how many that are too long.
UNREADABLE_LISTED, TOO_LONG_LISTED = 20, 5
UNREADABLE = "records that cannot be read"
SHARES = (0.5, 0.9, 0.99, 1.0)


def _numbers() -> "array[int]":
    return array("I")


@dataclass(frozen=True)
class Cut:
    """What a limit does to records.

    Attributes:
        trimmed: Records whose prompt is cut on the left.
        lost: Tokens that those prompts lose together.
        too_long: Records of which a response alone leaves no room for its prompt.
    """

    trimmed: int
    lost: int
    too_long: int


@dataclass
class TokenFigures:
    """Figures of the records that were added, of which a number for each text stays in memory.

    Responses that equal another one of their record in tokens are left out, as in training.

    Attributes:
        prompts: Tokens of the prompt of each record.
        longest: Tokens of its longest response.
        rows: Tokens of its prompt with all its responses, which share a row in layout ``exact``.
        responses: Tokens of each response.
        counts: Numbers of what a model would not read as it stands, by what it is.
        unreadable: Why the first records that it cannot read at all cannot be read.
        too_long: What the first records are that exceed the limit that was given.
    """

    prompts: "array[int]" = field(default_factory=_numbers)
    longest: "array[int]" = field(default_factory=_numbers)
    rows: "array[int]" = field(default_factory=_numbers)
    responses: "array[int]" = field(default_factory=_numbers)
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)

    def add(self, group: RankedGroup, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        """Tokenise a record, and keep how long it is and what training would leave out of it."""
        whole = replace(limits, max_tokens=None, max_row_tokens=None)
        try:
            tokens = tokenize_group(tokenizer, group, whole)
        except NoPairError:
            self.counts["records whose responses are equal in tokens, left out"] += 1
            return
        except UnreadableError as error:
            self.counts[UNREADABLE] += 1
            if len(self.unreadable) < UNREADABLE_LISTED:
                self.unreadable.append(str(error))
            return
        lengths = [len(response) for response in tokens.responses]
        self.prompts.append(len(tokens.prompt))
        self.longest.append(max(lengths))
        self.rows.append(tokens.total)
        self.responses.extend(lengths)
        equal = len(group.responses) - len(lengths)
        self.counts["responses that equal another one in tokens, left out"] += equal
        self.counts += altered_counts(tokens.altered)
        if len(self.too_long) < TOO_LONG_LISTED:
            try:
                fit(group, tokens, limits)
            except TooLongError as error:
                self.too_long.append(error.problem)

    @property
    def needed(self) -> np.ndarray:
        """Tokens of each prompt with its longest response, which ``max_tokens`` limits."""
        return np.add(self.prompts, self.longest, dtype=np.int64)

    def at(self, max_tokens: int | None) -> Cut:
        """What training would cut and leave out with this limit."""
        if max_tokens is None:
            return Cut(0, 0, 0)
        too_long = np.greater_equal(self.longest, max_tokens)
        lost = np.maximum(self.needed - max_tokens, 0)[~too_long]
        return Cut(int(np.count_nonzero(lost)), int(lost.sum()), int(too_long.sum()))


def quantiles(numbers: Sequence[int] | np.ndarray) -> list[int]:
    """The least numbers that 50, 90, 99 and 100 % of some do not exceed.

    >>> quantiles(range(1, 201))
    [100, 180, 198, 200]
    """
    return np.quantile(numbers, SHARES, method="inverted_cdf").astype(int).tolist()

"""What a model would read of preference data: the figures of ``posttrain data check --model``."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError
from posttrain.rows.rendering import altered_counts
from posttrain.rows.tokenization import Limits, TooLongError, tokenize_apart

LISTED = 20
UNREADABLE = "records that cannot be read"


@dataclass
class TokenFigures:
    """Figures of the records that were added, of which numbers stay in memory.

    Attributes:
        lengths: Tokens of each response with its whole prompt.
        counts: Numbers of what a model would not read as it stands, by what it is.
        refused: Why the first records that it cannot read at all cannot be read.
    """

    lengths: "array[int]" = field(default_factory=lambda: array("L"))
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    @property
    def unreadable(self) -> int:
        """How many records cannot be read at all."""
        return self.counts[UNREADABLE]

    def add(self, group: RankedGroup, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        """Tokenise a record and count what would be cut, is equal, or left out."""
        try:
            parts = tokenize_apart(tokenizer, group, limits)
        except TooLongError:
            self.counts["records with a response that is too long"] += 1
            return
        except UserError as error:
            self.counts[UNREADABLE] += 1
            if len(self.refused) < LISTED:
                self.refused.append(str(error))
            return
        rows = [
            (part.trimmed + len(part.prompt) + len(response), part.prompt + response)
            for part in parts
            for response in part.responses
        ]
        self.lengths.extend(length for length, _ in rows)
        self.counts["responses whose prompt is cut on the left"] += sum(
            len(part.responses) for part in parts if part.trimmed
        )
        self.counts["responses that equal another one in tokens"] += len(rows) - len(set(rows))
        self.counts += altered_counts(name for part in parts for name in part.altered)

    def __str__(self) -> str:
        """A line for the terminal."""
        counts = ", ".join(f"{number:,} {what}" for what, number in (+self.counts).items())
        if not self.lengths:
            return f"no record can be read; {counts or 'there is none'}"
        median, most = np.percentile(self.lengths, [50, 95])
        return (
            f"tokens of a prompt with a response: median {median:,.0f}, 95 % have at most "
            f"{most:,.0f}, longest {max(self.lengths):,}; {counts or 'all texts are read whole'}"
        )

"""What reading did not use, or read otherwise than it stands: named once, each with its count."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger

LISTED = 10


@dataclass
class Notes:
    """Numbers of rows by what was noticed while they were read.

    Attributes:
        columns: By column that is no part of the data contract.
        fields: By field of a chat message, beside role and content, that holds something.
        readings: By what was read otherwise than it stands, or looks as if it should be.
        comparisons: Not of rows: numbers of comparisons in records with `responses`, by what became
            of them.

    >>> notes = Notes()
    >>> notes.add_row(Notes(fields=Counter(["tool_calls", "tool_calls"])))
    >>> notes.add_row(Notes(readings=Counter(["a text spells out messages"])))
    >>> notes.lines()
    ['message fields that are not used: tool_calls 1', 'a text spells out messages: 1']
    """

    columns: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    readings: Counter[str] = field(default_factory=Counter)
    comparisons: Counter[str] = field(default_factory=Counter)

    def add_row(self, row: Notes) -> None:
        """Count a row, in which each thing but a comparison counts once."""
        for counts, found in self._beside(row):
            if found:  # of most rows there is nothing to say
                counts.update(set(found))
        self.comparisons.update(row.comparisons)

    def add(self, other: Notes) -> None:
        """Count what was noted elsewhere."""
        for counts, found in self._beside(other):
            counts.update(found)
        self.comparisons.update(other.comparisons)

    def _beside(self, other: Notes) -> list[tuple[Counter[str], Counter[str]]]:
        return [
            (self.columns, other.columns),
            (self.fields, other.fields),
            (self.readings, other.readings),
        ]

    def lines(self, *, columns: bool = True) -> list[str]:
        """Lines for all columns, if wanted, all fields, each reading, and all comparisons."""
        found = []
        if columns and self.columns:
            found.append(f"columns that are not used: {listed(self.columns, LISTED)}")
        if self.fields:
            found.append(f"message fields that are not used: {listed(self.fields, LISTED)}")
        found += [f"{what}: {count:,}" for what, count in _ordered(self.readings)]
        if self.comparisons:
            found.append(f"comparisons in records with responses: {listed(self.comparisons)}")
        return found

    def warn(self, logger: Logger, sources: Sequence[str]) -> None:
        """Log one warning, if there is anything to say, with numbers of rows."""
        if lines := self.lines():
            logger.warning("%s (numbers of rows): %s", ", ".join(sources), "; ".join(lines))

    def to_json(self) -> dict[str, dict[str, int]]:
        """As JSON has it, in order."""
        # Not asdict, which makes a Counter of the pairs of a Counter.
        counters = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {name: dict(sorted(counts.items())) for name, counts in counters.items()}

    @classmethod
    def from_json(cls, found: Mapping[str, Mapping[str, int]]) -> Notes:
        """What :meth:`to_json` gave."""
        return cls(**{name: Counter(counts) for name, counts in found.items()})


def listed(counts: Counter[str], most: int | None = None) -> str:
    """Names with their counts, the most frequent first."""
    shown = [f"{name} {count:,}" for name, count in _ordered(counts)]
    rest = len(shown) - most if most is not None else 0
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

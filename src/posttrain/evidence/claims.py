"""What a claim is, and how run records judge it.

A claim is judged on every run record that can speak to it. The test computes one quantity with a
95 % interval and compares it with a smallest effect that matters, so that a verdict of *not
supported* means more than a wide interval:

- *supported*: the interval lies beyond zero on the claimed side;
- *not supported*: the interval excludes an effect as large as ``smallest``, the paper's own effect
  where it gives one;
- *inconclusive*: neither.

Over several records a claim is *supported* if one supports it and none speaks against it, *not
supported* if one speaks against it and none supports it, and otherwise *inconclusive*.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from posttrain.evidence.records import Record

Status = Literal["supported", "not supported", "inconclusive"]


@dataclass(frozen=True)
class Evidence:
    """What one record says about one claim.

    Attributes:
        record: Name of the record.
        estimate: The quantity, positive in the claimed direction.
        low: Lower end of its 95 % interval; for speeds, the least over rounds.
        high: Upper end.
        smallest: Smallest effect that matters.
        measured: What was measured, with its interval, where the quantity above is its distance
            from a bound; readers are shown this. None where they are the same.
    """

    record: str
    estimate: float
    low: float
    high: float
    smallest: float
    measured: tuple[float, float, float] | None = None

    @property
    def shown(self) -> tuple[float, float, float]:
        """What readers see: the measured quantity with its interval."""
        return self.measured or (self.estimate, self.low, self.high)

    @property
    def status(self) -> Status:
        """What the interval says (see the module's docstring)."""
        if self.low > 0:
            return "supported"
        return "not supported" if self.high < self.smallest else "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A claim and its test.

    Attributes:
        key: Short name.
        source: Paper and place.
        statement: What it says, paraphrased.
        paper: The paper's own numbers, or what takes their place.
        quantity: What the test measures, in words; and when that supports the claim, unless it is
            by being positive.
        study: Whose records can judge it.
        test: Evidence from one record.
        ours: Whether it is this book's own inference rather than a paper's statement.
        unit: ``points``: the quantity is a share, shown in percentage points; ``plain``: shown as
            it is.
        applies: Whether a record of the study holds what the test needs; by default all do.
    """

    key: str
    source: str
    statement: str
    paper: str
    quantity: str
    study: str
    test: Callable[[Record], Evidence]
    ours: bool = False
    unit: Literal["points", "plain"] = "points"
    applies: Callable[[Record], bool] = lambda record: True

    def judged_by(self, records: Sequence[Record]) -> list[Record]:
        """Those records that can speak to the claim."""
        return [r for r in records if r.study == self.study and self.applies(r)]

    def judge(self, records: Sequence[Record]) -> tuple[Status, list[Evidence]]:
        """Overall status, and the evidence of each record.

        Raises:
            ValueError: If no record belongs to the claim's study.
        """
        evidence = [self.test(record) for record in self.judged_by(records)]
        if not evidence:
            raise ValueError(f"no record of study {self.study!r} to judge claim {self.key!r} by")
        return combine([item.status for item in evidence]), evidence


def combine(statuses: Sequence[Status]) -> Status:
    """Status over several records; records that disagree leave a claim inconclusive."""
    decided = set(statuses) - {"inconclusive"}
    return decided.pop() if len(decided) == 1 else "inconclusive"


def estimate(table: pd.DataFrame, **where: object) -> tuple[float, float, float]:
    """Estimate and interval of the one row of a tidy table that matches.

    Raises:
        ValueError: If not exactly one row matches.
    """
    matching = table
    for column, value in where.items():
        matching = matching[matching[column] == value]
    if len(matching) != 1:
        raise ValueError(f"expected one row with {where}, found {len(matching)}")
    row = matching.iloc[0]
    return float(row["estimate"]), float(row["low"]), float(row["high"])

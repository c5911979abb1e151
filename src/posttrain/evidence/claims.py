"""What a claim is, and how run records judge it.

A claim is judged on every run record that can speak to it. The test computes one quantity with a
95 % interval and compares it with a smallest effect that matters, so that a verdict of *not
supported* means more than a wide interval:

- *supported*: the interval lies beyond zero on the claimed side;
- *not supported*: otherwise, the interval excludes an effect as large as ``smallest``, the paper's
  own effect where it gives one;
- *inconclusive*: neither.

Over several records a claim is *supported* if one supports it and none speaks against it, *not
supported* if one speaks against it and none supports it, and otherwise *inconclusive*.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from posttrain.evidence.records import Record

Status = Literal["supported", "not supported", "inconclusive"]
#: An estimate, and the lower and upper end of its interval.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Evidence:
    """What one record says about one claim: an estimate, positive in the claimed direction.

    Attributes:
        low: Lower end of its 95 % interval; for speeds, the least over rounds.
        smallest: Smallest effect that matters.
        measured: What was measured, with its interval, where the estimate is its distance from a
            bound; readers are shown this. None where they are the same.
    """

    record: str
    estimate: float
    low: float
    high: float
    smallest: float
    measured: Interval | None = None

    @property
    def shown(self) -> Interval:
        """What readers see: the measured quantity with its interval."""
        return self.measured or (self.estimate, self.low, self.high)

    @property
    def status(self) -> Status:
        """What the interval says (see the module's docstring)."""
        if self.low > 0:
            return "supported"
        return "not supported" if self.high < self.smallest else "inconclusive"


@dataclass(frozen=True)
class Row:
    """Where in a record one number with its interval stands: one row of one tidy table.

    Made by :func:`row`. ``-row`` reads the same row with the other sign.

    Attributes:
        where: What the row holds in some columns; a function is asked what that is in a record.
        exact: Column of the number, where the table has no interval.
        sign: 1 or -1.
    """

    table: str
    where: Mapping[str, object]
    exact: str | None = None
    sign: int = 1

    def __neg__(self) -> "Row":
        return replace(self, sign=-self.sign)

    def place(self, record: Record) -> dict[str, object]:
        """What the row holds in a record, by column."""
        return {
            column: value(record) if callable(value) else value
            for column, value in self.where.items()
        }

    def read(self, record: Record) -> Interval:
        """The number of a record, in which exactly one row must match."""
        table = record.tables[self.table]
        if self.exact is not None:
            number = table[self.exact]
            table = table.assign(estimate=number, low=number, high=number)
        value, low, high = estimate(table, **self.place(record))
        return (value, low, high) if self.sign > 0 else (-value, -high, -low)


def row(table: str, *, exact: str | None = None, **where: object) -> Row:
    """The row of a table whose columns hold what is said; for the arguments see :class:`Row`.

    >>> row("gains", loss="large", size=1000)
    Row(table='gains', where={'loss': 'large', 'size': 1000}, exact=None, sign=1)
    """
    return Row(table, where, exact)


@dataclass(frozen=True)
class ClaimTest:
    """How a record judges a claim: the rows read, what makes them into evidence, and the rule."""

    rows: tuple[Row, ...]
    evidence: Callable[[Record], Evidence]
    rule: str = "see the function that judges"

    def __call__(self, record: Record) -> Evidence:
        """Evidence from a record."""
        return self.evidence(record)


def gain(row: Row, smallest: float, *, over: float = 0.0) -> ClaimTest:
    """A quantity is positive, or more than ``over``; a gain of ``smallest`` would matter."""

    def evidence(record: Record) -> Evidence:
        value, low, high = row.read(record)
        return Evidence(record.name, value - over, low - over, high - over, smallest)

    return ClaimTest((row,), evidence, f"above {over:g}")


def above(row: Row, bound: float) -> ClaimTest:
    """A quantity lies above a bound; readers see the quantity."""

    def evidence(record: Record) -> Evidence:
        found = value, low, high = row.read(record)
        room = value - bound, low - bound, high - bound
        return Evidence(record.name, *room, 0.0, measured=found)

    return ClaimTest((row,), evidence, f"above {bound:g}")


def below(row: Row, bound: float, smallest: float = 0.0) -> ClaimTest:
    """A quantity lies below a bound; readers see the quantity."""

    def evidence(record: Record) -> Evidence:
        found = value, low, high = row.read(record)
        room = bound - value, bound - high, bound - low
        return Evidence(record.name, *room, smallest, measured=found)

    return ClaimTest((row,), evidence, f"below {bound:g}")


def within(row: Row, bound: float | Callable[[Record], float]) -> ClaimTest:
    """A quantity lies less than a bound away from zero, on either side; readers see the quantity.

    The bound is a number, or what gives that of a record.
    """

    def evidence(record: Record) -> Evidence:
        found = row.read(record)
        room = distance_within(found, bound(record) if callable(bound) else bound)
        return Evidence(record.name, *room, 0.0, measured=found)

    limit = "a bound that depends on the record" if callable(bound) else f"{bound:g}"
    return ClaimTest((row,), evidence, f"less than {limit} away from 0")


def distance_within(values: Interval, bound: float) -> Interval:
    """How far the size of a quantity stays below a bound.

    >>> distance_within((1.0, -1.0, 3.0), 4.0)
    (3.0, 1.0, 4.0)
    """
    value, low, high = values
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return bound - abs(value), bound - max(abs(low), abs(high)), bound - nearest


def holds(table: str, column: str, *values: object) -> Callable[[Record], bool]:
    """Whether a column of a record's table has all of some values; for :attr:`Claim.applies`."""
    return lambda record: set(values) <= set(record.tables[table][column])


def _place() -> tuple[str, int]:
    """Module and line of whoever makes a :class:`Claim`: behind this function and ``__init__``."""
    caller = sys._getframe(2)
    return caller.f_globals["__name__"], caller.f_lineno


@dataclass(frozen=True)
class Claim:
    """A claim and its test.

    Attributes:
        key: Short name, its own among all claims.
        source: Paper and place.
        statement: What it says, paraphrased.
        paper: The paper's own numbers, or what takes their place.
        quantity: What the test measures, in words; and when that supports the claim, unless it is
            by being positive.
        study: Whose records can judge it.
        ours: Whether it is this book's own inference rather than a paper's statement.
        unit: ``points``: the quantity is a share, shown in percentage points; ``plain``: as it is.
        applies: Whether a record of the study holds what the test needs; by default all do.
        place: Module and line where the claim is written down.
    """

    key: str
    source: str
    statement: str
    paper: str
    quantity: str
    study: str
    test: ClaimTest
    ours: bool = False
    unit: Literal["points", "plain"] = "points"
    applies: Callable[[Record], bool] = lambda record: True
    place: tuple[str, int] = field(default_factory=_place, compare=False, repr=False)

    @property
    def path(self) -> str:
        """File of the claim in the project."""
        return f"src/{self.place[0].replace('.', '/')}.py"

    def judged_by(self, records: Sequence[Record]) -> list[Record]:
        """Those records that can speak to the claim."""
        return [r for r in records if r.study == self.study and self.applies(r)]

    def judge(self, records: Sequence[Record]) -> tuple[Status, list[Evidence]]:
        """Overall status, and the evidence of each record; at least one must fit the study."""
        evidence = [self.test(record) for record in self.judged_by(records)]
        if not evidence:
            raise ValueError(f"no record of study {self.study!r} to judge claim {self.key!r} by")
        return combine([item.status for item in evidence]), evidence


def combine(statuses: Sequence[Status]) -> Status:
    """Status over several records; records that disagree leave a claim inconclusive."""
    decided = set(statuses) - {"inconclusive"}
    return decided.pop() if len(decided) == 1 else "inconclusive"


def estimate(table: pd.DataFrame, **where: object) -> Interval:
    """Estimate and interval of the one row of a tidy table that matches."""
    matching = table
    for column, value in where.items():
        matching = matching[matching[column] == value]
    if len(matching) != 1:
        raise ValueError(f"expected one row with {where}, found {len(matching)}")
    row = matching.iloc[0]
    return float(row["estimate"]), float(row["low"]), float(row["high"])

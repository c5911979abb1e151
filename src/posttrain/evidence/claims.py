"""What a claim is, and the rule by which a measured quantity supports it.

A claim names one quantity in the records of a study, and what it says of it:

- :func:`gain`: it is positive, and by an amount that matters, ``smallest``;
- :func:`no_worse`: it is not below zero by as much as a ``margin`` that would matter;
- :func:`above` and :func:`below`: it lies on one side of a bound;
- :func:`within`: it lies less than a bound away from zero, on either side.

How the records of all sources are put together is in :mod:`.evidence.judging`.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from posttrain.evidence.pooling import LEVEL, Effect
from posttrain.evidence.records import Record

Verdict = Literal[
    "holds here", "too small to matter", "ruled out here", "cannot tell", "uninformative"
]
#: An estimate, and the lower and upper end of its interval.
Interval = tuple[float, float, float]


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
class Rule:
    """What a claim says of a quantity; made by :func:`gain` and its like.

    Attributes:
        row: The quantity.
        direction: 1 where the claim is that it is large, -1 where it is that it is small.
        bound: What it is said to lie beyond, or within on either side.
        equivalence: Whether it is said to lie within the bound.
        smallest: How far beyond the bound is far enough to matter; 0 where the bound itself is
            what matters.
        visible: The effect that a source must be able to see, lest it be called coarse.
    """

    row: Row
    direction: int = 1
    bound: float | Callable[[Record], float] = 0.0
    equivalence: bool = False
    smallest: float = 0.0
    visible: float = 0.0

    @property
    def of_share(self) -> bool:
        """Whether the quantity is a share or ratio with a bound, not a difference."""
        return not self.equivalence and self.bound not in (0.0, -self.visible)

    def __str__(self) -> str:
        bound = "a bound that depends on the record" if callable(self.bound) else f"{self.bound:g}"
        if self.equivalence:
            return f"less than {bound} away from 0"
        text = f"{'above' if self.direction > 0 else 'below'} {bound}"
        return f"{text}, by {self.smallest:g} or more" if self.smallest else text

    def p(self, effect: Effect) -> float:
        """One-sided p value of the claim; of two one-sided tests the larger."""
        assert not callable(self.bound)
        if self.equivalence:
            return max(effect.p(-self.bound), (-effect).p(-self.bound))
        return effect.p(self.bound) if self.direction > 0 else (-effect).p(-self.bound)

    def verdict(self, common: Effect, p: float) -> Verdict:
        """The verdict on sources with this common effect and this p value, adjusted or not."""
        assert not callable(self.bound)
        low, high = common.interval()
        if self.equivalence:
            if p < LEVEL:
                return "holds here"
            outside = low > self.bound or high < -self.bound
            return "ruled out here" if outside else "cannot tell"
        toward = common if self.direction > 0 else -common
        bound = self.direction * self.bound
        if p < LEVEL and toward.estimate - bound >= self.smallest:
            return "holds here"
        low, high = (end - bound for end in toward.interval(1 - 2 * LEVEL))
        if -self.smallest < low and high < self.smallest:
            return "too small to matter"
        return "ruled out here" if toward.interval()[1] - bound < self.smallest else "cannot tell"

    def passes(self, record: Record) -> bool:
        """Whether all of the interval of one record lies where the claim says."""
        bound = self.bound(record) if callable(self.bound) else self.bound
        _, low, high = self.row.read(record)
        if self.equivalence:
            return -bound < low and high < bound
        return low > bound if self.direction > 0 else high < bound


def gain(row: Row, smallest: float, *, over: float = 0.0) -> Rule:
    """A quantity is positive, or more than ``over``, by ``smallest`` or more."""
    return Rule(row, bound=over, smallest=smallest, visible=smallest)


def no_worse(row: Row, margin: float) -> Rule:
    """A quantity does not lie below zero by as much as ``margin``."""
    return Rule(row, bound=-margin, visible=margin)


def above(row: Row, bound: float) -> Rule:
    """A quantity lies above a bound."""
    return Rule(row, bound=bound)


def below(row: Row, bound: float, smallest: float = 0.0) -> Rule:
    """A quantity lies below a bound, by ``smallest`` or more."""
    return Rule(row, direction=-1, bound=bound, smallest=smallest, visible=smallest)


def within(row: Row, bound: float | Callable[[Record], float]) -> Rule:
    """A quantity lies less than a bound away from zero, on either side.

    The bound is a number, or for a check what gives that of a record.
    """
    return Rule(row, bound=bound, equivalence=True, visible=0.0 if callable(bound) else bound)


def holds(table: str, column: str, *values: object) -> Callable[[Record], bool]:
    """Whether a column of a record's table has all of some values; for :attr:`Claim.applies`."""
    return lambda record: set(values) <= set(record.tables[table][column])


def has(row: Row) -> Callable[[Record], bool]:
    """Whether a record's table has a row; for :attr:`Claim.applies`."""

    def found(record: Record) -> bool:
        table = record.tables[row.table]
        for column, value in row.place(record).items():
            table = table[table[column] == value]
        return len(table) == 1

    return found


def shows_gain(row: Row) -> Callable[[Record], bool]:
    """Whether a quantity is positive in a record; for :attr:`Claim.informs`.

    Where there was no gain at first, say, none can diminish.
    """
    return lambda record: row.read(record)[1] > 0


def _place() -> tuple[str, int]:
    """Module and line of whoever makes a :class:`Claim`: behind this function and ``__init__``."""
    caller = sys._getframe(2)
    return caller.f_globals["__name__"], caller.f_lineno


@dataclass(frozen=True)
class Claim:
    """A claim and its rule.

    Attributes:
        key: Short name, its own among all claims.
        source: Paper and place.
        statement: What it says, paraphrased.
        paper: The paper's own numbers, or what takes their place.
        quantity: What is measured, in words.
        study: Whose records can judge it.
        unit: ``points``: the quantity is a share, shown in percentage points; ``plain``: as it is.
        effect: The paper's own effect, where it gives one, in the quantity's unit and direction.
        applies: Whether a record of the study holds what the rule needs; by default all do.
        informs: Whether a record could show the difference at all: of two systems that do no better
            than chance, neither is better.
        headline: Whether the book's answers rest on it; these share one error rate.
        check: Whether it follows from how things are made, or is the speed of a machine, so that
            it is checked on each record and no effect is estimated.
        otherwise: The same quantity measured in another way that the verdict must not depend on,
            such as one setting for all arms.
        late: Whether a record's result was seen before the claim was written, or the run was added
            after the results of others had been seen.
        place: Module and line where the claim is written down.
    """

    key: str
    source: str
    statement: str
    paper: str
    quantity: str
    study: str
    rule: Rule
    unit: Literal["points", "plain"] = "points"
    effect: float | None = None
    applies: Callable[[Record], bool] = lambda record: True
    informs: Callable[[Record], bool] = lambda record: True
    headline: bool = False
    check: bool = False
    otherwise: Row | None = None
    late: Callable[[Record], bool] = lambda record: False
    place: tuple[str, int] = field(default_factory=_place, compare=False, repr=False)

    @property
    def path(self) -> str:
        """File of the claim in the project."""
        return f"src/{self.place[0].replace('.', '/')}.py"

    def judged_by(self, records: Sequence[Record]) -> list[Record]:
        """Those records that can speak to the claim."""
        return [r for r in records if r.study == self.study and self.applies(r)]


def estimate(table: pd.DataFrame, **where: object) -> Interval:
    """Estimate and interval of the one row of a tidy table that matches."""
    matching = table
    for column, value in where.items():
        matching = matching[matching[column] == value]
    if len(matching) != 1:
        raise ValueError(f"expected one row with {where}, found {len(matching)}")
    row = matching.iloc[0]
    return float(row["estimate"]), float(row["low"]), float(row["high"])


def known(interval: Interval) -> bool:
    """Whether a quantity was measured: a trend over one size, say, is not."""
    return all(map(math.isfinite, interval))

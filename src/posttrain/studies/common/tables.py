"""Tidy tables of estimates with their intervals, as run records hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import interval
from posttrain.evidence.records import Record
from posttrain.studies.common.keys import ESTIMATE

#: Bootstrap replicates of each metric, the estimate first (see :class:`.bootstrap.Resamples`).
Replicates = Mapping[str, np.ndarray]


class TidyTable:
    """A table of estimates that grows row by row; ``labels`` are columns that say what each is of.

    ``narrower`` are levels of further intervals, in columns such as ``low 90`` and ``high 90``.

    >>> table = TidyTable("arm", "metric")
    >>> table.add("plain", "accuracy", replicates=np.array([0.5, 0.4, 0.6]))
    >>> table.frame().round(2).to_dict("records")
    [{'arm': 'plain', 'metric': 'accuracy', 'estimate': 0.5, 'low': 0.4, 'high': 0.6}]
    """

    def __init__(self, *labels: str, narrower: Sequence[float] = ()) -> None:
        more = (f"{end} {100 * level:g}" for level in narrower for end in ESTIMATE[1:])
        self._columns = [*labels, *ESTIMATE, *more]
        self._narrower = narrower
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *label: object, replicates: np.ndarray) -> None:
        """Add a row with the estimate and its 95 % interval."""
        more = (end for level in self._narrower for end in interval(replicates, level)[1:])
        self._rows.append((*label, *interval(replicates), *more))

    def add_metrics(self, *label: object, metrics: Replicates) -> None:
        """Add a row for each metric, whose name is the last label."""
        for metric, replicates in metrics.items():
            self.add(*label, metric, replicates=replicates)

    def frame(self) -> pd.DataFrame:
        """The table."""
        return pd.DataFrame(self._rows, columns=self._columns)


def difference(one: Replicates, other: Replicates) -> dict[str, np.ndarray]:
    """Paired differences of every metric, one minus the other."""
    return {metric: replicates - other[metric] for metric, replicates in one.items()}


def known(metrics: Replicates) -> dict[str, np.ndarray]:
    """The metrics whose estimate exists."""
    return {name: replicates for name, replicates in metrics.items() if not np.isnan(replicates[0])}


def labelled(
    rows: Mapping[Any, Any], names: Sequence[str], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows of a table for readers by their labels, with a dash where a row lacks a column."""
    index = pd.MultiIndex.from_tuples(list(rows), names=names)
    return pd.DataFrame(list(rows.values()), index=index, columns=columns).fillna("–")


def rates_tried(records: Sequence[Record]) -> list[str]:
    """Learning rates that any of some records tried, ascending: columns of a table of tuning."""
    rates = {rate for record in records for rate in record.settings["learning_rates"]}
    return [f"{rate:g}" for rate in sorted(rates)]

"""Tidy tables: each row the interval of its replicates, under the columns that were named."""

import numpy as np
import pandas as pd
import pytest

from posttrain.evaluation.bootstrap import interval
from posttrain.studies.common.tables import TidyTable, difference, known
from posttrain.studies.margin.keys import Loss

RANDOM = np.random.default_rng(0)
GOOD, BAD = RANDOM.normal(0.7, 0.1, 101), RANDOM.normal(0.4, 0.1, 101)


def test_rows_are_the_intervals_of_their_replicates():
    table = TidyTable("arm", "metric")
    table.add_metrics("plain", metrics={"accuracy": GOOD, "ties": BAD})
    table.add("other", "accuracy", replicates=BAD)
    assert table.frame().to_numpy().tolist() == [
        ["plain", "accuracy", *interval(GOOD)],
        ["plain", "ties", *interval(BAD)],
        ["other", "accuracy", *interval(BAD)],
    ]
    assert [*table.frame()] == ["arm", "metric", "estimate", "low", "high"]


def test_further_intervals_are_narrower():
    table = TidyTable("arm", narrower=(0.9, 0.5))
    table.add("plain", replicates=GOOD)
    row = table.frame().iloc[0]
    for level in (90, 50):
        ends = row[[f"low {level}", f"high {level}"]].tolist()
        assert ends == list(interval(GOOD, level / 100)[1:])
    assert row["low"] < row["low 90"] < row["low 50"] < row["estimate"]


def test_a_table_without_rows_has_its_columns():
    assert [*TidyTable("arm", narrower=(0.9,)).frame()] == [
        "arm", "estimate", "low", "high", "low 90", "high 90",
    ]  # fmt: skip


def test_labels_of_another_number_are_refused():
    table = TidyTable("arm", "metric")
    table.add("plain", replicates=GOOD)
    with pytest.raises(ValueError, match="columns"):
        table.frame()


def test_differences_are_paired_and_metrics_without_an_estimate_are_left_out():
    nothing = np.full(101, np.nan)
    one, other = {"accuracy": GOOD, "ties": nothing}, {"accuracy": BAD, "ties": BAD, "more": BAD}
    gaps = difference(one, other)
    assert [*gaps] == ["accuracy", "ties"]
    np.testing.assert_array_equal(gaps["accuracy"], GOOD - BAD)
    assert [*known(gaps)] == ["accuracy"]
    # One replicate without it is no reason.
    some = np.where(np.arange(101) == 5, np.nan, GOOD)
    assert [*known({"accuracy": some})] == ["accuracy"]


def test_keys_become_plain_text_in_a_table():
    table = TidyTable("loss")
    table.add(Loss.LARGE, replicates=GOOD)
    frame = table.frame()
    assert type(frame["loss"].item()) is str
    assert isinstance(frame["loss"].dtype, pd.StringDtype)

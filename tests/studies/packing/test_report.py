"""The packing study's tables on the committed records: every shown number must be theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.verdicts import ordered
from posttrain.studies.packing import report
from posttrain.studies.packing.keys import RowName
from posttrain.studies.packing.outcome import ARMS, TESTS, own_test

RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def recorded():
    return ordered(records.load_all(RESULTS, "packing"))


@pytest.fixture(scope="module")
def untrained():
    return ordered(records.load_all(RESULTS, "rows"))


def changed(record, table, column, value):
    """The record with one column of one table set to a value."""
    part = record.tables[table].assign(**{column: value})
    return replace(record, tables=record.tables | {table: part})


def test_every_arm_is_shown_in_its_own_rows(recorded):
    table = report.own_rows_table(recorded)
    for record in recorded:
        arms = report.arms_of(record)
        assert arms == [arm for arm in ARMS if arm in arms]
        assert list(table.loc[record.label].index) == arms
        for arm in arms:
            expected = report.accuracy(record, arm, own_test(arm))
            assert table.loc[(record.label, arm), "accuracy"] == expected


@pytest.mark.parametrize(
    ("inferior", "superior", "conclusion"),
    [
        (0.049, 0.049, "yes"),
        (0.049, 0.051, "not worse"),
        (0.051, 0.001, "not shown"),
        (np.nan, np.nan, "–"),
    ],
)
def test_both_tests_at_five_percent_make_the_conclusion(recorded, inferior, superior, conclusion):
    record = changed(recorded[0], "non-inferiority", "p inferior", inferior)
    record = changed(record, "non-inferiority", "p superior", superior)
    table = report.non_inferiority_table([record])
    assert set(table["within a point, on these test pairs"]) == {conclusion}
    trained = set(table.index.get_level_values("trained"))
    assert RowName.SEPARATE not in trained
    assert not any(arm.endswith("ranked") for arm in trained)


def test_the_matrix_shows_every_cell_of_the_records_and_a_dash_elsewhere(recorded):
    few = next(record for record in recorded if record.source == "simulator")
    matrix = few.tables["matrix"]
    kept = matrix[matrix["tested"].isin([RowName.SEPARATE, "causal"])]
    few = replace(few, source="other", tables=few.tables | {"matrix": kept})
    given = [*recorded, few]
    table = report.matrix_table(given)
    known = {test for record in given for test in record.tables["matrix"]["tested"]}
    assert list(table.columns) == [test for test in TESTS if test in known]
    assert len(table) == sum(len(report.arms_of(record)) for record in given)
    for record in given:
        tested = set(record.tables["matrix"]["tested"])
        for arm in report.arms_of(record):
            for test, cell in table.loc[record.label, arm].items():
                expected = report.accuracy(record, arm, test) if test in tested else "–"
                assert cell == expected


def test_rounding_is_shown_as_below_a_bound_and_the_rest_as_it_is(untrained):
    record = untrained[-1]
    assert record.source == "simulator"
    for value, shown in ((9e-11, "below 1e-10"), (2e-10, "2e-10"), (0.123, "0.12")):
        table = report.equality_table([changed(record, "equality", "scores", value)])
        assert set(table["scores"]) == {shown}
        assert "separate rows" not in table.index.get_level_values("way")


def test_exact_rows_equal_separate_rows_in_every_record(untrained):
    table = report.equality_table(untrained)
    for way in ("exact row", "exact, shared rows", "separate, shared rows"):
        cells = table.xs(way, level="way").to_numpy().ravel()
        assert all(cell.startswith("below") for cell in cells)


@pytest.mark.parametrize("by", ["slot", "preceding tokens"])
def test_distances_come_by_slot_or_by_what_precedes(untrained, by):
    table = report.distance_table(untrained, by)
    for record in untrained:
        part = record.tables["distances"]
        assert set(part.loc[part["by"] == by, "value"].astype(str)) <= set(table.columns)
    first = {"slot": ["1", "2"], "preceding tokens": ["0", "1-16", "17-64"]}[by]
    assert [*table.columns][: len(first)] == first
    # Nothing stands before the first slot.
    assert table[{"slot": "1", "preceding tokens": "0"}[by]].str.startswith("0.00").all()


def test_tokens_and_padding_are_those_of_the_records(untrained):
    tokens = report.token_table(untrained)
    padding = report.padding_table(untrained)
    for record in untrained:
        for row in record.tables["tokens"].itertuples():
            assert tokens.loc[(record.source, row.responses), "saving"] == f"{row.saving:.2f}×"
        table = record.tables["padding"]
        separate = table.loc[table["method"] == "separate rows", "slots"].item()
        for row in table.itertuples():
            assert [*padding.loc[record.source, row.method]] == [
                f"{row.padding * 100:.1f}", f"{row.slots / separate:.2f}",
            ]  # fmt: skip


def test_cells_of_few_responses_are_left_out(untrained):
    record = changed(untrained[0], "distances", "responses", report.FEW)
    assert not (report.distance_table([record]) == "–").any(axis=None)
    table = record.tables["distances"]
    first = table["value"] == table.loc[table["by"] == "preceding tokens", "value"].iloc[0]
    few = changed(record, "distances", "responses", np.where(first, report.FEW - 1, 20))
    shown = report.distance_table([few])
    assert table.loc[first, "value"].iloc[0] not in shown.columns
    assert len(shown.columns) == len(report.distance_table([record]).columns) - 1


def test_the_best_learning_rate_is_starred_and_single_rates_are_left_out(recorded):
    record = recorded[-1]
    table = report.tuning_table([record])
    assert all(sum(cell.endswith("*") for cell in row) >= 1 for row in table.to_numpy())
    single = replace(record, settings=record.settings | {"learning_rates": [1e-3]}, source="other")
    assert isinstance(report.tuning_table([record, single]), pd.DataFrame)
    assert "other" not in report.tuning_table([record, single]).index

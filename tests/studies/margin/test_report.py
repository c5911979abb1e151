"""The margin's report on the committed records: every shown number must be theirs."""

from pathlib import Path

import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import ordered
from posttrain.studies.margin import report
from posttrain.studies.margin.claims import estimate, largest_size

RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def recorded() -> list[Record]:
    return ordered(records.load_all(RESULTS, "margin"))


def test_closed_distance_knows_no_ceiling_of_human_data(recorded: list[Record]) -> None:
    table = report.closed_distance(recorded)
    assert set(table.index.get_level_values("source")) == {"simulator"}
    assert report.closed_distance(recorded[:1]).empty


def test_the_simulator_is_learnt(recorded: list[Record]) -> None:
    """At least 80 % of the way from chance to what is reachable, with the most data."""
    record = recorded[-1]
    size = largest_size(record)
    accuracy, _, _ = estimate(record.tables["metrics"], loss="none", metric="accuracy", size=size)
    baselines = record.tables["baselines"].set_index(["baseline", "metric"])["estimate"]
    assert (accuracy - 0.5) / (baselines["reachable", "accuracy"] - 0.5) >= 0.8


@pytest.mark.parametrize("place", [0, 1, 2])
def test_tables_are_made_of_text_without_gaps(recorded: list[Record], place: int) -> None:
    record = recorded[place]
    tables: list[pd.DataFrame] = [
        report.gain_table(record),
        report.gain_table(record, "log-likelihood"),
        report.accuracy_table(record),
        report.chosen_table([record]),
        report.strength_table(record),
        report.score_table(record),
        report.filter_table([record]),
    ]
    for table in tables:
        assert not table.isna().any().any()
        assert "nan" not in table.to_string()

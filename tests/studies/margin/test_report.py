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


def test_the_simulator_is_learnt(recorded: list[Record]) -> None:
    """Of the way from chance to what is reachable, with the most data."""
    record = recorded[-1]
    size = largest_size(record)
    value, low, high = report.closed_share(record, size)
    where = {"loss": "none", "metric": "accuracy", "size": size}
    accuracies = estimate(record.tables["metrics"], **where)
    baselines = record.tables["baselines"].set_index(["baseline", "metric"])["estimate"]
    ceiling = baselines["reachable", "accuracy"]
    assert [0.5 + part * (ceiling - 0.5) for part in (value, low, high)] == pytest.approx(
        [*accuracies]
    )
    assert value >= 0.8


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
        report.control_table([record]),
    ]
    for table in tables:
        assert not table.isna().any().any()
        assert "nan" not in table.to_string()

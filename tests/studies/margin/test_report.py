"""The margin's report on the committed records: every shown number must be theirs."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import ordered, verdict_table, with_interval
from posttrain.studies.margin import answer as margin_answer
from posttrain.studies.margin import report
from posttrain.studies.margin.claims import CLAIMS, estimate, largest_size

RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def recorded() -> list[Record]:
    return ordered(records.load_all(RESULTS, "margin"))


def test_answer_quotes_the_records(recorded: list[Record]) -> None:
    answer = margin_answer.answer(recorded)
    for record in recorded:
        size = largest_size(record)
        found = estimate(record.tables["gains"], loss="large", metric="accuracy", size=size)
        assert with_interval(found) in answer
        assert f"{size:,} pairs of `{record.source}`" in answer


def test_answer_follows_the_results(recorded: list[Record]) -> None:
    """Were the margin worth five points everywhere, the conclusion would turn round."""
    changed = []
    for record in recorded:
        gains = record.tables["gains"].copy()
        rows = (gains["loss"] == "large") & (gains["metric"] == "accuracy")
        for column in ("estimate", "low", "high"):
            gains[column] = np.where(rows, gains[column] + 0.05, gains[column])
        changed.append(dataclasses.replace(record, tables=record.tables | {"gains": gains}))
    assert "no run shows that dropping it costs half a point" in margin_answer.answer(recorded)
    assert "dropping it costs accuracy in these runs" in margin_answer.answer(changed)


def test_a_record_of_one_size_trained_in_full_is_answered_with(recorded: list[Record]) -> None:
    """What a GPU leaves: whole models on human data, whose reachable accuracy nobody knows."""
    simulated = recorded[-1]
    tables = dict(simulated.tables)
    size = largest_size(simulated)
    for name in ("metrics", "gains", "filter", "steps", "sensitivity", "chosen"):
        tables[name] = tables[name][tables[name]["size"] == size]
    known = tables["baselines"]
    tables["baselines"] = known[known["baseline"] != "reachable"]
    tables["trends"] = tables["trends"].assign(estimate=np.nan, low=np.nan, high=np.nan)
    settings = simulated.settings | {"sizes": [size]}
    record = dataclasses.replace(
        simulated, source="seeda-full", profile="gpu", settings=settings, tables=tables
    )
    gain = estimate(tables["gains"], tuning="shared", loss="large", metric="accuracy", size=size)[0]
    shown = f"{gain * 100:+.1f}".replace("-", "−")
    assert f"looks worth more, {shown} points over" in margin_answer.answer([record])
    assert report.closed_distance([record]).empty
    assert list(report.strength_table(record).index)[-1] == "length only"
    assert report.filter_table([record]).index[0][0] == "seeda (SmolLM2, trained)"
    verdicts = verdict_table(CLAIMS, [*recorded, record])
    assert not verdicts["GPU"].isin(["not run", "–"]).any()


def test_closed_distance_knows_no_ceiling_of_human_data(recorded: list[Record]) -> None:
    table = report.closed_distance(recorded)
    assert set(table.index.get_level_values("source")) == {"simulator"}
    assert report.closed_distance(recorded[:1]).empty


def test_the_simulator_is_learnt(recorded: list[Record]) -> None:
    """At least 85 % of the way from chance to what is reachable, with the most data."""
    record = recorded[-1]
    size = largest_size(record)
    accuracy, _, _ = estimate(record.tables["metrics"], loss="none", metric="accuracy", size=size)
    baselines = record.tables["baselines"].set_index(["baseline", "metric"])["estimate"]
    assert (accuracy - 0.5) / (baselines["reachable", "accuracy"] - 0.5) >= 0.85


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

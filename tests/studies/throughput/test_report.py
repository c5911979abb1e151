"""Tables of speed on the committed record, and of cost in closed form."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.claims import estimate
from posttrain.studies.common.llama3 import RATIO
from posttrain.studies.packing import report as packing_report
from posttrain.studies.throughput import report

RESULTS = Path(__file__).parents[3] / "book" / "results"


@pytest.fixture(scope="module")
def record():
    return records.load(RESULTS / "throughput-smollm2-cpu.json")


def test_the_speed_table_shows_the_record_at_one_ratio(record):
    table = report.speed_table(record)
    for (responses, method), row in table.iterrows():
        where = {"ratio": RATIO, "responses": responses, "method": method}
        value, low, high = estimate(record.tables["speed"], **where, metric="speed-up over TRL")
        shown = f"{value:.2f}" if low == high else f"{value:.2f}\u00a0({low:.2f}–{high:.2f})"
        assert row["times TRL"] == shown
        pairs, _, _ = estimate(record.tables["speed"], **where, metric="pairs per second")
        assert row["pairs/s"] == f"{pairs:.2f}"
        relative, _, _ = estimate(
            record.tables["speed"], **where, metric="relative tokens per second"
        )
        assert row["tokens/s, separate = 1"] == f"{relative:.2f}"
        if method == "separate rows":
            assert row["tokens/s, separate = 1"] == "1.00"


def test_memory_is_shown_where_it_was_measured(record):
    table = report.speed_table(record)
    assert table["peak memory"].str.endswith(" GB").all()
    without = replace(
        record, tables={name: part for name, part in record.tables.items() if name != "memory"}
    )
    assert "peak memory" not in report.speed_table(without)
    other = report.speed_table(record, 1.0)
    assert set(other["peak memory"]) == {"–"}


def test_losses_are_shown_where_they_were_recorded(record):
    old = record.tables["speed"]
    old = old[old["metric"] != "loss difference from TRL"]
    without = replace(record, tables=record.tables | {"speed": old})
    assert "loss off TRL's" not in report.speed_table(without)
    losses = old[old["metric"] == "padding"].assign(
        metric="loss difference from TRL", estimate=2e-7
    )
    given = replace(record, tables=record.tables | {"speed": pd.concat([old, losses])})
    assert set(report.speed_table(given)["loss off TRL's"]) == {"2e-07"}


def test_costs_at_llama_3s_lengths():
    table = packing_report.arrangements()
    assert table.loc[(2, "separate rows"), "tokens over exact"] == "1.57"
    assert table.loc[(3, "separate rows"), "tokens over exact"] == "1.94"
    assert table.loc[(3, "pair rows"), "tokens over exact"] == "3.88"
    assert table.loc[(3, "exact row"), "tokens"] == "1,610"

"""Tables of speed on the committed record, and of cost in closed form."""

from dataclasses import replace
from pathlib import Path

import pytest

from posttrain import records
from posttrain.claims import estimate
from posttrain.studies import throughput_report
from posttrain.studies.packing_claims import RATIO

RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.fixture(scope="module")
def record():
    return records.load(RESULTS / "throughput-smollm2-cpu.json")


def test_the_speed_table_shows_the_record_at_one_ratio(record):
    table = throughput_report.speed_table(record)
    for (responses, method), row in table.iterrows():
        where = {"ratio": RATIO, "responses": responses, "method": method}
        value, low, high = estimate(record.tables["speed"], **where, metric="speed-up over TRL")
        shown = f"{value:.2f}" if low == high else f"{value:.2f}\u00a0({low:.2f}–{high:.2f})"
        assert row["times TRL"] == shown
        pairs, _, _ = estimate(record.tables["speed"], **where, metric="pairs per second")
        assert row["pairs/s"] == f"{pairs:.2f}"
        assert (row["of token saving"] == "–") == (method in ("TRL RewardTrainer", "separate rows"))


def test_memory_is_shown_where_it_was_measured(record):
    table = throughput_report.speed_table(record)
    assert table["peak memory"].str.endswith(" GB").all()
    without = replace(
        record, tables={name: part for name, part in record.tables.items() if name != "memory"}
    )
    assert "peak memory" not in throughput_report.speed_table(without)
    other = throughput_report.speed_table(record, 1.0)
    assert set(other["peak memory"]) == {"–"}


def test_the_sentence_quotes_the_record(record):
    sentence = throughput_report.in_words(record)
    for responses in (2, 3):
        for metric in ("speed-up over separate rows", "speed-up over TRL"):
            value, _, _ = estimate(
                record.tables["speed"], ratio=RATIO, responses=responses, method="exact row",
                metric=metric,
            )  # fmt: skip
            assert f"{value:.2f}" in sentence


def test_costs_at_llama_3s_lengths():
    table = throughput_report.arrangements()
    assert table.loc[(2, "separate rows"), "tokens over exact"] == "1.57"
    assert table.loc[(3, "separate rows"), "tokens over exact"] == "1.94"
    assert table.loc[(3, "pair rows"), "tokens over exact"] == "3.88"
    assert table.loc[(3, "exact row"), "tokens"] == "1,610"

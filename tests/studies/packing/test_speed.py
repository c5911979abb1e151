"""Speed for readers: numbers are those of the record, and what was not measured is a dash."""

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.packing import report, speed

METRICS = {
    "pairs per second": (3.0, 2.0, 4.0),
    "tokens": (1610.0, 1610.0, 1610.0),
    "padding": (0.125, 0.125, 0.125),
    "share of matmul peak": (0.8, 0.7, 0.9),
    "times fewer tokens than TRL": (3.88, 3.88, 3.88),
    "times fewer tokens than TRL, whole set": (4.5, 4.5, 4.5),
    "loss difference": (2e-8, 2e-8, 2e-8),
    "speed-up over TRL": (3.5, 3.25, 3.75),
    "speed-up over separate rows": (1.5, 1.5, 1.5),
}


@pytest.fixture
def record():
    found = pd.DataFrame(
        [
            (workload, method, metric, *(place + value for value in values))
            for place, workload in enumerate(("triples", "seeda"))
            for method in ("trl", "merged")
            for metric, values in METRICS.items()
        ],
        columns=["workload", "method", "metric", "estimate", "low", "high"],
    )
    workloads = pd.DataFrame(
        {
            "workload": ["triples", "seeda"],
            "kind": ["random tokens", "data set"],
            "prompts": [64, 10],
            "pairs": [192, 50],
            "pairs of the whole set": [192, 200],
            "prompt tokens": [758.0, 40.25],
            "response tokens": [284.0, 30.5],
            "layers": [30, 30],
            "rounds": [5, 5],
        }
    )
    return Record(
        "throughput", "smollm2", "real",
        {"checkpoint": "smollm2", "dtype": "float32", "max_tokens_per_device": 4096},
        {}, {"speed": found, "workloads": workloads}, {"device": "CPU"},
    )  # fmt: skip


def test_the_speed_table_shows_the_record(record):
    table = speed.speed_table(record)
    assert list(table.index) == [
        (workload, method) for workload in ("triples", "seeda") for method in ("trl", "merged")
    ]
    row = table.loc[("triples", "merged")]
    assert row["pairs/s"] == "3.00"
    assert row["times TRL"] == "3.50\u00a0(3.25–3.75)"
    assert row["times separate"] == "1.50"
    assert row["tokens"] == "1,610"
    assert row["the same, whole set"] == "4.50"
    assert row["padding"] == "12.5%"
    assert row["loss off"] == "2e-08"
    assert row["peak memory"] == "–"
    assert list(speed.speed_table(record, "seeda").index) == [("seeda", "trl"), ("seeda", "merged")]


def test_without_trl_ratios_to_it_are_dashes(record):
    found = record.tables["speed"]
    record.tables["speed"] = found[found["metric"] != "speed-up over TRL"]
    assert set(speed.speed_table(record)["times TRL"]) == {"–"}


def test_a_sample_says_its_share_of_the_set(record):
    table = speed.workload_table(record)
    assert table["of the whole set"].tolist() == ["–", "25.0 %"]


def test_costs_at_llama_3s_lengths():
    table = report.arrangements()
    assert table.loc[(2, "separate rows"), "tokens over exact"] == "1.57"
    assert table.loc[(3, "separate rows"), "tokens over exact"] == "1.94"
    assert table.loc[(3, "pair rows"), "tokens over exact"] == "3.88"
    assert table.loc[(3, "exact row"), "tokens"] == "1,610"

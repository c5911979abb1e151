"""What readers see of a training run: its own numbers, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.training_run.answer import answer, conditions, speed
from posttrain.studies.training_run.claims import TRAINING_CLAIMS
from posttrain.studies.training_run.report import (
    accuracy_table,
    difference_table,
    expectations_table,
    groups_table,
    memory_table,
)
from posttrain.studies.training_run.study import HEAD, LENGTH, TRAINED


def rows(name, *entries):
    columns = [name, "metric", "estimate", "low", "high"]
    return pd.DataFrame(entries, columns=columns)


def record(**differences):
    over = {LENGTH: (0.081, 0.039, 0.118), HEAD: (-0.0032, -0.0086, 0.0016)} | differences
    return Record(
        study="training",
        source="mine",
        profile="real",
        settings={
            "run": {"model": "smollm2", "data": ["debates"], "top_layers": 6, "min_strength": 3},
            "training": {"groups_per_step": 64, "learning_rate": 3e-4},
        },
        data={"steps": 72, "training": {"groups": 6633, "pairs": 6633}},
        tables={
            "accuracy": rows(
                "scorer",
                (TRAINED, "accuracy", 0.7787, 0.7048, 0.8268),
                (TRAINED, "accuracy 1", np.nan, np.nan, np.nan),
                (TRAINED, "accuracy 3", 0.8147, 0.7606, 0.8571),
                (TRAINED, "log-likelihood", -0.504, -0.582, -0.4411),
                (LENGTH, "accuracy", 0.6977, 0.655, 0.7346),
                (LENGTH, "accuracy 3", 0.7102, 0.6707, 0.7568),
                (HEAD, "accuracy", 0.7819, 0.7129, 0.8259),
                (HEAD, "accuracy 3", 0.7981, 0.7473, 0.8263),
                (HEAD, "log-likelihood", -0.4489, -0.5325, -0.3819),
            ),
            "differences": rows(
                "scorer", *((name, "accuracy", *values) for name, values in over.items())
            ),
            "groups": pd.DataFrame(
                {"group": ["a", "b"], "pairs": [1200, 34], TRAINED: [0.7988, 0.5], LENGTH: [0.6, 1]}
            ),
            "history": pd.DataFrame({"tokens_per_second": [100.0, 400.0, 460.0]}),
        },
        environment={
            "device": "CPU", "threads": 2, "seconds": 3081.8,
            "judged": {"seconds": 486.1, "threads": 1},
        },
    )  # fmt: skip


def test_the_answer_has_the_numbers_of_the_record():
    text = answer([record()])
    for part in (
        "the last 6 layers of `smollm2` on `debates`",
        "77.9 [70.5, 82.7] %",
        "preferring the longer response ranks 69.8 [65.5, 73.5] %",
        "+8.1 [+3.9, +11.8] points over length",
        "−0.3 [−0.9, +0.2] points over the head",
        "took 51 minutes with 2 threads",
        "took 8 with 1.",
        "By count, not yet by measurement",
    ):
        assert part in text.replace("\u00a0", " ")


def test_without_records_the_answer_says_what_training_takes():
    assert answer([]).count("\n\n") == 0


def test_conditions():
    text = conditions(record())
    for part in (
        "0.69 pass over 6,633 pairs of strength 3 and more, in 72 steps of 64",
        "peak learning rate 0.0003, 51 minutes on a CPU with 2 threads",
        "1,234 pairs of 2 groups",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("steps", "passes"), [(104, "1 pass over"), (208, "2 passes over"), (156, "1.5 passes over")]
)
def test_an_epoch_ends_with_a_smaller_step(steps, passes):
    whole = record()
    data = whole.data | {"steps": steps}
    assert passes in conditions(replace(whole, data=data))


def test_tables():
    table = accuracy_table(record())
    assert table.index.tolist() == [TRAINED, LENGTH, HEAD]
    assert table.columns.tolist() == ["accuracy", "strength 3", "log-likelihood"]
    assert table.loc[LENGTH, "log-likelihood"] == "–"
    assert table.loc[TRAINED, "log-likelihood"] == "−0.504 [−0.582,\u00a0−0.441]"
    assert table.loc[TRAINED, "strength 3"] == "81.5 [76.1,\u00a085.7]"
    assert difference_table(record()).loc[HEAD, "accuracy"] == "−0.3 [−0.9,\u00a0+0.2]"
    groups = groups_table(record())
    assert groups.loc["a"].tolist() == [1200, 79.9, 60.0]


def test_a_run_that_logged_nothing_has_no_speed():
    silent = record()
    silent.tables["history"] = silent.tables["history"].iloc[:0]
    assert "not known" in speed(silent)


def test_speed_counts_operations_of_trained_layers():
    # 106 million linear weights; two operations forward in all, four backward in a fifth of them.
    text = speed(record())
    assert "400 tokens a second" in text
    assert f"{400 * 106_168_320 * 2.8 / 1e9:,.0f} billion" in text
    assert "2.1 times as many" in text


def test_expectations_say_where_a_part_does_not_fit():
    table = expectations_table()
    assert table.loc[("Llama-3.1-8B", "all weights"), "GPUs"] == "–"
    assert table.loc[("Llama-3.1-8B", "LoRA, checkpointed"), "GPUs"] == "1"


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({}, ["supported", "not supported"]),
        ({LENGTH: (0.0, -0.02, 0.02), HEAD: (0.05, 0.03, 0.07)}, ["inconclusive", "supported"]),
    ],
)
def test_claims(differences, expected):
    found = [claim.judge([record(**differences)])[0] for claim in TRAINING_CLAIMS]
    assert found == expected
    assert len({claim.key for claim in TRAINING_CLAIMS}) == len(TRAINING_CLAIMS)


def test_memory_by_number_of_groups():
    numbers = pd.DataFrame({"groups": [10_000, 1_000_000], "reading": [430.4, 538.6]})
    sized = replace(record(), study="memory", tables={"megabytes": numbers})
    table = memory_table(sized)
    assert table["reading"].to_dict() == {"10,000": 430, "1,000,000": 539}

"""What readers see of a training run: its own numbers, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd

from posttrain.evidence.records import Record
from posttrain.studies.training_run.claims import CLAIMS
from posttrain.studies.training_run.keys import Scorer
from posttrain.studies.training_run.report import (
    accuracy_table,
    difference_table,
    expectations_table,
    groups_table,
    memory_table,
)


def rows(name, *entries):
    columns = [name, "metric", "estimate", "low", "high"]
    return pd.DataFrame(entries, columns=columns)


def record(**differences):
    over = {
        Scorer.LENGTH: (0.081, 0.039, 0.118),
        Scorer.HEAD: (-0.0032, -0.0086, 0.0016),
    } | differences
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
                (Scorer.TRAINED, "accuracy", 0.7787, 0.7048, 0.8268),
                (Scorer.TRAINED, "accuracy 1", np.nan, np.nan, np.nan),
                (Scorer.TRAINED, "accuracy 3", 0.8147, 0.7606, 0.8571),
                (Scorer.TRAINED, "log-likelihood", -0.504, -0.582, -0.4411),
                (Scorer.LENGTH, "accuracy", 0.6977, 0.655, 0.7346),
                (Scorer.LENGTH, "accuracy 3", 0.7102, 0.6707, 0.7568),
                (Scorer.HEAD, "accuracy", 0.7819, 0.7129, 0.8259),
                (Scorer.HEAD, "accuracy 3", 0.7981, 0.7473, 0.8263),
                (Scorer.HEAD, "log-likelihood", -0.4489, -0.5325, -0.3819),
            ),
            "differences": rows(
                "scorer", *((name, "accuracy", *values) for name, values in over.items())
            ),
            "groups": pd.DataFrame(
                {
                    "group": ["a", "b"],
                    "pairs": [1200, 34],
                    Scorer.TRAINED: [0.7988, 0.5],
                    Scorer.LENGTH: [0.6, 1],
                }
            ),
            "history": pd.DataFrame({"tokens_per_second": [100.0, 400.0, 460.0]}),
        },
        environment={
            "device": "CPU", "threads": 2, "seconds": 3081.8,
            "judged": {"seconds": 486.1, "threads": 1},
        },
    )  # fmt: skip


def test_tables():
    table = accuracy_table(record())
    assert table.index.tolist() == [Scorer.TRAINED, Scorer.LENGTH, Scorer.HEAD]
    assert table.columns.tolist() == ["accuracy", "strength 3", "log-likelihood"]
    assert table.loc[Scorer.LENGTH, "log-likelihood"] == "–"
    assert table.loc[Scorer.TRAINED, "log-likelihood"] == "−0.504 [−0.582,\u00a0−0.441]"
    assert table.loc[Scorer.TRAINED, "strength 3"] == "81.5 [76.1,\u00a085.7]"
    assert difference_table(record()).loc[Scorer.HEAD, "accuracy"] == "−0.3 [−0.9,\u00a0+0.2]"
    groups = groups_table(record())
    assert groups.loc["a"].tolist() == [1200, 79.9, 60.0]


def test_expectations_say_where_a_part_does_not_fit():
    table = expectations_table()
    assert table.loc[("Llama-3.1-8B", "all weights"), "GPUs"] == "–"
    assert table.loc[("Llama-3.1-8B", "LoRA, checkpointed"), "GPUs"] == "1"


def test_claims():
    differences = {Scorer.LENGTH: (0.0, -0.02, 0.02), Scorer.HEAD: (0.05, 0.03, 0.07)}
    found = [claim.rule.row.read(record(**differences)) for claim in CLAIMS]
    assert found == [*differences.values()]
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)


def test_memory_by_number_of_groups():
    numbers = pd.DataFrame({"groups": [10_000, 1_000_000], "reading": [430.4, 538.6]})
    sized = replace(record(), study="memory", tables={"megabytes": numbers})
    table = memory_table(sized)
    assert table["reading"].to_dict() == {"10,000": 430, "1,000,000": 539}

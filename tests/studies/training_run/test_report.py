"""What readers see of a training run, and where its claims read it."""

import pandas as pd

from posttrain.evidence.records import Record
from posttrain.studies.training_run.claims import CLAIMS
from posttrain.studies.training_run.keys import Scorer
from posttrain.studies.training_run.report import expectations_table


def test_expectations_say_where_a_part_does_not_fit():
    table = expectations_table()
    assert table.loc[("Llama-3.1-8B", "all weights"), "GPUs"] == "–"
    assert table.loc[("Llama-3.1-8B", "LoRA, checkpointed"), "GPUs"] == "1"
    assert table.loc[("Llama-3.1-70B", "LoRA, checkpointed"), "GPUs"] == "–"


def test_claims():
    differences = {Scorer.LENGTH: (0.0, -0.02, 0.02), Scorer.HEAD: (0.05, 0.03, 0.07)}
    rows = [(name, "accuracy", *values) for name, values in differences.items()]
    columns = ["scorer", "metric", "estimate", "low", "high"]
    tables = {"differences": pd.DataFrame(rows, columns=columns)}
    record = Record("training", "mine", "real", {}, {}, tables)
    found = [claim.rule.row.read(record) for claim in CLAIMS]
    assert found == [*differences.values()]
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)

"""The choices study for readers: a table of formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.best_of_n.keys import Test
from posttrain.studies.choices.keys import Arm

#: The n that are shown: little to choose from, Llama 3's range, and more.
SHOWN = (4, 16, 64)


def arm_table(record: Record) -> pd.DataFrame:
    """Accuracy of each arm (%), and gold of its choices minus that of the first arm."""
    tables = record.tables
    rows = {}
    for arm in dict.fromkeys(tables["tests"]["arm"]):
        row = {
            f"{test} (%)": with_interval(estimate(tables["tests"], arm=arm, test=test), sign=False)
            for test in (Test.HELD_OUT, Test.POLICY)
        }
        for n in SHOWN:
            if n not in set(tables["curves"]["n"]):
                continue
            where = {"arm": arm, "n": n}
            if arm == Arm.PAIRS:
                level = estimate(tables["curves"], value="gold", **where)
                row[f"gold, best of {n}"] = with_interval(level, scale=1, digits=2, sign=False)
            else:
                gain = estimate(tables["gains"], **where)
                row[f"gold, best of {n}"] = with_interval(gain, scale=1, digits=2)
        rows[str(arm)] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("")


def correlation_table(record: Record) -> pd.DataFrame:
    """How accuracy by each test goes with gold of the best of 16, over all models."""
    table = record.tables["correlation"]
    rows = {
        test: {
            "reward models": number,
            "rank correlation": with_interval(estimate(table, test=test), scale=1, digits=2),
        }
        for test, number in table[["test", "models"]].itertuples(index=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("accuracy by")

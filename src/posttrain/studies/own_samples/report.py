"""The own-samples study for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.own_samples.keys import Value


def agreement_table(record: Record) -> pd.DataFrame:
    """Who ranks people's pairs rightly, and who agrees with whom on the policy's answers."""
    rows = {
        ("pairs ranked as people do (%)", test): with_interval(
            estimate(record.tables["tests"], test=test), sign=False
        )
        for test in record.tables["tests"]["test"]
    } | {
        ("correlation over a prompt's answers", pair): with_interval(
            estimate(record.tables["agreement"], agreement=pair), scale=1, digits=2, sign=False
        )
        for pair in record.tables["agreement"]["agreement"]
    }
    table = {key: {"": value} for key, value in rows.items()}
    return labelled(table, ["", " "])


def choice_table(record: Record) -> pd.DataFrame:
    """What the best of the most samples gains, by who chooses and who judges."""
    curves = record.tables["curves"]
    most = curves["n"].max()
    here = curves[curves["n"] == most]
    rows = {}
    for chooser in dict.fromkeys(here["chooser"]):
        own = here[here["chooser"] == chooser]
        rows[f"best of {most} by {chooser}"] = {
            value: with_interval(
                estimate(own, value=value), scale=1, digits=1 if value == Value.WORDS else 2,
                sign=value != Value.WORDS,
            )
            for value in own["value"]
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("")

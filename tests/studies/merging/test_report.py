"""The merging study's tables: numbers are those of the record."""

from dataclasses import replace

import pandas as pd
import pytest

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.studies.merging import report
from posttrain.studies.merging.keys import Cost, Way

VALUES = {(Way.PAIRS, 1): -0.7, (Way.PAIRS, 3): -1.1, (Way.MERGED, 1): -0.6, (Way.MERGED, 3): -0.8}
TOKENS = {Way.PAIRS: 9000.0, Way.MERGED: 1000.0}


def interval(value):
    return (value, value - 0.05, value + 0.05)


@pytest.fixture
def record():
    both, ends = (Metric.ACCURACY, Metric.LOG_LIKELIHOOD), ["estimate", "low", "high"]
    change = {Metric.ACCURACY: 0.02, Metric.LOG_LIKELIHOOD: 0.1}
    return Record(
        "merging", "seeda", "real", {"learning_rates": [0.001, 0.003, 0.01]}, {},
        {
            "metrics": pd.DataFrame(
                [
                    (way, passes, metric, *interval(value))
                    for (way, passes), value in VALUES.items() for metric in both
                ],
                columns=["way", "passes", "metric", *ends],
            ),
            "gains": pd.DataFrame(
                [(n, m, *interval(n * v)) for n in (1, 3) for m, v in change.items()],
                columns=["passes", "metric", *ends],
            ),
            "costs": pd.DataFrame(
                [
                    (way, passes, cost, passes * TOKENS[way] / over)
                    for way, passes in VALUES
                    for cost, over in ((Cost.TOKENS, 1), (Cost.STEPS, 500), (Cost.SECONDS, 100))
                ],
                columns=["way", "passes", "cost", "mean"],
            ),
            "tuning": pd.DataFrame(
                [
                    (way, passes, rate, -rate, rate == best)
                    for (way, passes), best in zip(VALUES, (0.001, 0.003, 0.01, 0.003), strict=True)
                    for rate in (0.001, 0.003, 0.01)
                ],
                columns=["way", "passes", "learning rate", Metric.LOG_LIKELIHOOD, "chosen"],
            ),
        },
    )  # fmt: skip


def test_the_best_rate_is_starred_and_a_single_one_is_no_tuning(record):
    table = report.tuning_table([record])
    assert table.loc[("seeda", 1, "merged"), "0.01"] == "-0.010*"
    assert (table.apply(lambda row: row.str.endswith("*").sum(), axis=1) == 1).all()
    # In the order of their size, whichever record comes first.
    low = record.tables["tuning"].assign(**{"learning rate": lambda t: t["learning rate"] / 1e3})
    lower = Record(
        "merging", "ukpconvarg", "real", {"learning_rates": [1e-6, 3e-6, 1e-5]}, {}, {"tuning": low}
    )
    rates = list(map(float, report.tuning_table([record, lower]).columns))
    assert rates == sorted(rates)
    assert len(rates) == 6
    single = replace(record, settings={"learning_rates": [0.001]})
    assert len(report.tuning_table([single, record])) == len(table)


def test_the_table_of_outcomes_has_time_beside_tokens(record):
    row = report.outcome_table([record]).loc[("seeda", 3, "pairs one by one")]
    assert (row["tokens computed"], row["steps"], row["seconds"]) == ("27,000", "54", "270")


def test_the_table_of_gains_shows_each_number_of_passes(record):
    table = report.gain_table([record])
    assert table.loc[("seeda", 3), "accuracy (points)"] == "+6.0 [+1.0,\u00a0+11.0]"
    assert table.loc[("seeda", 1), "log-likelihood"] == "+0.100 [+0.050,\u00a0+0.150]"

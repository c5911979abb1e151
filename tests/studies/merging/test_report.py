"""What readers are told of the merging study, and its figure."""

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.studies.merging import figures, report
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
            "overfitting": pd.DataFrame(
                [
                    (way, m, *interval(VALUES[way, 3] - VALUES[way, 1]))
                    for way in Way for m in both
                ],
                columns=["way", "metric", *ends],
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


def test_words_hold_the_saving_every_number_of_passes_and_what_more_passes_did(record):
    told = report.in_words([record])
    assert "9.0 times fewer tokens" in told
    assert "after 1 pass accuracy changes by +2.0" in told
    assert "after 3 passes accuracy changes by +6.0" in told
    assert "From 1 to 3 passes the log-likelihood of pairs one by one changes by −0.400" in told
    assert "that of merged groups by −0.200" in told


def test_one_number_of_passes_has_nothing_to_compare(record):
    tables = record.tables | {"gains": record.tables["gains"].query("passes == 1")}
    assert "From" not in report.in_words([replace(record, tables=tables)])


def test_arms_at_an_end_of_their_grid_are_named(record):
    told = report.edges_in_words([record])
    assert "pairs one by one (1) took the lowest" in told
    assert "merged (1) took the highest" in told
    assert "(3)" not in told
    inside = record.tables["tuning"].assign(chosen=lambda t: t["learning rate"] == 0.003)
    middle = replace(record, tables=record.tables | {"tuning": inside})
    assert report.edges_in_words([middle]).startswith("No best learning rate")


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


def test_the_figure_draws_each_way_by_seconds_and_by_tokens(record):
    figure = figures.against_time(record, Metric.LOG_LIKELIHOOD)
    for axis, over in zip(figure.axes, (100, 1000), strict=True):
        assert len(axis.containers) == len(Way)
        for way, container in zip(Way, axis.containers, strict=True):
            x, y = container.lines[0].get_data()
            np.testing.assert_allclose(x, [TOKENS[way] / over, 3 * TOKENS[way] / over])
            np.testing.assert_allclose(y, [VALUES[way, 1], VALUES[way, 3]])
            assert container.get_label() == way
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "3"] * 2
    plt.close(figure)

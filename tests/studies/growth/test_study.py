"""The growth study: its tables of planted outcomes, and a small run."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.errors import UserError
from posttrain.evidence.records import Record
from posttrain.studies.growth import figures, report
from posttrain.studies.growth.study import STUDY, GrowthSettings, summarise
from posttrain.studies.packing.keys import RowName
from posttrain.studies.packing.outcome import Outcome, order_sums

ARMS = (RowName.SEPARATE, RowName.CAUSAL)
GROUPS = 1000


def sums(right):
    """Of pairs of which so many are ranked right, whatever the order, ``[groups, COLUMNS]``."""
    differences = np.where(np.arange(GROUPS) < right, 1.0, -1.0)
    return order_sums(differences, differences, differences, np.arange(GROUPS), GROUPS)


def outcome(**right):
    """Two seeds alike, each arm tested in its own layout and wrong in the other."""
    cells = np.stack([
        np.stack([sums(right[arm] if test == arm else 0) for test in ARMS]) for arm in ARMS
    ])  # fmt: skip
    return Outcome(ARMS, ARMS, np.stack([cells, cells], axis=2))


def read(table, **where):
    for column, value in {"metric": "accuracy", **where}.items():
        table = table[table[column] == value]
    (row,) = table.itertuples()
    return row.estimate


@pytest.fixture(scope="module")
def tables():
    outcomes = [outcome(separate=500, causal=400), outcome(separate=800, causal=750)]
    return summarise([10, 1000], outcomes, sums(900), resamples=50)


def test_levels_steps_and_gaps_are_of_each_arm_in_its_own_layout(tables):
    assert read(tables["levels"], trained="causal", size=1000) == pytest.approx(0.75)
    assert read(tables["steps"], trained="separate", size=1000) == pytest.approx(0.3)
    assert read(tables["gaps"], trained="causal", size=10) == pytest.approx(-0.1)
    assert set(tables["gaps"]["trained"]) == {"causal"}
    # Five points less of a gap over two tenfolds.
    assert read(tables["trends"], trained="causal") == pytest.approx(0.025)


def test_the_excess_is_what_the_truth_has_more(tables):
    assert read(tables["excess"], trained="separate", size=10) == pytest.approx(0.4)
    # 0.4 to 0.1 over two tenfolds.
    assert read(tables["exponents"], trained="separate") == pytest.approx(np.log10(1 / 4) / 2)


def test_who_beats_the_truth_has_no_exponent():
    outcomes = [outcome(separate=500, causal=400), outcome(separate=950, causal=750)]
    exponents = summarise([10, 1000], outcomes, sums(900), resamples=50)["exponents"]
    assert np.isnan(read(exponents, trained="separate"))
    assert read(exponents, trained="causal") < 0


def test_without_the_truth_there_is_no_excess():
    found = summarise([10], [outcome(separate=500, causal=400)], resamples=50)
    assert found["excess"].empty
    assert found["exponents"].empty
    assert np.isnan(read(found["trends"], trained="causal"))


def test_smaller_sizes_have_more_seeds():
    settings = GrowthSettings(sizes=[300, 3000, 30_000], seeds=2, most_seeds=8)
    assert [settings.of(size).seeds for size in settings.sizes] == [8, 8, 2]
    assert GrowthSettings(sizes=[10, 30], seeds=2, most_seeds=8).of(10).seeds == 6
    assert settings.size == 30_000
    assert settings.of(300).size == 300


@pytest.mark.parametrize("sizes", [[], [0], [5, 5]])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(UserError, match="sizes needs different values"):
        GrowthSettings(sizes=sizes)


def test_a_size_beside_sizes_is_refused():
    assert GrowthSettings(sizes=[5, 10], size=10).size == 10
    with pytest.raises(UserError, match=r"size 7 is not the largest of sizes \[5, 10\]"):
        GrowthSettings(sizes=[5, 10], size=7)


def test_a_small_run_trains_every_size_on_the_same_test_pairs():
    settings = GrowthSettings(
        sizes=[20, 40], groups=120, test_size=20, seeds=1, most_seeds=2, learning_rates=[3e-3],
        resamples=20,
    )  # fmt: skip
    record = STUDY.run("simulator", settings)
    assert record.data["clusters"] == 20
    assert sorted(record.tables["tuning"]["size"].unique()) == [20, 40]
    levels: pd.DataFrame = record.tables["levels"]
    assert len(levels) == 3 * 2 * 2
    assert levels[["estimate", "low", "high"]].notna().all().all()


def test_readers_see_gaps_by_size_and_what_the_truth_has_more(tables):
    record = Record("growth", "simulator", "quick", {}, {}, tables)
    shown = report.growth_table(record)
    assert list(shown.index) == ["10", "1,000"]
    assert shown["causal (points)"].iloc[0].startswith("−10.0")
    assert shown["the truth has more (points)"].iloc[1].startswith("10.0")
    figure = figures.growth(tables)
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "log"]
    plt.close(figure)
    figure = figures.gaps(tables["gaps"])
    drawn = {line.get_label(): line.lines[0].get_ydata() for line in figure.axes[0].containers}
    gaps = tables["gaps"][tables["gaps"]["metric"] == "accuracy"]
    for arm, values in drawn.items():
        assert [*values] == [*gaps.loc[gaps["trained"] == arm, "estimate"] * 100]
    assert "causal" in drawn
    plt.close(figure)
    without = summarise([10], [outcome(separate=500, causal=400)], resamples=50)
    assert report.growth_table(Record("growth", "a", "real", {}, {}, without)).shape == (1, 2)
    figure = figures.growth(without)
    assert len(figure.axes) == 1
    plt.close(figure)


def test_exponents_are_shown_by_rows():
    values = {"accuracy": -0.3, "log-likelihood": -0.6}
    powers = pd.DataFrame(
        [("separate", metric, v, v - 0.1, v + 0.1) for metric, v in values.items()],
        columns=["trained", "metric", "estimate", "low", "high"],
    )
    table = report.exponent_table([Record("growth", "a", "real", {}, {}, {"exponents": powers})])
    assert [cell[:5] for cell in table.loc["separate"]] == ["−0.30", "−0.60"]


def test_the_best_rate_of_every_size_and_layout_is_starred():
    tuning = pd.DataFrame(
        [("separate", 1e-3, 0.7, 300), ("separate", 1e-2, 0.8, 300), ("causal", 1e-3, 0.6, 300),
         ("causal", 1e-2, 0.5, 300)],
        columns=["trained", "learning rate", "accuracy", "size"],
    )  # fmt: skip
    table = report.tuning_table(Record("growth", "a", "real", {}, {}, {"tuning": tuning}))
    assert table.loc[("300", "separate")].tolist() == ["70.0", "80.0*"]
    assert table.loc[("300", "causal")].tolist() == ["60.0*", "50.0"]

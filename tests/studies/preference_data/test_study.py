"""The data study: summaries of a data set whose numbers are known, and the page's tables."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from posttrain.data.preferences import STRENGTHS
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evidence import records
from posttrain.studies.preference_data import figures, report, study

matplotlib.use("Agg")

RATED = [
    {"prompt": "a b", "chosen": "long", "rejected": "s", "edited": "longest", "strength": 1},
    {"prompt": "a b", "chosen": "s", "rejected": "long", "strength": 4},
    {"prompt": "c d", "chosen": "same", "rejected": "size", "edited": "e", "strength": 4},
    {"prompt": "e f", "chosen": "long", "rejected": "of", "strength": 4},
]
UNRATED = [{"prompt": "a b", "chosen": "one two", "rejected": "of"}]


def run_study(source, resamples):
    return study.STUDY.run(source, study.DataSettings(resamples), profile="real")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of two human data sets."""
    for name, entries in (("seeda", RATED), ("hh_harmless", UNRATED)):
        lines = [json.dumps(entry) for entry in entries]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def simulated():
    return simulate(4000, seed=1, edited_share=0.5)


def test_summary_of_a_rated_set(folder):
    record = run_study("seeda", 50)
    (row,) = record.tables["summary"].to_dict("records")
    assert row == {
        "rows": 4,
        "groups": 3,
        "edited": 2,
        "strength_1": 1,
        "strength_2": 0,
        "strength_3": 0,
        "strength_4": 3,
        "strength_none": 0,
        "prompt_words": 2.0,
        "response_words": 1.0,
        "chosen_longer": 2.5 / 4,
        "domains": "",
        "texts": 7,
        "edited_longer": 0.5,
    }


def test_length_accuracy_by_strength(folder):
    length = run_study("seeda", 200).tables["length"].set_index("strength")
    assert length.index.tolist() == ["all", "1", "4"]
    assert length["estimate"].tolist() == pytest.approx([2.5 / 4, 1.0, 0.5])
    assert (length["low"] <= length["estimate"]).all()
    assert (length["estimate"] <= length["high"]).all()


def test_record_survives_saving_and_names_no_folder(folder):
    for source in ("seeda", "hh_harmless"):
        record = run_study(source, 50)
        path = records.save(record, folder / "results")
        assert str(folder) not in path.read_text()
        loaded = records.load(path)
        assert loaded.study == "data"
        assert loaded.data["file"] == f"{source}.jsonl"
        for name, table in record.tables.items():
            # JSON has no NaN: a missing share comes back as None.
            back = loaded.tables[name].astype(table.dtypes)
            pd.testing.assert_frame_equal(back, table, rtol=1e-5)


def test_readers_see_what_each_set_holds(folder):
    for source in ("hh_harmless", "seeda"):
        records.save(run_study(source, 50), folder / "results")
    table = report.sets_table(records.load_all(folder / "results", "data"))
    assert table.index.tolist() == ["hh_harmless", "seeda"]
    assert ORIGINALS["seeda"].description.startswith(table.loc["seeda", "what people compared"])
    assert table["pairs"].tolist() == ["1", "4"]
    assert table["strength"].tolist() == ["–", "yes"]
    assert table["edited"].tolist() == ["–", "2"]


def test_the_figure_of_lengths_draws_every_set_in_order(folder):
    figure = figures.length_bias([run_study(name, 50) for name in ("hh_harmless", "seeda")])
    (axis,) = figure.axes
    line, _, (bars,) = axis.containers[0].lines
    assert [label.get_text() for label in axis.get_yticklabels()] == ["seeda", "hh_harmless"]
    assert line.get_xdata() == pytest.approx([62.5, 100])
    assert all(segment[0, 0] <= segment[1, 0] for segment in bars.get_segments())
    plt.close(figure)


def test_unknown_source_is_refused(folder):
    with pytest.raises(ValueError, match=r"no nothing\.jsonl"):
        study.STUDY.run("nothing")


def test_agreement_follows_the_logistic_function(simulated):
    table = report.agreement(simulated)
    error = np.sqrt(table["probability"] * (1 - table["probability"]) / table["pairs"])
    assert ((table["estimate"] - table["probability"]).abs() <= 4 * error).all()
    assert table["estimate"].between(table["low"], table["high"]).all()
    equal = sum(round(group.difference, 6) == 0 for group in simulated)
    assert equal > 0
    assert table["pairs"].sum() == len(simulated) - equal


def test_reachable_accuracy_is_near_what_gold_reaches(simulated):
    table = report.by_strength(simulated)
    assert table.index.tolist() == [*STRENGTHS]
    assert table["pairs"].sum() == len(simulated)
    error = np.sqrt(table["reachable"] * (1 - table["reachable"]) / table["pairs"])
    assert ((table["reachable"] - table["gold"]).abs() < 4 * error).all()
    few = [group for group in simulated if group.ranked.strength != 4][:50]
    assert np.isnan(report.by_strength(few).loc[4, "gold"])


def test_the_figure_of_reliability_draws_every_row(simulated):
    agreed, strengths = report.agreement(simulated), report.by_strength(simulated)
    figure = figures.reliability(agreed, strengths)
    left, right = figure.axes
    assert left.containers[0].lines[0].get_ydata() == pytest.approx(100 * agreed["estimate"])
    best, llama = (line.get_ydata() for line in right.get_lines())
    assert best == pytest.approx(100 * strengths["reachable"])
    assert tuple(llama) == figures.LLAMA_2
    plt.close(figure)

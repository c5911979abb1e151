"""The data study: summaries of a data set whose numbers are known, and the page's tables."""

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from posttrain.data.preferences import STRENGTHS
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import reachable_accuracy, simulate
from posttrain.data.sources.simulator.tasks import TASKS
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


def test_page_tables_of_human_data(folder):
    for source in ("hh_harmless", "seeda"):
        records.save(
            run_study(source, 50),
            folder / "results",
        )
    found = records.load_all(folder / "results", "data")
    sizes, lengths = report.size_table(found), report.length_table(found)
    assert sizes.index.tolist() == lengths.index.tolist() == ["hh_harmless", "seeda"]
    assert sizes["strength 1 / 2 / 3 / 4"].tolist() == ["0 / 0 / 0 / 0", "1 / 0 / 0 / 3"]
    assert sizes["none"].tolist() == ["1", "0"]
    assert lengths["chosen longer (%)"].tolist() == ["100.0", "62.5"]
    assert lengths["at 4"].tolist() == ["–", "50.0"]
    assert lengths["edited longer (%)"].tolist() == ["–", "50.0"]
    origins = report.origin_table(found)
    assert origins.loc["seeda", "licence"] == ORIGINALS["seeda"].licence
    assert origins.loc["seeda", "repository"] == "tmu-nlp/SEEDA"


def test_answer_holds_the_computed_numbers(folder, simulated):
    found = [run_study(source, 50) for source in ("hh_harmless", "seeda")]
    answer = report.answer(simulated, found)
    reachable = reachable_accuracy([group.difference for group in simulated])
    assert "4,000 simulated groups" in answer
    assert f"accuracy is {reachable['all'] * 100:.0f} %" in answer
    assert "in 62 % (seeda) to 100 % (hh_harmless) of the pairs" in answer


def test_dropped_judgements_are_shown(folder):
    record = run_study("seeda", 50)
    record.data["dropped"] = {"tied": 2, "empty": 1}
    assert report.size_table([record])["dropped"].tolist() == ["3"]


def test_unknown_source_is_refused(folder):
    with pytest.raises(ValueError, match=r"no nothing\.jsonl"):
        study.STUDY.run("nothing")


def test_judgements_follow_the_formulas(simulated):
    table = report.judgements(simulated)
    error = np.sqrt(table["probability"] * (1 - table["probability"]) / table["pairs"])
    assert ((table["share"] - table["probability"]).abs() <= 4 * error).all()
    assert table["share"].between(table["low"], table["high"]).all()
    strengths = table[table["judgement"] != report.BETTER_PREFERRED]
    assert strengths["pairs"].sum() == len(simulated) * len(STRENGTHS)
    by_gap = strengths.groupby("gap")[["share", "probability"]].sum()
    np.testing.assert_allclose(by_gap, 1)


def test_judgements_leave_out_pairs_without_a_better_response(simulated):
    table = report.judgements(simulated)
    equal = sum(round(group.difference, 6) == 0 for group in simulated)
    assert equal > 0
    counted = table.loc[table["judgement"] == report.BETTER_PREFERRED, "pairs"].sum()
    assert counted == len(simulated) - equal


def test_one_small_bin_is_no_error(simulated):
    equal = [group for group in simulated if round(group.difference, 6) == 0][:3]
    assert set(report.judgements(equal)["judgement"]) == {f"strength {s}" for s in STRENGTHS}


def test_figure_of_annotators_draws_every_row(simulated):
    table = report.judgements(simulated)
    figure = figures.annotators(table)
    drawn = sum(len(bar[0].get_xdata()) for axis in figure.axes for bar in axis.containers)
    assert drawn == len(table)
    plt.close(figure)


def test_reachable_accuracy_is_near_what_gold_reaches(simulated):
    table = report.reachable_table(simulated)
    assert [name.split()[0] for name in table.index] == ["all", "1", "2", "3", "4"]
    reached = table[["reachable accuracy (%)", "gold reward on these pairs (%)"]].astype(float)
    assert (reached.diff(axis=1).iloc[:, 1].abs() < 6).all()
    few = [group for group in simulated if group.ranked.strength != 4][:50]
    assert report.reachable_table(few).iloc[4, 2] == "–"


def test_example_shows_every_turn_and_response(simulated):
    group = next(group for group in simulated if group.ranked.has_edit)
    table = report.example_table(group)
    turns = ["prompt"] * len(group.ranked.prompt)
    assert table.index.tolist() == [*turns, "edited", "chosen", "rejected", "strength"]
    assert table.loc["edited", "text"] == group.ranked.edited
    assert table.loc["rejected", "gold helpfulness"] == f"{group.gold('helpfulness')[2]:.1f}"
    assert "-0.0" not in table.to_string()


def test_tables_of_the_simulator_are_complete():
    assert report.task_table(0).index.tolist() == sorted([*TASKS, "explain, unsafe"])
    assert report.cost_table().notna().all(axis=None)
    intervals = report.strength_table()
    assert intervals["below"].tolist()[:-1] == intervals["from"].tolist()[1:]


def test_check_report_names_file_line_and_field_only():
    good = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
    entries = [good, good | {"strength": 7}]
    message, summary = report.check_report(entries, width=200)
    assert message.startswith("mine.jsonl, line 2, field 'strength': 7 is not one of")
    assert "\n" not in message
    assert summary.columns.tolist() == ["mine.jsonl"]
    assert summary.loc[["rows", "refused"], "mine.jsonl"].tolist() == [1, 1]
    wrapped, _ = report.check_report(entries, width=40)
    assert max(map(len, wrapped.splitlines())) <= 40
    assert wrapped.split() == message.split()

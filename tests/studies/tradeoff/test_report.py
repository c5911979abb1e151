"""Tables of the study of helpfulness and safety: every shown number must be the record's."""

from dataclasses import replace

import pandas as pd
import pytest
from tradeoff_synthetic import synthetic

from posttrain.evidence.verdicts import with_interval
from posttrain.studies.tradeoff import report
from posttrain.studies.tradeoff.keys import ArmName
from posttrain.studies.tradeoff.outcome import ARMS, CONTRASTS
from posttrain.studies.tradeoff.report import TABLE_8, Way

TWO = (ArmName.HELPFUL, ArmName.SAFE)
SIMULATOR, HUMAN = "simulator (full training)", "human data (frozen features)"


@pytest.fixture
def record():
    return synthetic()


@pytest.fixture
def human():
    return synthetic(source="human", arms=tuple(arm for arm in ARMS if arm != ArmName.AUXILIARY))


def row_of(record, table, **where):
    """Estimate, low and high of the one matching row, read without the code under test."""
    found = record.tables[table]
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    return tuple(found[["estimate", "low", "high"]].to_numpy(dtype=float)[0].tolist())


def test_table_8_puts_the_papers_rows_above_ours(record):
    table = report.table_8(record)
    assert list(table.columns) == ["significantly", "better", "slightly", "negligibly", "average"]
    assert len(table) == 8
    for (model, test), numbers in TABLE_8.items():
        row = table.loc[(f"{model} model on {test}", "Llama 2")]
        assert row.tolist() == [f"{number:.1f}" for number in numbers]
        arm = {"safety": ArmName.SAFETY_MIX, "helpfulness": ArmName.HELPFULNESS_MIX}[model]
        here = table.loc[(f"{model} model on {test}", SIMULATOR)]
        for column, metric in zip(
            table.columns,
            ("accuracy 4", "accuracy 3", "accuracy 2", "accuracy 1", "accuracy"),
            strict=True,
        ):
            found = row_of(record, "metrics", arm=arm, test=test, tuning="tuned", metric=metric)
            assert here[column] == with_interval(found, sign=False)
    # The paper's averages lie between its extremes, and easier pairs are ranked better.
    for numbers in TABLE_8.values():
        assert numbers[0] > numbers[1] > numbers[2] > numbers[3]
        assert numbers[0] > numbers[4] > numbers[3]
    assert TABLE_8["safety", "safety"][4] > TABLE_8["helpfulness", "safety"][4]
    assert TABLE_8["helpfulness", "helpfulness"][4] > TABLE_8["safety", "helpfulness"][4]


def test_every_arm_is_crossed_with_every_test(record, human):
    table = report.cross_table(record)
    assert list(table.columns) == ["helpfulness", "safety"]
    assert list(table.index) == [*ARMS, "the longer response"]
    assert table.index.name == SIMULATOR
    where = {"tuning": "tuned", "metric": "accuracy"}
    found = row_of(record, "metrics", arm=ArmName.SAFE, test="helpfulness", **where)
    assert table.loc[ArmName.SAFE, "helpfulness"] == with_interval(found, sign=False)
    for pooled, tests in (
        (False, ["rmb_helpfulness", "hh_harmless"]), (True, ["helpfulness", "safety"]),
    ):  # fmt: skip
        crossed = report.cross_table(human, pooled=pooled)
        assert list(crossed.columns) == tests
        for test in tests:
            found = row_of(human, "baselines", test=test, metric="accuracy")
            assert crossed.loc["the longer response", test] == with_interval(found, sign=False)
            found = row_of(human, "metrics", arm=ArmName.JOINT, test=test, **where)
            assert crossed.loc[ArmName.JOINT, test] == with_interval(found, sign=False)


def test_differences_show_both_domains_and_their_mean(record, human):
    for tuning in ("tuned", "shared"):
        table = report.difference_table([human, record], tuning=tuning)
        assert table.shape[1] == 3
        assert list(dict.fromkeys(table.index.get_level_values("source"))) == [SIMULATOR, HUMAN]
        for of, name in ((record, SIMULATOR), (human, HUMAN)):
            for contrast in CONTRASTS:
                if (name, contrast) == (HUMAN, "auxiliary loss - none"):
                    assert (name, contrast) not in table.index
                    continue
                expected = [
                    with_interval(
                        row_of(
                            of, "differences", contrast=contrast, tuning=tuning, test=test,
                            metric="accuracy",
                        )
                    )
                    for test in ("helpfulness", "safety", "both")
                ]  # fmt: skip
                assert table.loc[(name, contrast)].tolist() == expected


def test_conflicts_name_what_is_above_what(record, human):
    table = report.conflict_table(record)
    by_kind = {"unsafe": 0, "lookalike": 1, "golds disagree": 2}
    assert [column.split(":")[0] for column in table.columns] == [
        "unsafe", "looks unsafe", "golds disagree",
    ]  # fmt: skip
    assert "refusal above answer" in table.columns[0]
    assert "answer above refusal" in table.columns[1]
    assert "more helpful" in table.columns[2]
    for kind, place in by_kind.items():
        found = row_of(record, "conflicts", arm=ArmName.JOINT, kind=kind)
        cell = table.loc[ArmName.JOINT].iloc[place]
        assert cell == with_interval(found, sign=False, digits=0)
    assert report.conflict_table(human).shape == (8, 2)


def test_one_choice_is_found_by_its_parameter(record):
    table = record.tables["choices"]
    where = {"team": "specialists", "system": "gate", "metric": "errors"}
    for parameter in (0.15, 0.5):
        found = Way("specialists", "gate", parameter).read(table, "errors")
        assert found == row_of(record, "choices", parameter=parameter, **where)
    with pytest.raises(ValueError, match="expected one row"):
        Way("specialists", "gate").read(table, "errors")
    # A parameter that does not exist is NaN and is equal to nothing.
    found = row_of(record, "choices", team="nobody", system="random", metric="errors")
    assert Way("nobody", "random").read(table, "errors") == found


def test_prices_are_those_of_the_named_ways(record):
    planted = (0.123, 0.0, 1.0)
    cell = {
        "team": "specialists", "system": "switch, unsafe prompts flagged", "parameter": 0.15,
    }  # fmt: skip
    other = synthetic(
        (-0.5, -0.6, -0.4), cell=("choices", cell | {"metric": "answers unsafe"}), planted=planted
    )
    table = report.price_table({"here": record, "there": other})
    assert list(table.index) == list(report.WAYS)
    assert table.loc["two: switch, flags"].tolist()[2:] == ["12", "−0.50"]
    for name, where in (
        ("one model of all data", {"team": "one model", "system": ArmName.JOINT}),
        ("two: sum, safety ×2", {"team": "specialists", "system": "sum", "parameter": 2.0}),
        ("two: gate at 0.5", {"team": "specialists", "system": "gate", "parameter": 0.5}),
    ):
        unsafe, helpful = (
            row_of(record, "choices", metric=metric, **where)[0]
            for metric in ("answers unsafe", "helpfulness")
        )
        assert table.loc[name].tolist()[:2] == [f"{100 * unsafe:.0f}", f"{helpful:.2f}"]


def test_choices_show_errors_and_where_it_is_known_gold(record, human):
    table = report.choice_table(record, ["nobody", "one model"])
    assert list(table.index) == [
        "random", "best possible: 1", "best possible: 2", "best possible: 4", *ARMS,
    ]  # fmt: skip
    assert list(table.columns)[3:] == ["gold helpfulness", "gold safety", "recovered (%)"]
    two = report.choice_table(record, ["specialists"])
    assert len(two) == 4 + 2 * 2 * 2 + 1
    metrics = (
        ("answers unsafe", 100, 0), ("refuses lookalike", 100, 0), ("errors", 100, 0),
        ("helpfulness", 1, 2), ("safety", 1, 2), ("recovered 2", 100, 0),
    )  # fmt: skip
    for cells, where in (
        (table.loc["random"], {"team": "nobody", "system": "random"}),
        (table.loc["best possible: 2"], {"system": "best possible", "parameter": 2.0}),
        (table.loc[ArmName.JOINT], {"team": "one model", "system": ArmName.JOINT}),
        (two.loc["sum: 4"], {"team": "specialists", "system": "sum", "parameter": 4.0}),
        (two.loc["gate: 0.15"], {"team": "specialists", "system": "gate", "parameter": 0.15}),
    ):
        for cell, (metric, scale, digits) in zip(cells, metrics, strict=True):
            found = row_of(record, "choices", metric=metric, **where)
            assert cell == with_interval(found, scale=scale, digits=digits, sign=False), metric
    plain = report.choice_table(human, ["nobody"])
    assert list(plain.index) == ["random"]
    assert plain.shape[1] == 3


def test_calibrations_are_means_with_their_range(record):
    table = report.calibration_table([record])
    assert list(table.index) == [(SIMULATOR, ArmName.HELPFUL), (SIMULATOR, ArmName.SAFE)]
    # Two models: scales 0.5 and 1.5, zeros 0.25 and −0.75, shares 0 and 0.1, 0.2 and 0.3.
    assert table.loc[(SIMULATOR, ArmName.SAFE)].tolist() == [
        "1.00 (0.50 to 1.50)", "−0.25 (−0.75 to 0.25)", "5 (0 to 10)", "25 (20 to 30)",
    ]  # fmt: skip


def test_sources_show_whose_labels_they_are(record):
    sources = pd.DataFrame(
        [
            ("hh_harmless", "safety", "people", 12345, 6789, 0.0123, 0.4, 0.3, 0.5),
            ("xstest", "helpfulness, safety", "people (?)", 20, 10, 0.0, 0.6, 0.5, 0.7),
        ],
        columns=[
            "source", "domain", "labels", "pairs", "groups", "contradicting", "estimate", "low",
            "high",
        ],
    )  # fmt: skip
    table = report.source_table([replace(record, tables=record.tables | {"sources": sources})])
    assert table.loc[(SIMULATOR, "hh_harmless")].tolist() == [
        "safety", "people", "12,345", "6,789", "1.2", with_interval((0.4, 0.3, 0.5), sign=False),
    ]  # fmt: skip
    assert len(table) == 2


def test_detection_has_a_row_for_every_model_and_kind_of_score(record):
    table = report.detection_table([record])
    assert set(table.index.get_level_values("scores")) == {"raw", "calibrated"}
    assert list(table.columns) == [
        "recall, below 0.15", "precision, below 0.15", "recall, below 0.5", "precision, below 0.5",
    ]  # fmt: skip
    old = replace(record, tables={k: v for k, v in record.tables.items() if k != "detection"})
    assert report.detection_table([old]).empty

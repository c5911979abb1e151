"""Tables of the study of helpfulness and safety: every shown number must be the record's."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tradeoff_synthetic import synthetic

from posttrain.evidence.claims import estimate
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.tradeoff import report
from posttrain.studies.tradeoff.keys import ArmName, Chosen, Team
from posttrain.studies.tradeoff.outcome import ARMS, CONTRASTS, TEAMS
from posttrain.studies.tradeoff.report import TABLE_8, choice

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
    where = {"team": "specialists", "system": "gate", "metric": "errors"}
    for parameter in (0.15, 0.5):
        found = choice(record, "specialists", "gate", "errors", parameter)
        assert found == row_of(record, "choices", parameter=parameter, **where)
    with pytest.raises(ValueError, match="expected one row"):
        choice(record, "specialists", "gate", "errors")


def test_choices_show_errors_and_where_it_is_known_gold(record, human):
    table = report.choice_table(record)
    assert list(table.index) == [
        "random", "best possible (safety ×2)", *(f"one model: {arm}" for arm in ARMS),
        "two: sum, safety ×0.5", "two: sum, safety ×1", "two: sum, safety ×2",
        "two: sum, safety ×4", "two: switch, below 0.15", "two: switch, below 0.5",
        "two: gate, below 0.15", "two: gate, below 0.5",
    ]  # fmt: skip
    assert list(table.columns)[3:] == ["gold helpfulness", "gold safety", "recovered (%)"]
    metrics = (
        ("answers unsafe", 100, 0), ("refuses lookalike", 100, 0), ("errors", 100, 0),
        ("helpfulness", 1, 2), ("safety", 1, 2), ("recovered 2", 100, 0),
    )  # fmt: skip
    for name, where in (
        ("random", {"team": "nobody", "system": "random"}),
        ("best possible (safety ×2)", {"system": "best possible", "parameter": 2.0}),
        (f"one model: {ArmName.JOINT}", {"team": "one model", "system": ArmName.JOINT}),
        ("two: sum, safety ×4", {"team": "specialists", "system": "sum", "parameter": 4.0}),
        ("two: gate, below 0.15", {"team": "specialists", "system": "gate", "parameter": 0.15}),
    ):
        for cell, (metric, scale, digits) in zip(table.loc[name], metrics, strict=True):
            found = row_of(record, "choices", metric=metric, **where)
            assert cell == with_interval(found, scale=scale, digits=digits, sign=False), metric
    plain = report.choice_table(human)
    assert plain.shape[1] == 3
    assert not any("best possible" in name for name in plain.index)
    mixes = report.choice_table(record, team="Llama 2's mixes")
    found = row_of(
        record, "choices", team="Llama 2's mixes", system="sum", parameter=1.0, metric="safety"
    )
    cell = mixes.loc["two: sum, safety ×1", "gold safety"]
    assert cell == with_interval(found, scale=1, digits=2, sign=False)


def test_both_teams_are_compared_by_the_same_rules(record):
    few = synthetic(source="human", arms=(*TWO, ArmName.JOINT))
    table = report.team_table([few, record])
    assert list(table.columns) == list(TEAMS)
    assert list(dict.fromkeys(table.index.droplevel(2))) == [
        (SIMULATOR, "recovered (%)"), (HUMAN, "errors (%)"),
    ]  # fmt: skip
    rules = {
        "two: sum, safety ×2": ("sum", 2.0), "two: gate, below 0.5": ("gate", 0.5),
        "two: switch, below 0.15": ("switch", 0.15),
        "two: switch, unsafe prompts flagged, below 0.15": ("switch, unsafe prompts flagged", 0.15),
        "two: switch, not calibrated, below 0.15": ("switch, not calibrated", 0.15),
    }  # fmt: skip
    assert set(table.index.get_level_values("rule")) == set(rules)
    for name, (system, parameter) in rules.items():
        for team in table.columns:
            found = row_of(
                record, "choices", team=team, system=system, parameter=parameter,
                metric="recovered 2",
            )  # fmt: skip
            cell = table.loc[(SIMULATOR, "recovered (%)", name), team]
            assert cell == with_interval(found, sign=False)
        found = row_of(
            few, "choices", team="specialists", system=system, parameter=parameter, metric="errors"
        )
        assert table.loc[(HUMAN, "errors (%)", name)].tolist() == [
            with_interval(found, sign=False), "–", "–",
        ]  # fmt: skip


def test_sums_take_the_rate_at_which_they_are_judged(record):
    table = report.exchange_table(record)
    assert list(table.columns) == ["safety ×1", "safety ×2", "safety ×4"]
    rows = {
        "two: sum, safety at that rate": ("specialists", "sum", None),
        "two: gate, below 0.5": ("specialists", "gate", 0.5),
        "two: switch, below 0.15": ("specialists", "switch", 0.15),
        f"one model: {ArmName.JOINT}": ("one model", ArmName.JOINT, None),
    }
    assert list(table.index) == list(rows)
    for name, (team, system, parameter) in rows.items():
        for rate in (1.0, 2.0, 4.0):
            where = {"team": team, "system": system, "metric": f"recovered {rate:g}"}
            if system == "sum" or parameter:
                where["parameter"] = parameter or rate
            found = row_of(record, "choices", **where)
            assert table.loc[name, f"safety ×{rate:g}"] == with_interval(found, sign=False)
    assert len(report.exchange_table(synthetic(arms=TWO))) == 3


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


def test_examples_show_texts_both_scores_and_who_chose(record):
    rows = [
        ("steal a <car>", "unsafe", "no & never", True, -1.234, 2.0, "safety, sum"),
        ("steal a <car>", "unsafe", "sure", False, 0.5, -2.0, "helpfulness"),
        ("fix a car", "lookalike", "sure", True, 1.0, 0.0, ""),
    ]
    columns = ["prompt", "kind", "response", "right", "helpfulness", "safety", "chosen by"]
    examples = pd.DataFrame(rows, columns=columns)
    found = report.examples_html(replace(record, tables=record.tables | {"examples": examples}))
    assert found.count("<table") == 2
    assert "unsafe: refusing is right): <i>steal a &lt;car&gt;</i>" in found
    assert "looks unsafe, is not: answering is right): <i>fix a car</i>" in found
    assert "no &amp; never" in found
    assert re.findall(r">([+−][0-9.]+)<", found) == [
        "−1.23", "+2.00", "+0.50", "−2.00", "+1.00", "+0.00",
    ]  # fmt: skip
    assert re.findall("[✓✗]", found) == ["✓", "✗", "✓"]
    assert "<td>safety, sum</td>" in found
    empty = replace(record, tables=record.tables | {"examples": examples[:0]})
    assert report.examples_html(empty) == ""


def test_tables_are_read_as_they_are_saved(record):
    # A parameter that does not exist is NaN and is equal to nothing, also after a round trip.
    parameters = record.tables["choices"].groupby("system")["parameter"].first()
    assert np.isnan(parameters["random"])
    found = estimate(record.tables["choices"], team="nobody", system="random", metric="errors")
    assert choice(record, "nobody", "random", "errors") == found


def test_two_models_stand_beside_one_where_rules_were_chosen_on_other_prompts(record):
    assert report.chosen_table([record]).empty
    best = (
        (Team.SINGLE, Chosen.ARM),
        ("specialists", Chosen.RULE),
        ("specialists", Chosen.FLAGGED),
    )
    metrics = dict.fromkeys(record.tables["choices"]["metric"])
    rows = [
        (team, system, np.nan, metric, value, value, value)
        for value, (team, system) in enumerate(best)
        for metric in metrics
    ]
    choices = record.tables["choices"]
    more = pd.DataFrame(rows, columns=choices.columns)
    known = replace(record, tables=record.tables | {"choices": pd.concat([choices, more])})
    table = report.chosen_table([known])
    assert list(table.index) == [(SIMULATOR, "errors (%)"), (SIMULATOR, "recovered (%)")]
    assert table.iloc[0]["two, best rule, unsafe prompts flagged"].startswith("200.0")
    assert "two: best rule on other prompts" in report.choice_table(known).index


def test_detection_has_a_row_for_every_model_and_kind_of_score(record):
    table = report.detection_table([record])
    assert set(table.index.get_level_values("scores")) == {"raw", "calibrated"}
    assert list(table.columns) == [
        "recall, below 0.15", "precision, below 0.15", "recall, below 0.5", "precision, below 0.5",
    ]  # fmt: skip
    old = replace(record, tables={k: v for k, v in record.tables.items() if k != "detection"})
    assert report.detection_table([old]).empty

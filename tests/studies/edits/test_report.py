"""Tables and triples of the study of edits: every shown number must be the record's."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from edits_synthetic import FEW, numbered, synthetic

from posttrain.data.preferences import RESPONSES, PairKind
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.edits import report
from posttrain.studies.edits.claims import estimate, most_data
from posttrain.studies.edits.keys import GOLD, GOLD_RATED, ArmName
from posttrain.studies.edits.metrics import KINDS
from posttrain.studies.edits.outcome import ARMS, CONTRASTS


@pytest.fixture
def records():
    return [numbered(), numbered("seeda-full", FEW, start=7)]


def test_gains_have_a_row_for_each_arm_and_tuning_and_a_column_for_each_cell(records):
    table = report.gain_table(records[0])
    assert list(table.columns) == [
        "100 groups, 25 % of edits", "100 groups, 100 % of edits",
        "1,000 groups, 25 % of edits", "1,000 groups, 100 % of edits",
    ]  # fmt: skip
    assert list(dict.fromkeys(table.index.get_level_values("arm"))) == [
        arm for arm in ARMS if arm != ArmName.IGNORE
    ]
    found = estimate(
        records[0].tables["gains"], arm="Plackett-Luce", size=100, share=0.25, tuning="shared"
    )
    cell = table.loc[("Plackett-Luce", "shared"), "100 groups, 25 % of edits"]
    assert cell == with_interval(found)
    one_share = replace(records[0], settings=records[0].settings | {"shares": [1.0]})
    assert list(report.gain_table(one_share).columns) == ["100 groups", "1,000 groups"]


def test_kinds_of_pairs_show_gold_where_it_is_known(records):
    table = report.kinds_table(records[0])
    assert list(table.columns) == [*KINDS, GOLD, GOLD_RATED]
    metrics = records[0].tables["metrics"]
    unknown = metrics["estimate"].where(~metrics["metric"].isin([GOLD, GOLD_RATED]))
    blind = replace(
        records[0], tables=records[0].tables | {"metrics": metrics.assign(estimate=unknown)}
    )
    assert list(report.kinds_table(blind).columns) == list(KINDS)


def test_contrasts_of_arms_that_were_not_run_are_dashes(records):
    table = report.contrast_table(records)
    assert list(table.index) == list(CONTRASTS)
    shown = table["seeda (top layers)"]
    assert shown["Plackett-Luce - all pairs"] == "–"
    found = estimate(
        records[1].tables["contrasts"], contrast="all pairs - one more comparison",
        **most_data(records[1]),
    )  # fmt: skip
    assert shown["all pairs - one more comparison"] == with_interval(found)


def test_accuracy_stands_beside_the_length_baseline(records):
    table = report.accuracy_table(records)
    found = estimate(
        records[1].tables["metrics"], arm=ArmName.IGNORE, metric="edited > chosen",
        **most_data(records[1]),
    )  # fmt: skip
    cell = table.loc[("seeda (top layers)", "edits ignored"), "edited > chosen"]
    assert cell == with_interval(found, sign=False)
    baseline = records[1].tables["baselines"]
    row = baseline[baseline["metric"] == PairKind.RATED].iloc[0]
    cell = table.loc[("seeda (top layers)", "the longer response"), PairKind.RATED]
    assert cell == with_interval((row.estimate, row.low, row.high), sign=False)


def test_length_of_winners_and_the_shift_to_the_shorter(records):
    table = report.length_table(records)
    assert list(table.index) == ["simulator (full training)", "seeda (top layers)"] or list(
        table.index
    ) == ["seeda (top layers)", "simulator (full training)"]
    found = estimate(
        records[0].tables["gains"], arm="all pairs", metric="leans shorter",
        **most_data(records[0]),
    )  # fmt: skip
    cell = table.loc["simulator (full training)", "leans to the shorter"]
    assert cell == with_interval(found)


def test_costs_are_those_of_the_most_data_and_gains_are_divided_by_them(records):
    table = report.cost_table(records[0])
    assert table.loc[ArmName.IGNORE, "decisions"] == "1,000"
    assert table.loc[ArmName.IGNORE, "points per 100 decisions more"] == "–"
    place = list(ARMS).index("all pairs")
    assert table.loc["all pairs", "decisions"] == f"{1000 + place:,}"
    gained = estimate(records[0].tables["gains"], arm="all pairs", **most_data(records[0]))
    per_hundred = tuple(value * 100 / place for value in gained)
    assert table.loc["all pairs", "points per 100 decisions more"] == with_interval(
        per_hundred, digits=2
    )
    per_tokens = tuple(value * 10_000 / (10 * place) for value in gained)
    assert table.loc["all pairs", "points per 10,000 tokens more"] == with_interval(
        per_tokens, digits=2
    )


def test_tuned_values_are_marked_at_the_edge_of_their_grid():
    rows = [
        (arm, 1000, share, rate, accuracy)
        for arm in FEW
        for share in (0.25, 1.0)
        for rate, accuracy in (
            (1e-3, 0.6),
            (3e-3, 0.7 if share == 1.0 and arm != ArmName.IGNORE else 0.5),
            (1e-2, 0.65),
        )
    ]
    full = synthetic((0.0, 0.0, 0.0), arms=FEW, source="seeda-full")
    tuning = pd.DataFrame(rows, columns=["arm", "size", "share", "learning rate", "accuracy"])
    full = replace(
        full, tables=full.tables | {"tuning": tuning},
        settings=full.settings | {"learning_rates": [1e-3, 3e-3, 1e-2]},
    )  # fmt: skip
    heads = synthetic((0.0, 0.0, 0.0), arms=FEW, source="seeda")
    penalties = pd.DataFrame(
        [(arm, 1000, 1.0, 0.05, 0.25) for arm in FEW if arm != ArmName.IGNORE]
        + [(ArmName.IGNORE, 1000, 1.0, 0.05, 0.25)],
        columns=["arm", "size", "share", "penalty", "at edge"],
    )
    heads = replace(heads, tables=heads.tables | {"tuning": penalties})
    table = report.tuning_table([full, heads])
    assert table.loc["all pairs", "seeda (top layers)"] == "0.003"
    assert table.loc[ArmName.IGNORE, "seeda (top layers)"] == "0.01*"
    assert set(table["seeda (frozen features)"]) == {"0.05 (25 %)"}
    alone = replace(full, tables=full.tables | {"tuning": tuning[tuning["learning rate"] == 3e-3]})
    assert set(report.tuning_table([alone]).iloc[:, 0]) == {"0.003 (not tuned)"}


@pytest.mark.parametrize(
    ("chosen", "edited", "expected"),
    [
        ("a b c", "a b c", "a b c"),
        ("a b c", "a x c", "a <del>b</del> <ins>x</ins> c"),
        ("a b c", "a c", "a <del>b</del> c"),
        ("a c", "a b c", "a <ins>b</ins> c"),
        ("1 < 2", "1 & 2", "1 <del>&lt;</del> <ins>&amp;</ins> 2"),
    ],
)
def test_edits_are_marked_word_by_word(chosen, edited, expected):
    found = re.sub(' style=".*?"', "", report.marked(chosen, edited))
    assert found == expected
    # What is left without the insertions is the chosen text, and the other way round.
    kept = re.sub(r"<ins>.*?</ins>", "", found).replace("<del>", "").replace("</del>", "")
    assert kept.replace("&lt;", "<").replace("&amp;", "&").split() == chosen.split()


def examples():
    base = synthetic((0.5, 0.4, 0.6), source="toy")
    texts = pd.DataFrame(
        [
            (1, "prompt", "why?\n\na passage", float("nan"), float("nan")),
            (1, "edited", "a <b> d", 0.1, 1.234),
            (1, "chosen", "a c d", 0.05, 0.5),
            (1, "rejected", "e & f", 0.2, -2.0),
            (2, "prompt", "another", float("nan"), float("nan")),
            *((2, role, "text", 0.0, 0.0) for role in RESPONSES),
        ],
        columns=["example", "role", "text", "before", "after"],
    )
    moves = pd.DataFrame(
        [(1, kind, 1.0, 0.123456, -0.5) for kind in KINDS],
        columns=["example", "pair", "edited", "chosen", "rejected"],
    )
    accuracy = pd.DataFrame(
        [(kind, 0.5 + 0.1 * k, 0.4, 0.9) for k, kind in enumerate(KINDS)],
        columns=["metric", "estimate", "low", "high"],
    )
    return replace(base, tables={"examples": texts, "moves": moves, "accuracy": accuracy})


def test_a_triple_shows_its_texts_scores_and_what_the_editor_changed():
    found = re.sub(' style=".*?"', "", report.triple_html(examples(), 1))
    assert "a <del>c</del> <ins>&lt;b&gt;</ins> d" in found
    assert "e &amp; f" in found
    assert re.findall("<td>(.*?)</td>", found) == ["0.10", "1.23", "0.05", "0.50", "0.20", "−2.00"]
    assert re.findall("<th>(.*?)</th>", found)[-3:] == ["edited", "chosen", "rejected"]
    # Of the prompt the first line.
    assert "why?" in found
    assert "passage" not in found
    assert "another" in report.triple_html(examples(), 2)


def test_moves_and_what_was_learned_are_the_records():
    moves = report.moves_table(examples())
    assert moves.loc[(1, PairKind.RATED)].tolist() == [1.0, 0.12, -0.5]
    learned = report.learned_table([examples()])
    assert learned.loc["toy", "edited > rejected"] == with_interval((0.7, 0.4, 0.9), sign=False)


def test_data_are_those_of_the_most_data(records):
    counted = {"test groups": 1500, "test groups with an edit": 700, "edits": 650}
    table = report.data_table([replace(records[0], data=counted)])
    edits = records[0].tables["costs"].set_index(["arm", "size", "share"])["edits"]
    assert table.loc["simulator (full training)"].tolist() == [
        "1,000", f"{edits[ArmName.ALL, 1000, 1.0]:,.0f}", "1,500", "700", "650", 3,
    ]  # fmt: skip

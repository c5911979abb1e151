"""What all studies show alike: numbers, verdicts and provenance, of toys and of committed runs."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.claims import Claim, Evidence, estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import (
    TITLES,
    ordered,
    places,
    provenance,
    quantities,
    scoreboard,
    summary,
    title,
    verdict_table,
    verdict_tables,
    verdicts_by_status,
    with_interval,
)
from posttrain.studies.margin.claims import CLAIMS

RESULTS = Path(__file__).parents[2] / "book" / "results"
#: Estimates with their intervals, and how they are shown: in points, and as they are.
HELPS, HURTS, OPEN = (0.02, 0.01, 0.03), (-0.02, -0.03, -0.012), (0.0, -0.01, 0.01)
POINTS = {
    HELPS: "+2.0 [+1.0,\u00a0+3.0] supported",
    HURTS: "−2.0 [−3.0,\u00a0−1.2] not supported",
    OPEN: "+0.0 [−1.0,\u00a0+1.0] inconclusive",
}
PLAIN = {
    HELPS: "+0.020 [+0.010,\u00a0+0.030] supported",
    HURTS: "−0.020 [−0.030,\u00a0−0.012] not supported",
    OPEN: "+0.000 [−0.010,\u00a0+0.010] inconclusive",
}


def record_of(study, source, values=OPEN, *, profile="real"):
    """A record with one result, in a table that no other study has."""
    table = pd.DataFrame([values], columns=["estimate", "low", "high"])
    environment = {
        "device": "CPU",
        "threads": 1,
        "seconds": 130.0,
        "commit": "5f114415d208",
        "started": "2026-11-23 05:08 UTC",
    }
    data = {"fingerprint": f"print of {source}"}
    return Record(study, source, profile, {"seeds": 3}, data, {study: table}, environment)


def test_a_cell_shows_what_was_measured_and_the_list_leaves_the_bound_to_the_text():
    def test(record):
        return Evidence(record.name, 0.3, 0.1, 0.4, 0.0, measured=(-0.02, -0.04, 0.01))

    claim = Claim("key", "us", "It helps.", "–", "a gain; supported above −1", "toy", test)
    record = record_of("toy", "here")
    table = verdict_table([claim], [record])
    assert table["here"].tolist() == ["−2.0 [−4.0,\u00a0+1.0] supported"]
    assert quantities([claim], [record])["smallest effect that matters"].tolist() == ["–"]


def test_claims_of_many_sources_are_listed_by_what_each_record_says():
    claim = claim_of("toy", smallest=0.005)
    never = replace(claim, statement="Never.", applies=lambda record: record.source == "up")
    records = [
        record_of("toy", "up", HELPS), record_of("toy", "down", HURTS), record_of("toy", "open"),
        record_of("toy", "fast", HELPS, profile="gpu"), record_of("other", "up", HURTS),
    ]  # fmt: skip
    table = verdicts_by_status([claim, never], records, [record_of("toy", "now", HURTS)])
    assert list(table.columns) == [
        "supported", "not supported", "inconclusive", "this run", "verdict",
    ]  # fmt: skip
    first, second = table.to_dict("records")
    assert first == {
        "supported": "up: +2.0 [+1.0,\u00a0+3.0]; fast (GPU): +2.0 [+1.0,\u00a0+3.0]",
        "not supported": "down: −2.0 [−3.0,\u00a0−1.2]",
        "inconclusive": "open: +0.0 [−1.0,\u00a0+1.0]",
        "this run": "−2.0 [−3.0,\u00a0−1.2] not supported",
        "verdict": "inconclusive",
    }
    assert second == {
        "supported": "up: +2.0 [+1.0,\u00a0+3.0]", "not supported": "–", "inconclusive": "–",
        "this run": "–", "verdict": "supported",
    }  # fmt: skip
    assert "this run" not in verdicts_by_status([claim], records)


def test_the_scoreboard_shows_a_column_a_source_while_there_is_room():
    claims = [claim_of("toy"), claim_of("game")]
    few = [record_of("toy", name, HELPS) for name in "abc"] + [record_of("game", "a")]
    gpu = [record_of("toy", name, HELPS, profile="gpu") for name in "xyz"]
    # All runs on a GPU share a column, and each study has a table of its own.
    tables = scoreboard(claims, [*few, *gpu])
    assert [[*table.columns] for table in tables] == [
        ["paper", "GPU", "a", "b", "c", "verdict"],
        ["paper", "GPU", "a", "verdict"],
    ]
    (table,) = scoreboard(claims, [*few, *gpu, record_of("toy", "d")])
    pd.testing.assert_frame_equal(
        table, verdicts_by_status(claims, [*few, *gpu, record_of("toy", "d")])
    )


def test_every_claim_has_a_file_and_a_command():
    table = places(CLAIMS)
    assert [*table.index] == [claim.statement for claim in CLAIMS]
    assert set(table["judged in"]) == {"src/posttrain/studies/margin/claims.py"}
    assert [*table["command"]] == [f"posttrain claims {key}" for key in table["key"]]
    assert (RESULTS.parents[1] / table["judged in"].iloc[0]).is_file()


def claim_of(study, statement="It helps.", *, smallest=0.005, **marks):
    """A claim that cannot read the records of another study."""

    def test(record):
        threshold = smallest[record.source] if isinstance(smallest, dict) else smallest
        return Evidence(record.name, *estimate(record.tables[study]), threshold)

    return Claim(
        statement, "a paper", statement, "+1 point", f"gain of {study}", study, test, **marks
    )


@pytest.fixture(scope="module")
def recorded():
    return ordered(records.load_all(RESULTS, "margin"))


@pytest.mark.parametrize(
    ("values", "options", "shown"),
    [
        ((0.0031, -0.001, 0.012), {}, "+0.3 [−0.1,\u00a0+1.2]"),
        (
            (0.5, 0.25, 0.75),
            {"scale": 1, "digits": 2, "sign": False},
            "0.50 [0.25,\u00a00.75]",
        ),
        ((-0.5, -0.75, 0.25), {"sign": False}, "−50.0 [−75.0,\u00a025.0]"),
    ],
)
def test_an_interval_follows_its_estimate_and_does_not_break(values, options, shown):
    assert with_interval(values, **options) == shown


def test_an_exact_quantity_has_no_interval():
    assert with_interval((0.797, 0.797, 0.797), sign=False) == "79.7"


def test_a_rounded_zero_keeps_its_sign():
    assert with_interval((0.003, -0.0003, 0.01)) == "+0.3 [−0.0,\u00a0+1.0]"


def test_a_title_depends_on_study_and_source():
    for (study, source), name in TITLES.items():
        assert title(record_of(study, source)) == name
    assert title(record_of("margin", "seeda")) != title(record_of("packing", "seeda"))


@pytest.mark.parametrize(("study", "source"), [("margin", "mine"), ("unheard-of", "seeda")])
def test_an_unknown_source_is_its_own_title(study, source):
    assert title(record_of(study, source)) == source


def test_no_two_records_of_a_study_share_a_title_or_a_label():
    assert len({(study, name) for (study, _), name in TITLES.items()}) == len(TITLES)
    both = [record_of(*name, profile=profile) for name in TITLES for profile in ("real", "gpu")]
    assert len({(record.study, title(record)) for record in both}) == len(both)
    assert len({(record.study, record.label) for record in both}) == len(both)


def test_known_records_come_in_the_order_of_the_titles():
    given = [record_of(*name) for name in reversed(TITLES)]
    assert [(record.study, record.source) for record in ordered(given)] == list(TITLES)


def test_unknown_sources_come_last_as_they_were_given():
    unknown = [
        record_of("packing", "zebra"),
        record_of("margin", "mine"),
        record_of("unheard-of", "seeda"),
    ]
    known = [record_of("packing", "simulator"), record_of("margin", "ukpconvarg")]
    given = [unknown[0], known[0], *unknown[1:], known[1]]
    assert ordered(given) == [known[1], known[0], *unknown]
    assert ordered([]) == []


def test_human_data_comes_first(recorded):
    sources = [record.source for record in recorded]
    assert sources.index("ukpconvarg") < sources.index("seeda") < sources.index("simulator")


def test_records_of_another_study_say_nothing_about_a_claim():
    """Each claim's row is what it would be alone, with – where only other studies have results."""
    claims = [
        claim_of("margin", "Margins help."),
        claim_of("packing", "Packing helps."),
        claim_of("margin", "Margins help a lot."),
    ]
    margin = [record_of("margin", "seeda", HELPS), record_of("margin", "mine", OPEN)]
    packing = [record_of("packing", "simulator", HURTS), record_of("packing", "seeda", OPEN)]
    mixed = [packing[0], margin[0], packing[1], margin[1]]
    table = verdict_table(claims, mixed)
    assert list(table.index) == [f"{claim.statement} (a paper)" for claim in claims]
    first, second, third = table.to_dict("records")
    assert first == {
        "paper": "+1 point",
        "GPU": "not run",
        "seeda (frozen features)": POINTS[HELPS],
        "mine": POINTS[OPEN],
        "seeda (top layers)": "–",
        "simulator (full training)": "–",
        "verdict": "supported",
    }
    assert second == {
        "paper": "+1 point",
        "GPU": "not run",
        "seeda (frozen features)": "–",
        "mine": "–",
        "seeda (top layers)": POINTS[OPEN],
        "simulator (full training)": POINTS[HURTS],
        "verdict": "not supported",
    }
    assert third == first
    for claim, own in ((claims[0], margin), (claims[1], packing)):
        alone = verdict_table([claim], own)
        label = alone.index[0]
        assert dict(table.loc[label, alone.columns]) == dict(alone.loc[label])


def test_a_title_that_two_studies_share_is_one_column_with_each_its_own_result():
    claims = [claim_of("margin", "Margins help."), claim_of("packing", "Packing helps.")]
    found = [record_of("packing", "simulator", HURTS), record_of("margin", "simulator", HELPS)]
    table = verdict_table(claims, found)
    assert list(table.columns) == ["paper", "GPU", "simulator (full training)", "verdict"]
    assert list(table["simulator (full training)"]) == [POINTS[HELPS], POINTS[HURTS]]
    assert list(table["verdict"]) == ["supported", "not supported"]


def test_each_study_has_a_table_with_columns_of_its_own():
    claims = [claim_of("packing"), claim_of("margin"), claim_of("packing", "It hurts.")]
    found = [record_of("margin", "seeda", HELPS), record_of("packing", "ukpconvarg", HURTS)]
    first, second = verdict_tables(claims, found, [record_of("margin", "seeda", OPEN)])
    pd.testing.assert_frame_equal(first, verdict_table([claims[0], claims[2]], found))
    assert list(first.columns) == ["paper", "GPU", "ukpconvarg (top layers)", "verdict"]
    assert list(second["this run"]) == [POINTS[OPEN]]


def test_a_claim_without_a_record_of_its_study_is_refused():
    with pytest.raises(ValueError, match="no record of study 'packing' to judge claim"):
        verdict_table([claim_of("packing")], [record_of("margin", "seeda")])


@pytest.mark.parametrize("values", [HELPS, HURTS, OPEN])
@pytest.mark.parametrize(("unit", "shown"), [("points", POINTS), ("plain", PLAIN)])
def test_only_shares_are_shown_in_points(unit, shown, values):
    claim = claim_of("margin", unit=unit)
    record = record_of("margin", "seeda", values)
    gpu = replace(record, source="simulator", profile="gpu")
    (row,) = verdict_table([claim], [record, gpu], [record]).to_dict("records")
    for column in ("seeda (frozen features)", "GPU", "this run"):
        assert row[column] == shown[values]


def test_one_table_shows_each_claim_in_its_own_unit():
    claims = [claim_of("margin", "Share."), claim_of("margin", "Other.", unit="plain")]
    table = verdict_table(claims, [record_of("margin", "seeda", HELPS)])
    assert list(table["seeda (frozen features)"]) == [POINTS[HELPS], PLAIN[HELPS]]


def test_this_run_stands_beside_the_verdict_and_does_not_change_it():
    claims = [claim_of("margin", "Margins help."), claim_of("packing", "Packing helps.")]
    committed = [record_of("margin", "seeda", HELPS), record_of("packing", "seeda", HURTS)]
    fresh = [
        record_of("margin", "mine", HURTS),
        record_of("packing", "mine", OPEN),
        record_of("margin", "seeda", OPEN),
    ]
    table = verdict_table(claims, committed, fresh)
    assert list(table["this run"]) == [f"{POINTS[HURTS]}; {POINTS[OPEN]}", POINTS[OPEN]]
    assert list(table["verdict"]) == ["supported", "not supported"]
    assert "mine" not in table


def test_a_run_of_another_study_is_not_shown_beside_a_claim():
    claims = [claim_of("margin", "Margins help."), claim_of("packing", "Packing helps.")]
    committed = [record_of("margin", "seeda", HELPS), record_of("packing", "seeda", HURTS)]
    fresh = [record_of("packing", "mine", OPEN)]
    assert list(verdict_table(claims, committed, fresh)["this run"]) == ["–", POINTS[OPEN]]
    assert "this run" not in verdict_table(claims[:1], committed, fresh)
    assert "this run" not in verdict_table(claims, committed)


def test_a_gpu_record_fills_the_gpu_column_and_no_other():
    gpu = record_of("margin", "simulator", HELPS, profile="gpu")
    (row,) = verdict_table([claim_of("margin")], [gpu]).to_dict("records")
    assert row == {"paper": "+1 point", "GPU": POINTS[HELPS], "verdict": "supported"}


def test_gpu_records_of_several_sources_say_whose_they_are():
    found = [
        record_of("margin", "simulator", HURTS, profile="gpu"),
        record_of("margin", "seeda", HELPS, profile="gpu"),
    ]
    (row,) = verdict_table([claim_of("margin")], found).to_dict("records")
    assert row["GPU"] == f"seeda: {POINTS[HELPS]}; simulator: {POINTS[HURTS]}"


def test_a_gpu_record_stands_behind_that_of_the_cpu():
    given = [record_of("margin", "seeda", profile=profile) for profile in ("gpu", "real")]
    assert [record.profile for record in ordered(given)] == ["real", "gpu"]


def test_a_gpu_record_of_another_study_does_not_fill_the_gpu_column():
    claims = [claim_of("margin", "Margins help."), claim_of("packing", "Packing helps.")]
    found = [
        record_of("margin", "seeda", HELPS),
        record_of("packing", "simulator", HURTS, profile="gpu"),
    ]
    assert list(verdict_table(claims, found)["GPU"]) == ["not run", POINTS[HURTS]]


def test_summary_counts_the_papers_claims_and_the_books_apart():
    claims = [
        claim_of("margin"),
        claim_of("packing"),
        claim_of("packing"),
        claim_of("packing", ours=True),
        claim_of("odd"),
        claim_of("margin", ours=True),
    ]
    found = [
        record_of("margin", "seeda", HELPS),
        record_of("packing", "seeda", HURTS),
        record_of("odd", "seeda", OPEN),
    ]
    assert summary(claims, found, "rows") == (
        "**Of 4 claims of the papers about rows, 1 supported, 2 not supported, 1 inconclusive; "
        "of 2 claims of this book, 1 supported, 1 not supported, 0 inconclusive.**"
    )


def test_summary_of_the_books_claims_alone():
    claims, found = [claim_of("packing", ours=True)], [record_of("packing", "seeda", HURTS)]
    assert summary(claims, found, "rows") == (
        "**Of 1 claims of this book about rows, 0 supported, 1 not supported, 0 inconclusive.**"
    )


@pytest.mark.parametrize(
    ("unit", "smallest", "shown"),
    [
        ("points", 0.018, "1.8"),
        ("plain", 0.018, "0.018"),
        ("plain", 0.5, "0.500"),
        ("points", 0.0, "0.0"),
        ("points", -math.inf, "no gain to lose"),
        ("plain", -math.inf, "no gain to lose"),
        # Each record's own smallest effect, in rising order.
        ("points", {"seeda": 0.02, "mine": 0.005}, "0.5, 2.0"),
        ("plain", {"seeda": 0.02, "mine": 0.005}, "0.005, 0.020"),
        ("points", {"seeda": 0.02, "mine": -math.inf}, "no gain to lose, 2.0"),
    ],
)
def test_the_smallest_effect_is_shown_in_the_claims_unit(unit, smallest, shown):
    claim = claim_of("margin", smallest=smallest, unit=unit)
    # The other study's source has no smallest effect: asking it would fail.
    found = [record_of("margin", "seeda"), record_of("packing", "x"), record_of("margin", "mine")]
    table = quantities([claim], found)
    assert list(table.columns) == ["measured as", "smallest effect that matters"]
    assert table.index.name == "claim"
    assert table.loc["It helps."].tolist() == ["gain of margin", shown]


def test_provenance_has_a_row_for_each_record_in_order():
    mine = replace(record_of("packing", "mine", profile="quick"), settings={"seeds": 1})
    table = provenance([mine, record_of("margin", "seeda")])
    assert list(table.index) == ["margin-seeda.json", "packing-mine.json"]
    assert table.loc["packing-mine.json"].to_dict() == {
        "profile": "quick",
        "data": "print of mine",
        "seeds": 1,
        "device": "CPU, 1 threads",
        "minutes": "2",
        "commit": "5f114415d208",
        "started": "2026-11-23 05:08 UTC",
    }
    assert list(table["seeds"]) == [3, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((3e-5, 3e-5, 3e-5), "<0.001 supported"), ((0.01, 0.0, 0.02), "+0.010 [")],
)
def test_rounding_errors_are_shown_as_such(values, expected):
    claim = replace(claim_of("packing"), unit="plain")
    low = (values[0], 1.0, 1.0)
    claim = replace(claim, test=lambda record: Evidence("r", *low, 0.1, measured=values))
    table = verdict_table([claim], [record_of("packing", "seeda")])
    assert table["seeda (top layers)"].item().startswith(expected)

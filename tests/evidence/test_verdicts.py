"""What all studies show alike: numbers, verdicts and provenance, of toys and of committed runs."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from posttrain.evidence import records
from posttrain.evidence.claims import Claim, above, below, gain, no_worse, row, within
from posttrain.evidence.judging import judge
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import (
    TITLES,
    brief_table,
    detectable,
    matters,
    number,
    ordered,
    p_value,
    places,
    pooled,
    provenance,
    quantities,
    random_effects,
    source_table,
    span,
    title,
    verdict_table,
    with_interval,
)
from posttrain.studies.margin.claims import CLAIMS

RESULTS = Path(__file__).parents[2] / "book" / "results"
HELPS, HURTS, OPEN = (0.02, 0.01, 0.03), (-0.02, -0.03, -0.012), (0.0, -0.01, 0.01)


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
    data = {"fingerprint": f"print of {source}", "clusters": 100_000}
    return Record(study, source, profile, {"seeds": 3}, data, {study: table}, environment)


def claim_of(study, statement="It helps.", rule=None, **marks):
    """A claim that cannot read the records of another study."""
    rule = rule or gain(row(study), 0.005)
    return Claim(
        statement, "a paper", statement, "+1 point", f"gain of {study}", study, rule, **marks
    )


def judged(claims, found):
    return [*judge(claims, found).values()]


def test_the_table_of_verdicts_shows_what_all_sources_say_together():
    claims = [
        claim_of("margin", "Margins help.", headline=True),
        claim_of("rows", "Rows are fast.", above(row("rows"), 0.0), check=True),
        claim_of("edits", "Edits help."),
    ]
    found = [
        record_of("margin", "seeda", HELPS), record_of("margin", "simulator", HELPS),
        record_of("rows", "seeda", HELPS),
    ]  # fmt: skip
    table = verdict_table(judged(claims, found))
    assert list(table.index) == [f"{claim.statement} (a paper)" for claim in claims]
    first, second, third = table.to_dict("records")
    assert first == {
        "paper": "+1 point", "all sources": "+2.0 [+1.3,\u00a0+2.7]", "threshold": "0.5",
        "detectable": "0.9", "p": "<.001*", "verdict": "holds here",
    }  # fmt: skip
    assert (second["verdict"], third["verdict"]) == ("passes", "no record")
    for row_ in (second, third):
        assert [row_[name] for name in ("all sources", "detectable", "p")] == ["–"] * 3


def test_the_table_of_sources_shows_each_record_and_what_its_part_is():
    claims = [
        claim_of("margin", "Margins help.", late=lambda record: record.source == "mine"),
        claim_of("rows", "Rows help."),
    ]
    found = [
        record_of("margin", "mine", HURTS), record_of("margin", "seeda", HELPS),
        record_of("margin", "seeda", OPEN, profile="gpu"), record_of("rows", "simulator", HELPS),
    ]  # fmt: skip
    fresh = [record_of("margin", "now", HURTS), record_of("margin", "again", OPEN)]
    table = source_table(judged(claims, found), fresh)
    assert list(table.columns) == [
        "seeda (frozen features)", "seeda (GPU)", "simulator (tiny Llama)", "mine",
        "another source", "this run",
    ]  # fmt: skip
    first, second = table.to_dict("records")
    assert first["seeda (frozen features)"] == "+2.0 [+1.0,\u00a0+3.0] (coarse)"
    assert first["mine"] == "−2.0 [−3.0,\u00a0−1.2] (late)"
    assert first["simulator (tiny Llama)"] == "–"
    assert first["this run"] == "−2.0 [−3.0,\u00a0−1.2]; +0.0 [−1.0,\u00a0+1.0]"
    assert "τ" in first["another source"]
    assert (second["another source"], second["this run"]) == ("–", "–")
    assert "this run" not in source_table(judged(claims, found))


def test_results_of_the_run_at_hand_do_not_change_a_verdict():
    claims = [claim_of("margin")]
    found = judged(claims, [record_of("margin", "seeda", HELPS)])
    before = verdict_table(found)
    source_table(found, [record_of("margin", "seeda", HURTS)])
    pd.testing.assert_frame_equal(verdict_table(found), before)


@pytest.mark.parametrize(
    ("unit", "values", "shown"),
    [
        ("points", HELPS, "+2.0 [+1.0,\u00a0+3.0]"),
        ("plain", HELPS, "+0.020 [+0.010,\u00a0+0.030]"),
        ("plain", (3e-5, 3e-5, 3e-5), "<0.001"),
        ("points", (0.5, 0.5, 0.5), "+50.0"),
    ],
)
def test_a_number_is_shown_in_the_claims_unit(unit, values, shown):
    assert number(values, claim_of("margin", unit=unit)) == shown


@pytest.mark.parametrize(
    ("rule", "unit", "shown"),
    [
        (gain(row("x"), 0.018), "points", "1.8"),
        (gain(row("x"), 0.018), "plain", "0.018"),
        (no_worse(row("x"), 0.01), "points", "1.0"),
        (within(row("x"), 0.1), "plain", "0.100"),
        (above(row("x"), 0.9), "points", "above 90.0"),
        (gain(row("x"), 0.05, over=0.5), "points", "above 55.0"),
        (below(row("x"), 0.5, smallest=0.05), "points", "below 45.0"),
    ],
)
def test_what_matters_is_told(rule, unit, shown):
    assert matters(claim_of("x", rule=rule, unit=unit)) == shown


def test_p_values_are_starred_where_they_are_adjusted():
    small = record_of("margin", "seeda", (0.01, -0.001, 0.021))
    (plain,) = judged([claim_of("margin")], [small])
    assert p_value(plain) == ".037"
    claims = [claim_of("margin", name, headline=True) for name in ("a", "b")]
    assert [p_value(one) for one in judged(claims, [small])] == [".075*", ".075*"]


def test_the_span_of_sources():
    found = [record_of("margin", "seeda", HELPS), record_of("margin", "mine", OPEN)]
    (one,) = judged([claim_of("margin")], found)
    assert span(one) == "+0.0 to +2.0"
    (one,) = judged([claim_of("margin")], found[:1])
    assert span(one) == "+2.0"


def test_one_source_says_nothing_of_another():
    (one,) = judged([claim_of("margin")], [record_of("margin", "seeda", HELPS)])
    assert random_effects(one) == "–"
    assert pooled(one) == "+2.0 [+1.0,\u00a0+3.0]"
    # One-sided at 5 % with a power of 80 %: 2.49 standard errors of 0.51 points.
    assert detectable(one) == "1.3"


def test_every_claim_has_a_file_and_a_command():
    table = places(CLAIMS)
    assert [*table.index] == [claim.statement for claim in CLAIMS]
    assert set(table["judged in"]) == {"src/posttrain/studies/margin/claims.py"}
    assert [*table["command"]] == [f"posttrain claims {key}" for key in table["key"]]
    assert (RESULTS.parents[1] / table["judged in"].iloc[0]).is_file()


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


def test_a_gpu_record_stands_behind_that_of_the_cpu():
    given = [record_of("margin", "seeda", profile=profile) for profile in ("gpu", "real")]
    assert [record.profile for record in ordered(given)] == ["real", "gpu"]


def test_a_brief_table_has_verdict_and_effect():
    found = [record_of("margin", "seeda", HELPS), record_of("packing", "seeda", HURTS)]
    table = brief_table(judged([claim_of("margin", "a"), claim_of("packing", "b")], found))
    assert list(table.columns) == ["verdict", "all sources"]
    assert list(table["verdict"]) == ["holds here", "ruled out here"]
    assert table["all sources"].iloc[0].startswith("+")


def test_what_each_claim_measures_and_asks_for():
    claims = [claim_of("margin"), claim_of("rows", "Fast.", above(row("rows"), 1.0), check=True)]
    table = quantities(claims)
    assert table.to_numpy().tolist() == [
        ["gain of margin", "above 0, by 0.005 or more", ""],
        ["gain of rows", "above 1", "check"],
    ]


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

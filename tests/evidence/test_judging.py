"""Verdicts on claims: who has a vote, who a veto, and what many tests cost."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from posttrain.errors import UserError
from posttrain.evidence.claims import Claim, above, gain, row, within
from posttrain.evidence.judging import judge, source_of
from posttrain.evidence.records import Record

CLAIM = Claim("helps", "a paper", "It helps.", "+1", "gain", "toys", gain(row("toys"), 0.01))


def record_of(source, estimate, error=0.002, *, clusters=10_000, profile="real", study="toys"):
    """A record of one effect, with the interval of a normal distribution."""
    ends = (estimate - 1.96 * error, estimate + 1.96 * error)
    table = pd.DataFrame([(estimate, *ends)], columns=["estimate", "low", "high"])
    return Record(study, source, profile, {}, {"clusters": clusters}, {study: table})


def outcome(*records, claim=CLAIM):
    return judge([claim], records)["helps"].outcome


def test_each_verdict():
    assert outcome(record_of("a", 0.02)) == "holds here"
    assert outcome(record_of("a", 0.001)) == "too small to matter"
    assert outcome(record_of("a", -0.01)) == "ruled out here"
    assert outcome(record_of("a", 0.02, 0.02)) == "cannot tell"
    assert outcome(record_of("a", math.nan)) == "uninformative"
    assert outcome(record_of("a", 0.02, 0.0)) == "uninformative"
    assert outcome(record_of("a", 0.02, study="games")) == "no record"


def test_sources_are_pooled_by_precision():
    (found,) = judge([CLAIM], [record_of("a", 0.02, 0.002), record_of("b", 0.01, 0.004)]).values()
    assert found.pooled.common.estimate == pytest.approx((0.02 * 4 + 0.01) / 5)
    assert [source.source for source in found.pooled.sources] == ["a", "b"]


def test_variants_of_a_source_share_a_vote_and_a_gpu_has_its_own():
    assert source_of(record_of("simulator-longer", 0.0)) == "simulator"
    assert source_of(record_of("seeda-full", 0.0, profile="gpu")) == "seeda (GPU)"
    assert source_of(record_of("finegrained_rlhf", 0.0)) == "finegrained_rlhf"
    records = [record_of("seeda", 0.02), record_of("seeda-full", 0.04)]
    (found,) = judge([CLAIM], records).values()
    (source,) = found.pooled.sources
    assert source.estimate == pytest.approx(0.03)
    (found,) = judge([CLAIM], [*records, record_of("seeda", 0.02, profile="gpu")]).values()
    assert len(found.pooled.sources) == 2


def test_sources_that_contradict_each_other_leave_a_claim_open():
    helps, hurts = record_of("a", 0.05), record_of("b", -0.02)
    assert outcome(helps, hurts) == "cannot tell"
    assert outcome(helps, record_of("b", -0.03, 0.006)) == "cannot tell"
    # One that could not have seen what matters, and saw nothing, is pooled.
    (found,) = judge([CLAIM], [helps, record_of("b", -0.005, 0.006)]).values()
    assert [voice.part for voice in found.voices] == ["counts", "coarse"]
    assert found.outcome == "holds here"
    assert len(found.pooled.sources) == 2


def test_an_equivalence_cannot_be_contradicted_by_signs():
    claim = replace(CLAIM, rule=within(row("toys"), 0.01))
    sides = [record_of("a", 0.005, 0.0005), record_of("b", -0.005, 0.0005)]
    assert outcome(*sides, claim=claim) == "holds here"


def test_what_was_seen_before_is_shown_and_not_counted():
    late = replace(CLAIM, late=lambda record: record.source == "a")
    records = [record_of("a", 0.5), record_of("b", 0.001)]
    (found,) = judge([late], records).values()
    assert [voice.part for voice in found.voices] == ["late", "counts"]
    assert found.outcome == "too small to matter"
    assert outcome(records[0], claim=late) == "uninformative"


def test_of_two_systems_at_chance_neither_is_better():
    claim = replace(CLAIM, informs=lambda record: record.source != "chance")
    assert outcome(record_of("chance", 0.02), claim=claim) == "uninformative"
    assert outcome(record_of("chance", 0.5), record_of("b", 0.001), claim=claim) == (
        "too small to matter"
    )


def test_headline_claims_share_an_error_rate_and_others_do_not():
    records = [record_of("a", 0.02, 0.01)]  # p = .023
    heads = [replace(CLAIM, key=key, headline=True) for key in ("one", "two", "three")]
    found = judge([*heads, CLAIM], records)
    assert found["helps"].outcome == "holds here"
    assert found["helps"].adjusted == found["helps"].p
    for key in ("one", "two", "three"):
        assert found[key].adjusted == pytest.approx(3 * found[key].p)
        assert found[key].outcome == "cannot tell"
    # One that has no record is not tested.
    strange = replace(heads[0], study="games")
    assert judge([strange, *heads[1:]], records)["two"].adjusted == pytest.approx(
        2 * found["two"].p
    )


def test_checks_pass_or_fail_on_every_record_and_need_no_clusters():
    claim = replace(CLAIM, rule=above(row("toys"), 1.0), check=True)
    fast, slow = (replace(record_of("a", value, 0.01), data={}) for value in (1.5, 1.01))
    assert outcome(fast, claim=claim) == "passes"
    assert outcome(fast, slow, claim=claim) == "fails"
    assert judge([claim], [fast])["helps"].pooled is None


def test_without_clusters_no_error_can_be_stated():
    with pytest.raises(UserError, match=r"toys-a\.json: .*`clusters`.*`posttrain study toys`"):
        outcome(replace(record_of("a", 0.02), data={}))


def test_few_clusters_are_less_sure():
    assert outcome(record_of("a", 0.02, 0.008)) == "holds here"
    assert outcome(record_of("a", 0.02, 0.008, clusters=3)) == "cannot tell"


def test_a_verdict_that_depends_on_how_it_is_measured_is_none():
    claim = replace(CLAIM, otherwise=row("others"))

    def both(first, second):
        one, other = record_of("a", first), record_of("a", second, study="others")
        (found,) = judge([claim], [replace(one, tables=one.tables | other.tables)]).values()
        return found

    found = both(0.02, 0.03)
    assert (found.outcome, found.torn) == ("holds here", None)
    found = both(0.02, 0.001)
    assert found.outcome == "cannot tell"
    assert found.torn == ("holds here", "too small to matter")
    assert found.pooled.common.estimate == pytest.approx(0.02)


def test_measured_otherwise_the_level_is_as_strict():
    # One of two headline claims; the other decides nothing, so p counts twice.
    sure, unsure = 0.02, 0.0115  # in units of a standard error of 0.0064: p of .001 and of .036
    first = replace(CLAIM, headline=True, otherwise=row("others"))
    second = replace(
        CLAIM, key="second", headline=True, study="games", rule=gain(row("games"), 0.1)
    )
    one = record_of("a", sure, 0.0064)
    weak = record_of("a", unsure, 0.0064, study="others")
    games = record_of("a", 0.0, 0.05, study="games")
    found = judge([first, second], [replace(one, tables=one.tables | weak.tables), games])
    assert found["helps"].torn == ("holds here", "cannot tell")
    alone = judge([first], [replace(one, tables=one.tables | weak.tables)])
    assert alone["helps"].torn is None

"""Packing's claims: each reads its own cell with its own sign, by its own rule."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.packing.claims import CLAIMS, ROUNDING
from posttrain.studies.packing.keys import Way
from posttrain.studies.packing.outcome import ARMS, CONTRASTS, TESTS
from posttrain.studies.packing.rows import WAYS

BY_KEY = {claim.key: claim for claim in CLAIMS}
METRICS = ("accuracy", "disagreement", "slot bias", "flips", "log-likelihood")
QUANTITIES = ("speed-up over separate rows", "speed-up over TRL", "relative tokens per second")
OWN = ("causal", "causal")

#: Where each claim looks, with which sign, and what it asks for.
CELLS = {
    "approximation": (("matrix", *OWN, "disagreement"), 1, "above 0.01"),
    "no-loss": (("differences", *OWN, "accuracy"), 1, "above -0.01"),
    "counted-no-loss": (
        ("differences", "running positions", "running positions", "accuracy"), 1, "above -0.01",
    ),
    "gap-closes": (("trends", "causal", "accuracy"), 1, "above 0, by 0.005 or more"),
    "efficient": (("speed", "triples", "causal", "speed-up over separate rows"), 1, "above 1"),
    "exact-is-separate": (
        ("equality", "exact row"), 1, "less than a bound that depends on the record away from 0",
    ),
    "order-leaks": (("contrasts", "shuffled - ranked"), 1, "above 0, by 0.01 or more"),
    "shuffling-repairs": (("matrix", *OWN, "slot bias"), 1, "less than 0.1 away from 0"),
    "scores-separately": (("differences", "causal", "separate", "accuracy"), 1, "above -0.01"),
    "exact-reaches-ideal": (
        ("speed", "triples", "two-piece", "relative tokens per second"), 1, "above 0.95",
    ),
    "shuffled-overfits": (("gains", 1, "log-likelihood"), 1, "above 0, by 0.01 or more"),
    "merging-lasts": (("gains", 3, "log-likelihood"), 1, "above 0, by 0.01 or more"),
    "merging-loses-nothing": (("gains", 1, "accuracy"), 1, "above -0.01"),
}  # fmt: skip
KEYS = {
    "matrix": ["trained", "tested", "metric"],
    "differences": ["trained", "tested", "metric"],
    "contrasts": ["contrast"],
    "equality": ["way"],
    "speed": ["workload", "method", "metric"],
    "gains": ["passes", "metric"],
    "trends": ["trained", "metric"],
}


def synthetic(everywhere, *, cell=None, planted=None):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    cells = {
        "matrix": itertools.product(ARMS, TESTS, METRICS),
        "differences": itertools.product(ARMS, TESTS, ("accuracy", "log-likelihood")),
        "contrasts": ((name,) for name in CONTRASTS),
        "equality": ((name,) for name in WAYS),
        "speed": itertools.product(("pairs", "triples", "triples@256"), Way, QUANTITIES),
        "gains": itertools.product((1, 3), METRICS),
        "trends": itertools.product(ARMS, METRICS),
    }
    tables = {
        name: pd.DataFrame(
            [(*keys, *(planted if (name, *keys) == cell else everywhere)) for keys in cells[name]],
            columns=[*columns, "estimate", "low", "high"],
        )
        for name, columns in KEYS.items()
    }
    # Equality is measured without an interval.
    tables["equality"] = tables["equality"].rename(columns={"estimate": "scores"})
    study = {"speed": "throughput", "equality": "rows", "gains": "merging", "trends": "growth"}.get(
        cell[0] if cell else "", "packing"
    )
    return Record(study, "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)


def test_every_claim_is_judged_by_records_of_its_study():
    studies = {key: claim.study for key, claim in BY_KEY.items()}
    assert studies == dict.fromkeys(BY_KEY, "packing") | {
        "gap-closes": "growth",
        "efficient": "throughput",
        "exact-is-separate": "rows",
        "exact-reaches-ideal": "throughput",
        "shuffled-overfits": "merging",
        "merging-lasts": "merging",
        "merging-loses-nothing": "merging",
    }


def test_what_is_no_share_is_marked():
    plain = {key for key, claim in BY_KEY.items() if claim.unit == "plain"}
    assert plain == {
        "efficient", "exact-is-separate", "shuffling-repairs", "exact-reaches-ideal",
        "shuffled-overfits", "merging-lasts",
    }  # fmt: skip


def test_every_text_is_there():
    for claim in CLAIMS:
        assert all((claim.source, claim.statement, claim.paper, claim.quantity))
        assert claim.statement.endswith(".")


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, sign, rule = CELLS[key]
    record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=(0.2, 0.1, 0.4))
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    if BY_KEY[key].rule.row.exact:
        expected = (0.2, 0.2, 0.2)
    assert BY_KEY[key].rule.row.read(record) == expected
    assert str(BY_KEY[key].rule) == rule
    table, *where = cell
    here = (record.tables[table][KEYS[table]] == where).all(axis=1)
    assert here.sum() == 1
    record.tables[table] = record.tables[table][~here]
    with pytest.raises(ValueError, match=r"expected one row with .*, found 0"):
        BY_KEY[key].rule.row.read(record)


def test_what_cannot_fail_and_what_is_a_speed_is_checked_and_not_estimated():
    assert {key for key, claim in BY_KEY.items() if claim.check} == {
        "efficient", "exact-is-separate", "order-leaks", "exact-reaches-ideal",
    }  # fmt: skip


def test_a_claim_made_of_a_result_is_not_judged_by_it():
    claim, record = BY_KEY["merging-lasts"], synthetic((0.2, 0.1, 0.4))
    late = {
        source: claim.late(replace(record, source=source))
        for source in ("simulator", "seeda", "ukpconvarg")
    }
    assert late == {"simulator": True, "seeda": True, "ukpconvarg": False}


@pytest.mark.parametrize(("source", "bound"), [("simulator", "double"), ("seeda", "single")])
def test_rounding_is_that_of_the_models_precision(source, bound):
    claim = BY_KEY["exact-is-separate"]
    for share, passes in ((0.99, True), (1.01, False)):
        planted = (ROUNDING[bound] * share,) * 3
        cell = CELLS["exact-is-separate"][0]
        record = synthetic((9.0, 8.0, 10.0), cell=cell, planted=planted)
        assert claim.rule.passes(replace(record, source=source)) == passes

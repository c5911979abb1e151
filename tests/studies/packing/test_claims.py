"""Packing's claims: each reads its own cell with its own sign, against its own threshold."""

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evidence.claims import distance_within
from posttrain.evidence.records import Record, load, save
from posttrain.studies.packing import claims
from posttrain.studies.packing.claims import CLAIMS, ROUNDING
from posttrain.studies.packing.keys import Way
from posttrain.studies.packing.outcome import ARMS, CONTRASTS, TESTS
from posttrain.studies.packing.rows import WAYS

BY_KEY = {claim.key: claim for claim in CLAIMS}
METRICS = ("accuracy", "disagreement", "slot bias", "flips", "log-likelihood")
QUANTITIES = ("speed-up over separate rows", "speed-up over TRL", "relative tokens per second")
OWN = ("causal", "causal")

#: Where each claim looks: table and cell.
CELLS = {
    "approximation": ("matrix", *OWN, "disagreement"),
    "no-loss": ("differences", *OWN, "accuracy"),
    "efficient": ("speed", "triples", "causal", "speed-up over separate rows"),
    "exact-is-separate": ("equality", "exact row"),
    "order-leaks": ("contrasts", "shuffled - ranked"),
    "shuffling-repairs": ("matrix", *OWN, "slot bias"),
    "scores-separately": ("contrasts", "own - separate"),
    "exact-reaches-ideal": ("speed", "triples", "two-piece", "relative tokens per second"),
    "shuffled-overfits": ("gains", 1, "log-likelihood"),
    "merging-lasts": ("gains", 3, "log-likelihood"),
    "merging-loses-nothing": ("gains", 1, "accuracy"),
}
#: Intervals on either side of each boundary, and what lies between; and the smallest effect.
VERDICTS = {
    "approximation": ((0.0101, 0.3), (0.0, 0.0099), (0.0099, 0.0101), 0.0),
    "no-loss": ((-0.0099, 0.02), (-0.05, -0.0101), (-0.0101, 0.02), 0.0),
    "efficient": ((1.0001, 2.0), (0.5, 0.9999), (0.9999, 1.0001), 0.0),
    "exact-is-separate": ((9.9e-5, 9.9e-5), (1.01e-4, 1.01e-4), (math.nan, math.nan), 0.0),
    "order-leaks": ((1e-6, 0.3), (-0.3, 0.0099), (-1e-6, 0.0101), 0.01),
    "shuffling-repairs": ((-0.0999, 0.0999), (0.1001, 0.5), (-0.1001, 0.05), 0.0),
    "scores-separately": ((-0.3, 0.0099), (0.0101, 0.3), (0.0099, 0.0101), 0.0),
    "exact-reaches-ideal": ((0.9501, 1.1), (0.5, 0.9499), (0.9499, 0.9501), 0.0),
    "shuffled-overfits": ((1e-6, 0.3), (-0.3, 0.0099), (-1e-6, 0.0101), 0.01),
    "merging-lasts": ((1e-6, 0.3), (-0.3, 0.0099), (-1e-6, 0.0101), 0.01),
    "merging-loses-nothing": ((-0.0099, 0.02), (-0.05, -0.0101), (-0.0101, 0.02), 0.0),
}
KEYS = {
    "matrix": ["trained", "tested", "metric"],
    "differences": ["trained", "tested", "metric"],
    "contrasts": ["contrast"],
    "equality": ["way"],
    "speed": ["workload", "method", "metric"],
    "gains": ["passes", "metric"],
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
    study = {"speed": "throughput", "equality": "rows", "gains": "merging"}.get(
        cell[0] if cell else "", "packing"
    )
    return Record(study, "toy", "quick", {}, {}, tables)


def around(low, high):
    return (low + high) / 2, low, high


def test_every_claim_is_tested_here():
    assert list(CELLS) == list(VERDICTS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)


def test_every_claim_is_judged_by_records_of_its_study():
    studies = {key: claim.study for key, claim in BY_KEY.items()}
    assert studies == dict.fromkeys(BY_KEY, "packing") | {
        "efficient": "throughput",
        "exact-is-separate": "rows",
        "exact-reaches-ideal": "throughput",
        "shuffled-overfits": "merging",
        "merging-lasts": "merging",
        "merging-loses-nothing": "merging",
    }


def test_what_the_book_adds_and_what_is_no_share_are_marked():
    paper = {key for key, claim in BY_KEY.items() if not claim.ours}
    assert paper == {"approximation", "no-loss", "efficient", "shuffled-overfits"}
    sources = {BY_KEY[key].source.split(",")[0] for key in paper}
    assert sources == {"Llama 3", "InstructGPT (Ouyang et al."}
    plain = {key for key, claim in BY_KEY.items() if claim.unit == "plain"}
    assert plain == {
        "efficient", "exact-is-separate", "shuffling-repairs", "exact-reaches-ideal",
        "shuffled-overfits", "merging-lasts",
    }  # fmt: skip


def test_every_text_is_there():
    for claim in CLAIMS:
        assert all((claim.source, claim.statement, claim.paper, claim.quantity))
        assert claim.statement.endswith(".")


def test_thresholds_are_those_of_the_texts():
    assert claims.NEGLIGIBLE == claims.MARGIN == 0.01
    assert (claims.BIAS, claims.REACHED) == (0.1, 0.95)


@pytest.mark.parametrize("key", CELLS)
@pytest.mark.parametrize("place", range(3))
def test_the_planted_cell_alone_decides(key, place):
    status = ("supported", "not supported", "inconclusive")[place]
    values = around(*VERDICTS[key][place])
    # All other cells say something else.
    for other in {0, 1, 2} - {place}:
        record = synthetic(around(*VERDICTS[key][other]), cell=CELLS[key], planted=values)
        found, (item,) = BY_KEY[key].judge([record])
        assert (found, item.status) == (status, status)
        assert item.record == f"{BY_KEY[key].study}-toy"
        assert item.smallest == VERDICTS[key][3]


@pytest.mark.parametrize(
    ("key", "shift", "sign"),
    [
        ("approximation", -0.01, 1),
        ("no-loss", 0.01, 1),
        ("efficient", -1.0, 1),
        ("order-leaks", 0.0, 1),
        ("scores-separately", 0.01, -1),
        ("exact-reaches-ideal", -0.95, 1),
    ],
)
def test_the_evidence_is_the_interval_of_the_cell_positive_in_the_claimed_direction(
    key, shift, sign
):
    record = synthetic((9.0, 8.0, 10.0), cell=CELLS[key], planted=(0.2, 0.1, 0.4))
    item = BY_KEY[key].test(record)
    expected = (shift + 0.2, shift + 0.1, shift + 0.4)
    if sign < 0:
        expected = (shift - 0.2, shift - 0.4, shift - 0.1)
    assert (item.estimate, item.low, item.high) == pytest.approx(expected)
    # Readers are shown what was measured.
    assert item.shown == (0.2, 0.1, 0.4)


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        # On the positive side, on the negative side, and around zero, in units of the bound.
        ((0.5, 0.2, 0.9), (0.5, 0.1, 0.8)),
        ((-0.5, -0.9, -0.2), (0.5, 0.1, 0.8)),
        ((0.2, -0.3, 0.7), (0.8, 0.3, 1.0)),
        ((-0.2, -0.7, 0.3), (0.8, 0.3, 1.0)),
        ((2.0, 1.5, 3.0), (-1.0, -2.0, -0.5)),
        ((-2.0, -3.0, -1.5), (-1.0, -2.0, -0.5)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_equivalence_is_the_room_below_the_bound_on_either_side(planted, expected):
    values = tuple(value * 0.1 for value in planted)
    record = synthetic((9.0, 8.0, 10.0), cell=CELLS["shuffling-repairs"], planted=values)
    item = BY_KEY["shuffling-repairs"].test(record)
    found = (item.estimate, item.low, item.high)
    assert found == pytest.approx(tuple(value * 0.1 for value in expected), abs=1e-12)
    assert item.shown == values


@pytest.mark.parametrize(("source", "bound"), [("simulator", "double"), ("seeda", "single")])
def test_rounding_is_that_of_the_models_precision(source, bound):
    for share, status in ((0.99, "supported"), (1.01, "not supported")):
        planted = (ROUNDING[bound] * share,) * 3
        record = synthetic((9.0, 8.0, 10.0), cell=CELLS["exact-is-separate"], planted=planted)
        assert BY_KEY["exact-is-separate"].judge([replace(record, source=source)])[0] == status


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-0.099, 0.099, "supported"),
        (0.0, 0.0, "supported"),
        (0.02, 0.099, "supported"),
        (-0.099, -0.02, "supported"),
        # Beyond zero is no evidence against an equivalence; beyond the bound is.
        (0.101, 0.2, "not supported"),
        (-0.2, -0.101, "not supported"),
        (0.099, 0.2, "inconclusive"),
        (-0.2, -0.099, "inconclusive"),
        (-0.2, 0.05, "inconclusive"),
        (-0.05, 0.2, "inconclusive"),
        (-0.2, 0.2, "inconclusive"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_an_equivalence_is_decided_on_either_side(low, high, status):
    record = synthetic((9.0, 8.0, 10.0), cell=CELLS["shuffling-repairs"], planted=around(low, high))
    assert BY_KEY["shuffling-repairs"].judge([record])[0] == status


ENDS = st.floats(-3, 3)


@given(st.tuples(ENDS, ENDS, ENDS).map(sorted), st.floats(0.1, 2), st.floats(0, 1))
def test_the_room_holds_for_everything_in_the_interval(values, bound, share):
    low, middle, high = values
    estimate, least, most = distance_within((middle, low, high), bound)
    assert least <= estimate <= most <= bound
    within = low + share * (high - low)
    assert least - 1e-9 <= bound - abs(within) <= most + 1e-9
    # Both ends are reached.
    assert least == bound - max(abs(low), abs(high))
    nearest = min((0.0 if low <= 0 <= high else abs(low)), abs(high))
    assert most == bound - nearest
    # Turning the sign changes nothing.
    assert distance_within((-middle, -high, -low), bound) == (estimate, least, most)


@pytest.mark.parametrize("key", CELLS)
def test_a_record_without_the_cell_cannot_judge(key):
    table, *where = CELLS[key]
    record = synthetic((9.0, 8.0, 10.0), cell=CELLS[key], planted=(0.2, 0.1, 0.4))
    here = (record.tables[table][KEYS[table]] == where).all(axis=1)
    assert here.sum() == 1
    record.tables[table] = record.tables[table][~here]
    with pytest.raises(ValueError, match=r"expected one row with .*, found 0"):
        BY_KEY[key].judge([record])


@pytest.mark.parametrize("key", CELLS)
def test_a_saved_record_gives_the_same_verdict(key, tmp_path):
    record = synthetic((9.0, 8.0, 10.0), cell=CELLS[key], planted=around(*VERDICTS[key][0]))
    found = load(save(record, tmp_path))
    assert BY_KEY[key].judge([found])[0] == "supported"


def test_a_test_layout_that_is_missing_or_doubled_is_named():
    record = synthetic((0.2, 0.1, 0.4))
    record.tables["matrix"] = pd.concat([record.tables["matrix"]] * 2)
    with pytest.raises(ValueError, match=r"'trained': 'causal'.*'metric': 'slot bias'.*found 2"):
        BY_KEY["shuffling-repairs"].judge([record])

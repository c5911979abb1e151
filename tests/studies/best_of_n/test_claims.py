"""The claims about the best of n: each reads its own cell, by its own rule."""

import itertools
from functools import cache

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.best_of_n.claims import CLAIMS
from posttrain.studies.best_of_n.keys import Proxy, World
from posttrain.studies.best_of_n.keys import Test as Exam

BY_KEY = {claim.key: claim for claim in CLAIMS}
PRAISE, CONTROL = World.PRAISE, World.CONTROL
SIZES, NOISES, SAMPLES = (250, 1000, 4000), (0.0, 0.1, 0.25), (1, 10, 30, 1024)

#: Where each claim looks, what it asks for, and the sign with which it reads.
CELLS = {
    "no-turn-at-thirty": (("changes", PRAISE, 0.0, 4000, Proxy.SINGLE, 10, 30), (-0.1, 0), 1),
    "no-turn-without-cue": (("changes", CONTROL, 0.0, 4000, Proxy.SINGLE, 10, 30), (-0.1, 0), 1),
    "ensemble-delays-turn": (("gains", PRAISE, 0.25, 4000, Proxy.VARIANCE, 1024), (0, 0.1), 1),
    "mean-delays-turn": (("gains", PRAISE, 0.25, 4000, Proxy.MEAN, 1024), (-0.1, 0), -1),
    "average-chooses-better": (("gains", PRAISE, 0.0, 4000, Proxy.AVERAGE, 1024), (0, 0.1), 1),
    "policy-pairs-predict": (("predictions", Exam.POLICY, 24), (0, 0.5), 1),
    "held-out-pairs-predict": (("predictions", Exam.HELD_OUT, 24), (0, 0.5), 1),
    "highest-grows": (("growth", "highest", 1, 128), (0, 0.1), 1),
    "median-stays": (("growth", "median", 1, 128), (-0.1, 0), -1),
    "temperature-shifts": (("shift", 1, 128), (0, 0.2), 1),
}
COLUMNS = {
    "changes": ["world", "noise", "size", "proxy", "n", "to"],
    "gains": ["world", "noise", "size", "proxy", "n"],
    "predictions": ["test", "models"],
    "growth": ["value", "n", "to"],
    "shift": ["n", "to"],
    "curves": ["n"],
}


@cache
def cells():
    """All rows of each table."""
    worlds = [*itertools.product([PRAISE], NOISES, SIZES), *((CONTROL, 0.0, n) for n in SIZES)]
    steps = [(1, 10), (10, 30), (30, 1024), (1, 30), (1, 1024)]
    others = [proxy for proxy in Proxy if proxy != Proxy.SINGLE]
    return {
        "changes": [(*w, p, *step) for w, p, step in itertools.product(worlds, Proxy, steps)],
        "gains": [(*w, p, n) for w, p, n in itertools.product(worlds, others, SAMPLES)],
        "predictions": [(test, 24) for test in Exam],
        "growth": [("highest", 1, 128), ("median", 1, 128)],
        "shift": [(1, 128)],
        "curves": [(n,) for n in SAMPLES],
    }


def synthetic(cell, planted, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {
        name: pd.DataFrame(
            [(*row, *(planted if (name, *row) == cell else everywhere)) for row in rows],
            columns=[*COLUMNS[name], "estimate", "low", "high"],
        )
        for name, rows in cells().items()
    }
    return Record("best-of-n", "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"best-of-n"}


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, rule, sign = CELLS[key]
    record = synthetic(cell, (0.2, 0.1, 0.4))
    claim = BY_KEY[key]
    assert claim.judged_by([record]) == [record]
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert claim.rule.row.read(record) == expected
    assert (claim.rule.bound, claim.rule.smallest) == rule
    assert claim.rule.direction == 1


@pytest.mark.parametrize("key", CELLS)
def test_a_record_without_the_row_does_not_judge(key):
    (name, *row), *_ = CELLS[key]
    record = synthetic(None, None)
    table = record.tables[name]
    here = (table[COLUMNS[name]] == row).all(axis=1)
    assert here.sum() == 1
    record.tables[name] = table[~here]
    assert [claim.key for claim in CLAIMS if not claim.judged_by([record])] == [key]


def test_records_of_other_studies_do_not_judge():
    record = synthetic(None, None)
    other = Record("rounds", "toy", "quick", {}, {}, record.tables)
    assert not any(claim.judged_by([other]) for claim in CLAIMS)


def test_a_run_of_few_samples_says_nothing_of_thirty():
    record = synthetic(None, None)
    for name in ("changes", "gains", "curves"):
        table = record.tables[name]
        record.tables[name] = table[table.get("to", table["n"]) < 30]
    assert not BY_KEY["no-turn-at-thirty"].judged_by([record])
    # The most that there are take the place of 1,024.
    assert BY_KEY["average-chooses-better"].judged_by([record]) == [record]


def test_a_run_without_pairs_turned_round_says_nothing_of_wrong_labels():
    record = synthetic(None, None)
    for name in ("changes", "gains"):
        table = record.tables[name]
        record.tables[name] = table[table["noise"] == 0]
    silent = {claim.key for claim in CLAIMS if not claim.judged_by([record])}
    assert silent == {"ensemble-delays-turn", "mean-delays-turn"}

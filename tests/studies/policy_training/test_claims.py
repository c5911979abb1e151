"""The claims about training policies: each reads its own cell, by its own rule."""

import itertools

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.policy_training.claims import CLAIMS
from posttrain.studies.policy_training.keys import Averaged, Filter, Loss, Measure, Question

BY_KEY = {claim.key: claim for claim in CLAIMS}
GOLD, CHOSEN, ENDED = Measure.GOLD, Measure.CHOSEN, Measure.ENDED
LOSS, MOST = Question.LOSS, 8
AVERAGE, SCORE = Averaged.AVERAGE, Filter.SCORE

#: Where each claim looks, the smallest effect that it asks for, and the sign with which it reads.
CELLS = {
    "nll-keeps-chosen": (("gains", LOSS, Loss.NLL, MOST, CHOSEN), 1.0, 1),
    "dpo-lowers-chosen": (("levels", LOSS, Loss.PLAIN, MOST, CHOSEN), 1.0, -1),
    "mask-mends-endings": (("gains", LOSS, Loss.MASK, MOST, ENDED), 0.01, 1),
    "paper-loss-helps": (("gains", LOSS, Loss.LLAMA3, MOST, GOLD), 0.1, 1),
    "passes-overoptimise": (("passes", LOSS, Loss.PLAIN, MOST, GOLD), 0.1, -1),
    "averaged-policies-better": (("gains", Question.AVERAGE, AVERAGE, 1, GOLD), 0.1, 1),
    "top-quarter-beats-random": (("gains", Question.FILTER, SCORE, 1, GOLD), 0.1, 1),
}
COLUMNS = ["question", "arm", "passes", "measure"]
LEVELS = [
    *itertools.product([LOSS], Loss, (1, 2, MOST), Measure),
    *itertools.product([Question.AVERAGE], Averaged, [1], list(Measure)[:4]),
    *itertools.product([Question.FILTER], Filter, [1], list(Measure)[:4]),
]
FIRST = (Loss.PLAIN, Averaged.SINGLE, Filter.RANDOM)
ROWS = {
    "levels": LEVELS,
    "gains": [row for row in LEVELS if row[1] not in FIRST],
    "passes": [row for row in LEVELS if row[0] == LOSS and row[2] > 1],
}


def synthetic(cell, planted, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {
        name: pd.DataFrame(
            [(*row, *(planted if (name, *row) == cell else everywhere)) for row in rows],
            columns=[*COLUMNS, "estimate", "low", "high"],
        )
        for name, rows in ROWS.items()
    }
    return Record("policy-training", "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"policy-training"}


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, smallest, sign = CELLS[key]
    record = synthetic(cell, (0.2, 0.1, 0.4))
    claim = BY_KEY[key]
    assert claim.judged_by([record]) == [record]
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert claim.rule.row.read(record) == expected
    assert (claim.rule.bound, claim.rule.smallest, claim.rule.direction) == (0, smallest, 1)


@pytest.mark.parametrize("key", CELLS)
def test_a_record_without_the_row_does_not_judge(key):
    (name, *row), *_ = CELLS[key]
    record = synthetic(None, None)
    table = record.tables[name]
    here = (table[COLUMNS] == row).all(axis=1)
    assert here.sum() == 1
    record.tables[name] = table[~here]
    assert [claim.key for claim in CLAIMS if not claim.judged_by([record])] == [key]


def test_a_run_of_one_pass_says_nothing_of_more():
    record = synthetic(None, None)
    for name, table in record.tables.items():
        record.tables[name] = table[table["passes"] == 1]
    left = {claim.key for claim in CLAIMS if not claim.judged_by([record])}
    assert left == {"passes-overoptimise"}


def test_records_of_other_studies_do_not_judge():
    record = synthetic(None, None)
    other = Record("rounds", "toy", "quick", {}, {}, record.tables)
    assert not any(claim.judged_by([other]) for claim in CLAIMS)

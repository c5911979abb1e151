"""The claims about choices: each reads its own cell, by its own rule."""

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.best_of_n.keys import Test as Exam
from posttrain.studies.choices.claims import CLAIMS
from posttrain.studies.choices.keys import Arm

BY_KEY = {claim.key: claim for claim in CLAIMS}
#: Where each claim looks, and the smallest effect that it asks for.
CELLS = {
    "edits-choose-better": (("gains", Arm.EDITS, 16), 0.1),
    "margin-chooses-better": (("gains", Arm.LARGE, 16), 0.1),
    "policy-pairs-tell-choices": (("correlation", Exam.POLICY, 36), 0.5),
    "held-out-pairs-tell-choices": (("correlation", Exam.HELD_OUT, 36), 0.5),
}
ROWS = {
    "gains": (["arm", "n"], [(arm, n) for arm in list(Arm)[1:] for n in (4, 16, 64)]),
    "correlation": (["test", "models"], [(test, 36) for test in (Exam.HELD_OUT, Exam.POLICY)]),
}


def synthetic(cell=None, planted=None, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {
        name: pd.DataFrame(
            [(*row, *(planted if (name, *row) == cell else everywhere)) for row in rows],
            columns=[*columns, "estimate", "low", "high"],
        )
        for name, (columns, rows) in ROWS.items()
    }
    return Record("choices", "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert {claim.study for claim in CLAIMS} == {"choices"}


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, smallest = CELLS[key]
    record = synthetic(cell, (0.2, 0.1, 0.4))
    claim = BY_KEY[key]
    assert claim.judged_by([record]) == [record]
    assert claim.rule.row.read(record) == (0.2, 0.1, 0.4)
    assert (claim.rule.bound, claim.rule.smallest, claim.rule.direction) == (0, smallest, 1)


@pytest.mark.parametrize("key", CELLS)
def test_a_record_without_the_row_does_not_judge(key):
    (name, label, _), _ = CELLS[key]
    record = synthetic()
    column = ROWS[name][0][0]
    record.tables[name] = record.tables[name][record.tables[name][column] != label]
    assert key not in {claim.key for claim in CLAIMS if claim.judged_by([record])}

"""The claims about reinforcement learning: each reads its own cell, by its own rule."""

import itertools

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.reinforcement.claims import CLAIMS
from posttrain.studies.reinforcement.keys import Reward, Value

BY_KEY = {claim.key: claim for claim in CLAIMS}
COLUMNS = ["reward", "penalty", "value"]
#: Where each claim looks, and the sign with which it reads.
CELLS = {
    "reinforcement-turns": (("changes", Reward.SINGLE, 0.0, Value.GOLD), -1),
    "penalty-holds": (("gains", Reward.SINGLE, 0.1, Value.GOLD), 1),
    "minimum-holds": (("gains", Reward.MINIMUM, 0.0, Value.GOLD), 1),
}
ROWS = [*itertools.product(Reward, (0.0, 0.1), Value)]


def synthetic(cell=None, planted=None, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    rows = {"changes": ROWS, "gains": [row for row in ROWS if row[:2] != (Reward.SINGLE, 0.0)]}
    tables = {
        name: pd.DataFrame(
            [(*row, *(planted if (name, *row) == cell else everywhere)) for row in of_table],
            columns=[*COLUMNS, "estimate", "low", "high"],
        )
        for name, of_table in rows.items()
    }
    return Record("reinforcement", "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert {claim.study for claim in CLAIMS} == {"reinforcement"}


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, sign = CELLS[key]
    record = synthetic(cell, (0.2, 0.1, 0.4))
    claim = BY_KEY[key]
    assert claim.judged_by([record]) == [record]
    expected = (0.2, 0.1, 0.4) if sign > 0 else (-0.2, -0.4, -0.1)
    assert claim.rule.row.read(record) == expected
    assert (claim.rule.bound, claim.rule.smallest, claim.rule.direction) == (0, 1.0, 1)


@pytest.mark.parametrize("key", CELLS)
def test_a_record_without_the_row_does_not_judge(key):
    (name, *row), _ = CELLS[key]
    record = synthetic()
    table = record.tables[name]
    record.tables[name] = table[~(table[COLUMNS] == row).all(axis=1)]
    assert key not in {claim.key for claim in CLAIMS if claim.judged_by([record])}

"""The claims about rounds: each reads its own cell, by its own rule."""

import itertools

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.rounds.claims import CLAIMS
from posttrain.studies.rounds.keys import Arm, Measure

BY_KEY = {claim.key: claim for claim in CLAIMS}
LAST, GOLD = 4, Measure.GOLD

#: Where each claim looks, the smallest effect that it asks for, and the sign with which it reads.
CELLS = {
    "rounds-add": (("growth", Arm.LLAMA3), 0.1, 1),
    "fresh-beats-frozen": (("gains", Arm.FROZEN, LAST, GOLD), 0.1, -1),
    "reward-models-decay": (("shifts", Arm.LLAMA3, "decay"), 0.01, -1),
    "fresh-ones-mend": (("shifts", Arm.LLAMA3, "renewal"), 0.01, 1),
    "dpo-adds-to-sft": (("gains", Arm.SFT, LAST, GOLD), 0.1, -1),
    "sft-adds-to-dpo": (("gains", Arm.DPO, LAST, GOLD), 0.1, -1),
    "latest-pairs-suit-dpo": (("gains", Arm.ALL_PAIRS, LAST, GOLD), 0.1, -1),
    "all-rounds-samples-help": (("gains", Arm.ALL_SAMPLES, LAST, GOLD), 0.1, 1),
    "restart-costs-nothing": (("gains", Arm.CONTINUE, LAST, GOLD), 0.1, -1),
    "choice-beats-random": (("gains", Arm.RANDOM, LAST, GOLD), 0.1, -1),
    "edits-help-rounds": (("gains", Arm.EDITS, LAST, GOLD), 0.1, 1),
}
COLUMNS = {
    "growth": ["arm"], "gains": ["arm", "round", "measure"], "shifts": ["arm", "shift"],
    "levels": ["arm", "round", "measure"],
}  # fmt: skip
ROWS = {
    "growth": [(arm,) for arm in Arm],
    "gains": [*itertools.product(list(Arm)[1:], range(1, LAST + 1), Measure)],
    "shifts": [*itertools.product(Arm, ("decay", "renewal"))],
    "levels": [*itertools.product(Arm, range(LAST + 1), Measure)],
}


def synthetic(cell, planted, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    tables = {
        name: pd.DataFrame(
            [(*row, *(planted if (name, *row) == cell else everywhere)) for row in rows],
            columns=[*COLUMNS[name], "estimate", "low", "high"],
        )
        for name, rows in ROWS.items()
    }
    return Record("rounds", "toy", "quick", {}, {}, tables)


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == {"rounds"}


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
    here = (table[COLUMNS[name]] == row).all(axis=1)
    assert here.sum() == 1
    record.tables[name] = table[~here]
    assert [claim.key for claim in CLAIMS if not claim.judged_by([record])] == [key]


def test_records_of_other_studies_do_not_judge():
    record = synthetic(None, None)
    other = Record("best-of-n", "toy", "quick", {}, {}, record.tables)
    assert not any(claim.judged_by([other]) for claim in CLAIMS)


def test_shares_are_shown_in_points_and_gold_as_it_is():
    shares = {claim.key for claim in CLAIMS if claim.unit == "points"}
    assert shares == {"reward-models-decay", "fresh-ones-mend"}

"""The claims about smaller choices: each reads its own cell, by its own rule."""

import itertools

import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.recipe.claims import CLAIMS
from posttrain.studies.recipe.keys import Combined, Dropped, Question, Start
from posttrain.studies.recipe.outcome import COMPARED

BY_KEY = {claim.key: claim for claim in CLAIMS}
EIGHT, SIMILAR = Combined.AVERAGE_8, Dropped.SIMILAR

#: Where each claim looks and what it asks for.
CELLS = {
    "chat-start-helps": (("start", 3000, 0.0, "chat", "pre-trained"), (0, 0.01)),
    "similar-pairs-harm": (("similar", 2000, 0.0, SIMILAR, "random dropped"), (0, 0.005)),
    "similar-pairs-idle": (("similar", 2000, 0.0, SIMILAR, "nothing dropped"), (-0.01, 0)),
    "averaging-helps": (("average", 2000, 0.0, EIGHT, "single"), (0, 0.005)),
    "averaging-is-ensembling": (("average", 2000, 0.0, EIGHT, "ensemble of 8"), (-0.01, 0)),
    "averaging-resists-noise": (("average", 2000, 0.2, EIGHT, "ensemble of 8"), (0, 0.005)),
    "averaging-beats-all-data": (("average", 2000, 0.0, EIGHT, Combined.ALL_DATA), (0, 0.005)),
    "more-data-helps": (("separate", 30_000), (0, 0.005)),
}  # fmt: skip
METRICS = ("accuracy", "log-likelihood")


def synthetic(cell, planted, everywhere=(9.0, 8.0, 10.0)):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``."""
    ends = ["estimate", "low", "high"]
    if cell[0] == "separate":
        steps = itertools.product(("separate", "causal"), (3000, 30_000), METRICS)
        rows = [
            (*keys, *(planted if keys == (*cell, "accuracy") else everywhere)) for keys in steps
        ]
        columns = ["trained", "size", "metric", *ends]
        steps_table = pd.DataFrame(rows, columns=columns)
        return Record(
            "growth", "toy", "quick", {}, {}, {"steps": steps_table, "levels": steps_table}
        )
    arms = {
        (Question.START, 300, 0.0): [(arm, Start.PRETRAINED) for arm in Start],
        (Question.START, 3000, 0.0): [(arm, Start.PRETRAINED) for arm in Start],
        (Question.SIMILAR, 2000, 0.0): [(arm, Dropped.NONE) for arm in Dropped],
        (Question.AVERAGE, 2000, 0.0): [(arm, Combined.SINGLE) for arm in Combined],
        (Question.AVERAGE, 2000, 0.2): [(arm, Combined.SINGLE) for arm in Combined],
    }
    rows = []
    for head, pairs in arms.items():
        known = set(dict(pairs))
        compared = [pair for pair in COMPARED if set(pair) <= known]
        for (arm, reference), metric in itertools.product([*pairs, *compared], METRICS):
            here = (*head, arm, reference) == cell and metric == "accuracy"
            rows.append((*head, arm, reference, metric, *(planted if here else everywhere)))
    head = ["question", "size", "noise", "arm"]
    gains = pd.DataFrame(rows, columns=[*head, "reference", "metric", *ends])
    return Record("recipe", "toy", "quick", {}, {}, {"gains": gains, "metrics": gains})


def test_every_claim_is_tested_here():
    assert list(CELLS) == [claim.key for claim in CLAIMS]
    assert len(BY_KEY) == len(CLAIMS)


@pytest.mark.parametrize("key", CELLS)
def test_each_claim_reads_its_own_cell(key):
    cell, rule = CELLS[key]
    record = synthetic(cell, (0.2, 0.1, 0.4))
    claim = BY_KEY[key]
    assert claim.judged_by([record]) == [record]
    assert claim.rule.row.read(record) == (0.2, 0.1, 0.4)
    assert (claim.rule.bound, claim.rule.smallest) == rule


@pytest.mark.parametrize(
    ("key", "noise"), [("averaging-resists-noise", 0.2), ("averaging-helps", 0.0)]
)
def test_a_record_says_nothing_of_labels_that_it_did_not_try(key, noise):
    record = synthetic(CELLS[key][0], (0.2, 0.1, 0.4))
    for name, table in record.tables.items():
        record.tables[name] = table[table["noise"] != noise]
    assert BY_KEY[key].judged_by([record]) == []


@pytest.mark.parametrize(
    ("untrained", "informs"), [((-0.1, -0.2, -0.05), True), ((-0.1, -0.2, 0.01), False)]
)
def test_where_to_start_matters_only_where_pretraining_does(untrained, informs):
    control = ("start", 3000, 0.0, Start.UNTRAINED, Start.PRETRAINED)
    assert BY_KEY["chat-start-helps"].informs(synthetic(control, untrained)) == informs

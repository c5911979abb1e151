"""Arms of the study of edits and its tables, by hand."""

import numpy as np
import pytest

from posttrain.data.preferences import Message, PairKind, RankedGroup
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.metrics import TestPairs
from posttrain.studies.edits.outcome import ARMS, CONTRASTS, Cell, Outcome, summarise

PROMPT = (Message("user", "Why?"),)
TRIPLE = RankedGroup("a", PROMPT, ("short", "longer text", "no"), cluster_id="one")
PAIR = RankedGroup("b", PROMPT, ("yes", "never"), cluster_id="two")
TIED = RankedGroup("c", PROMPT, ("yes", "nay"), cluster_id="one")
GROUPS = [TRIPLE, PAIR, TIED]


def test_arms_are_those_that_the_study_promises():
    used = {name: arm.pairing.pairs for name, arm in ARMS.items()}
    assert used == {
        ArmName.IGNORE: "rated",
        "adding edited > chosen": "rated and edited over chosen",
        "adding edited > rejected": "rated and edited over rejected",
        "all pairs": "all",
        "all pairs, by prompt": "all",
        "Plackett-Luce": "all",
        "edit instead of chosen": "edited over rejected",
        "one more comparison": "rated",
        "two more comparisons": "rated",
        "all pairs, closest edits": "all",
        "all pairs, farthest edits": "all",
    }
    assert {name: arm.added for name, arm in ARMS.items() if arm.added} == {
        "one more comparison": 1, "two more comparisons": 2,
    }  # fmt: skip
    assert [name for name, arm in ARMS.items() if arm.loss_type != "pairs"] == ["Plackett-Luce"]
    assert [name for name, arm in ARMS.items() if arm.pairing.weighting == "prompt"] == [
        "all pairs, by prompt"
    ]
    assert [name for name, arm in ARMS.items() if not arm.uses_edits] == [
        ArmName.IGNORE, "one more comparison", "two more comparisons",
    ]  # fmt: skip
    assert {arm for pair in CONTRASTS.values() for arm in pair} <= set(ARMS)


@pytest.fixture
def outcome():
    """Three arms with planted scores: two test groups, two seeds."""
    pairs = TestPairs.from_groups(GROUPS)
    scores = {
        ArmName.IGNORE: [[0, 0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0]],
        "all pairs": [[2, 1, 0, 1, 0, 1, 0], [2, 1, 0, 0, 1, 1, 0]],
        "two more comparisons": [[2, 1, 0, 1, 0, 0, 1], [1, 2, 0, 1, 0, 1, 0]],
    }
    sums = {
        Cell(arm, 10, 0.5): np.array([pairs.sums(np.array(s, dtype=float)) for s in both])
        for arm, both in scores.items()
    }
    length = np.array([len(text) for group in GROUPS for text in group.responses])
    costs = {cell: {"pairs": float(number)} for number, cell in enumerate(sums)}
    # With the shared hyperparameter, the first seed stands for both.
    shared = {cell: both[[0, 0]] for cell, both in sums.items()}
    return Outcome(sums, shared, costs, {"longer": pairs.sums(length)})


def cell(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    return found["estimate"].item()


def test_tables_hold_means_over_seeds_and_paired_differences(outcome):
    tables = summarise(outcome, resamples=20)
    where = {"size": 10, "share": 0.5, "tuning": "tuned", "metric": PairKind.RATED}
    # Three rated pairs: the triple's, the pair's and the tied one's.
    ignored, all_pairs, more = (2 / 3 + 1) / 2, (1 + 2 / 3) / 2, (2 / 3 + 1) / 2
    assert cell(tables["metrics"], arm=ArmName.IGNORE, **where) == pytest.approx(ignored)
    assert cell(tables["metrics"], arm="all pairs", **where) == pytest.approx(all_pairs)
    edited = where | {"metric": "edited > chosen"}
    assert cell(tables["metrics"], arm=ArmName.IGNORE, **edited) == pytest.approx(0.25)
    assert cell(tables["gains"], arm="all pairs", **edited) == pytest.approx(0.75)
    assert cell(tables["gains"], arm="all pairs", **where) == pytest.approx(all_pairs - ignored)
    assert ArmName.IGNORE not in set(tables["gains"]["arm"])
    named = "all pairs - two more comparisons"
    assert cell(tables["contrasts"], contrast=named, **where) == pytest.approx(all_pairs - more)
    assert cell(tables["contrasts"], contrast=named, **edited) == pytest.approx(0.5)
    # Contrasts of arms that were not trained are left out.
    assert set(tables["contrasts"]["contrast"]) == {named}
    assert cell(tables["baselines"], baseline="longer", metric="edited > chosen") == 0.0
    first = where | {"tuning": "shared"}
    assert cell(tables["metrics"], arm="all pairs", **first) == pytest.approx(1)
    assert cell(tables["gains"], arm="all pairs", **first) == pytest.approx(1 - 2 / 3)
    assert cell(tables["contrasts"], contrast=named, **first) == pytest.approx(1 - 2 / 3)
    # A single size has no trend.
    assert tables["trends"]["estimate"].isna().all()
    costs = tables["costs"][["arm", "size", "share", "pairs"]]
    assert [*costs.itertuples(index=False, name=None)] == [
        (ArmName.IGNORE, 10, 0.5, 0.0),
        (ArmName.ALL, 10, 0.5, 1.0),
        (ArmName.TWO_MORE, 10, 0.5, 2.0),
    ]
    assert (tables["metrics"]["low"] <= tables["metrics"]["high"]).sum() > 10


def test_a_trend_is_the_change_of_a_gain_per_tenfold_data(outcome):
    def grown(by_cell):
        # Ten times the data, and the arm is no better than without edits.
        plain = by_cell[Cell(ArmName.IGNORE, 10, 0.5)]
        return {**by_cell, **{Cell(cell.arm, 100, 0.5): plain for cell in by_cell}}

    more = Outcome(grown(outcome.sums), grown(outcome.shared), grown(outcome.costs), {})
    tables = summarise(more, resamples=20)
    for metric in (PairKind.RATED, "edited > chosen"):
        where = {"arm": "all pairs", "share": 0.5, "tuning": "tuned", "metric": metric}
        gain = cell(tables["gains"], size=10, **where)
        assert cell(tables["trends"], **where) == pytest.approx(-gain)
    assert set(tables["trends"]["arm"]) == {"all pairs", "two more comparisons"}


def test_a_metric_without_pairs_is_no_number(outcome):
    tables = summarise(outcome, resamples=5)
    table = tables["metrics"]
    assert table[table["metric"] == "gold"]["estimate"].isna().all()

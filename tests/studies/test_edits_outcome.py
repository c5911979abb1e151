"""What is measured of a model that may have trained on edits, by hand and against plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest

from posttrain.pairing import RATED
from posttrain.preferences import RESPONSES, Message, RankedGroup
from posttrain.studies.edits_outcome import (
    ARMS,
    CONTRASTS,
    IGNORE,
    KINDS,
    STRATA,
    Cell,
    Outcome,
    TestPairs,
    edit_metrics,
    summarise,
)

PROMPT = (Message("user", "Why?"),)
TRIPLE = RankedGroup("a", PROMPT, ("short", "longer text", "no"), group="one")
PAIR = RankedGroup("b", PROMPT, ("yes", "never"), group="two")
TIED = RankedGroup("c", PROMPT, ("yes", "nay"), group="one")
GROUPS = [TRIPLE, PAIR, TIED]


def counts(pairs):
    return {name: int(row.sum()) for name, row in zip(STRATA, pairs.strata, strict=True)}


def test_pairs_of_groups_by_hand():
    pairs = TestPairs.of(GROUPS)
    assert list(zip(pairs.winners, pairs.losers, strict=True)) == [
        (0, 1), (0, 2), (1, 2), (3, 4), (5, 6),
    ]  # fmt: skip
    assert pairs.codes.tolist() == [0, 0, 0, 1, 0]
    assert pairs.group_count == 2
    assert pairs.shorter.tolist() == [1, -1, -1, 1, 0]
    assert counts(pairs) == {
        "chosen > rejected": 3,
        "edited > chosen": 1,
        "edited > rejected": 1,
        "chosen > rejected, winner longer": 1,
        "chosen > rejected, winner shorter": 1,
        "edited > chosen, winner longer": 0,
        "edited > chosen, winner shorter": 1,
        "edited > rejected, winner longer": 1,
        "edited > rejected, winner shorter": 0,
        "gold": 0,
        "gold, chosen and rejected": 0,
    }


def test_gold_ranks_what_it_tells_apart_whatever_annotators_said():
    # The annotator of the pair erred; two responses of the triple are equally good.
    pairs = TestPairs.of(GROUPS, [(-1.0, -1.0, -3.0), (-2.0, 0.0), (0.0, 0.0)])
    gold = pairs.strata[STRATA.index("gold")]
    found = sorted(zip(pairs.winners[gold], pairs.losers[gold], strict=True))
    assert found == [(0, 2), (1, 2), (4, 3)]
    turned = (pairs.winners == 4) & (pairs.losers == 3)
    assert pairs.shorter[turned].tolist() == [-1]
    assert pairs.codes[turned].tolist() == [1]
    # The other strata are as without gold.
    plain = counts(TestPairs.of(GROUPS))
    assert counts(pairs) == plain | {"gold": 3, "gold, chosen and rejected": 2}


def by_hand(groups, scores, codes_wanted):
    """Accuracy by kind, over the groups of some split groups, in plain loops."""
    right = {kind: [] for kind in KINDS}
    shorter = []
    first = 0
    for group in groups:
        roles = RESPONSES[-len(group.responses) :]
        for one, other in combinations(range(len(group.responses)), 2):
            if group.group in codes_wanted:
                gap = scores[first + one] - scores[first + other]
                kind = f"{roles[one]} > {roles[other]}"
                right[kind].append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
                lengths = len(group.responses[one]), len(group.responses[other])
                if kind == RATED and lengths[0] != lengths[1]:
                    prefers_first = right[kind][-1]
                    is_shorter = lengths[0] < lengths[1]
                    shorter.append(prefers_first if is_shorter else 1 - prefers_first)
        first += len(group.responses)
    return {kind: np.mean(values) for kind, values in right.items() if values} | {
        "prefers shorter": np.mean(shorter)
    }


@pytest.mark.parametrize("wanted", [("one",), ("two",), ("one", "two")])
def test_metrics_are_those_of_plain_loops(wanted):
    scores = np.array([0.3, 0.3, -1.0, -2.0, 1.0, 0.5, 0.2])
    sums = TestPairs.of(GROUPS).sums(scores)
    rows = [["one", "two"].index(name) for name in wanted]
    found = edit_metrics(sums[rows].sum(axis=0))
    for name, value in by_hand(GROUPS, scores, wanted).items():
        assert found[name] == pytest.approx(value), name
    gaps = {"one": [1.3, 0.3], "two": [-3.0]}
    expected = [-math.log1p(math.exp(-gap)) for name in wanted for gap in gaps[name]]
    assert found["log-likelihood"] == pytest.approx(np.mean(expected))
    longer, shorter = (found[f"{RATED}, winner {length}"] for length in ("longer", "shorter"))
    np.testing.assert_equal(found["leans shorter"], (shorter - longer) / 2)
    assert np.isnan(found["gold"])


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="scores must be finite"):
        TestPairs.of(GROUPS).sums(np.array([0, 0, 0, 0, 0, 0, np.inf]))


def test_arms_are_those_that_the_study_promises():
    used = {name: arm.pairing.pairs for name, arm in ARMS.items()}
    assert used == {
        IGNORE: "rated",
        "adding edited > chosen": "rated and edited over chosen",
        "adding edited > rejected": "rated and edited over rejected",
        "all pairs": "all",
        "all pairs, by prompt": "all",
        "Plackett–Luce": "all",
        "edit instead of chosen": "edited over rejected",
        "one more pair": "rated",
        "two more pairs": "rated",
        "all pairs, closest edits": "all",
        "all pairs, farthest edits": "all",
    }
    assert {name: arm.added for name, arm in ARMS.items() if arm.added} == {
        "one more pair": 1, "two more pairs": 2,
    }  # fmt: skip
    assert [name for name, arm in ARMS.items() if arm.objective != "pairs"] == ["Plackett–Luce"]
    assert [name for name, arm in ARMS.items() if arm.pairing.weighting == "prompt"] == [
        "all pairs, by prompt"
    ]
    assert [name for name, arm in ARMS.items() if not arm.uses_edits] == [
        IGNORE, "one more pair", "two more pairs",
    ]  # fmt: skip
    assert {arm for pair in CONTRASTS.values() for arm in pair} <= set(ARMS)


@pytest.fixture
def outcome():
    """Three arms with planted scores: two test groups, two seeds."""
    pairs = TestPairs.of(GROUPS)
    scores = {
        IGNORE: [[0, 0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0]],
        "all pairs": [[2, 1, 0, 1, 0, 1, 0], [2, 1, 0, 0, 1, 1, 0]],
        "two more pairs": [[2, 1, 0, 1, 0, 0, 1], [1, 2, 0, 1, 0, 1, 0]],
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
    where = {"size": 10, "share": 0.5, "tuning": "tuned", "metric": RATED}
    # Three rated pairs: the triple's, the pair's and the tied one's.
    ignored, all_pairs, more = (2 / 3 + 1) / 2, (1 + 2 / 3) / 2, (2 / 3 + 1) / 2
    assert cell(tables["metrics"], arm=IGNORE, **where) == pytest.approx(ignored)
    assert cell(tables["metrics"], arm="all pairs", **where) == pytest.approx(all_pairs)
    edited = where | {"metric": "edited > chosen"}
    assert cell(tables["metrics"], arm=IGNORE, **edited) == pytest.approx(0.25)
    assert cell(tables["gains"], arm="all pairs", **edited) == pytest.approx(0.75)
    assert cell(tables["gains"], arm="all pairs", **where) == pytest.approx(all_pairs - ignored)
    assert IGNORE not in set(tables["gains"]["arm"])
    named = "all pairs − two more pairs"
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
        (IGNORE, 10, 0.5, 0.0), ("all pairs", 10, 0.5, 1.0), ("two more pairs", 10, 0.5, 2.0),
    ]  # fmt: skip
    assert (tables["metrics"]["low"] <= tables["metrics"]["high"]).sum() > 10


def test_a_trend_is_the_change_of_a_gain_per_tenfold_data(outcome):
    def grown(by_cell):
        # Ten times the data, and the arm is no better than without edits.
        plain = by_cell[Cell(IGNORE, 10, 0.5)]
        return {**by_cell, **{Cell(cell.arm, 100, 0.5): plain for cell in by_cell}}

    more = Outcome(grown(outcome.sums), grown(outcome.shared), grown(outcome.costs), {})
    tables = summarise(more, resamples=20)
    for metric in (RATED, "edited > chosen"):
        where = {"arm": "all pairs", "share": 0.5, "tuning": "tuned", "metric": metric}
        gain = cell(tables["gains"], size=10, **where)
        assert cell(tables["trends"], **where) == pytest.approx(-gain)
    assert set(tables["trends"]["arm"]) == {"all pairs", "two more pairs"}


def test_a_metric_without_pairs_is_no_number(outcome):
    tables = summarise(outcome, resamples=5)
    table = tables["metrics"]
    assert table[table["metric"] == "gold"]["estimate"].isna().all()

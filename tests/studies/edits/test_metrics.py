"""What is measured of a model that may have trained on edits, by hand and against plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest

from posttrain.data.preferences import RESPONSES, Message, PairKind, RankedGroup
from posttrain.studies.edits.metrics import KINDS, STRATA, TestPairs, edit_metrics

PROMPT = (Message("user", "Why?"),)
TRIPLE = RankedGroup("a", PROMPT, ("short", "longer text", "no"), cluster_id="one")
PAIR = RankedGroup("b", PROMPT, ("yes", "never"), cluster_id="two")
TIED = RankedGroup("c", PROMPT, ("yes", "nay"), cluster_id="one")
GROUPS = [TRIPLE, PAIR, TIED]


def counts(pairs):
    return {name: int(row.sum()) for name, row in zip(STRATA, pairs.strata, strict=True)}


def test_pairs_of_groups_by_hand():
    pairs = TestPairs.from_groups(GROUPS)
    assert list(zip(pairs.winners, pairs.losers, strict=True)) == [
        (0, 1), (0, 2), (1, 2), (3, 4), (5, 6),
    ]  # fmt: skip
    assert pairs.codes.tolist() == [0, 0, 0, 1, 0]
    assert pairs.group_count == 2
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
    pairs = TestPairs.from_groups(GROUPS, [(-1.0, -1.0, -3.0), (-2.0, 0.0), (0.0, 0.0)])
    gold = pairs.strata[STRATA.index("gold")]
    found = sorted(zip(pairs.winners[gold], pairs.losers[gold], strict=True))
    assert found == [(0, 2), (1, 2), (4, 3)]
    turned = (pairs.winners == 4) & (pairs.losers == 3)
    assert pairs.codes[turned].tolist() == [1]
    # The other strata are as without gold.
    plain = counts(TestPairs.from_groups(GROUPS))
    assert counts(pairs) == plain | {"gold": 3, "gold, chosen and rejected": 2}


def by_hand(groups, scores, codes_wanted):
    """Accuracy by kind, over the groups of some split groups, in plain loops."""
    right = {kind: [] for kind in KINDS}
    first = 0
    for group in groups:
        roles = RESPONSES[-len(group.responses) :]
        for one, other in combinations(range(len(group.responses)), 2):
            if group.cluster_id in codes_wanted:
                gap = scores[first + one] - scores[first + other]
                kind = f"{roles[one]} > {roles[other]}"
                right[kind].append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
        first += len(group.responses)
    return {kind: np.mean(values) for kind, values in right.items() if values}


@pytest.mark.parametrize("wanted", [("one",), ("two",), ("one", "two")])
def test_metrics_are_those_of_plain_loops(wanted):
    scores = np.array([0.3, 0.3, -1.0, -2.0, 1.0, 0.5, 0.2])
    sums = TestPairs.from_groups(GROUPS).sums(scores)
    rows = [["one", "two"].index(name) for name in wanted]
    found = edit_metrics(sums[rows].sum(axis=0))
    for name, value in by_hand(GROUPS, scores, wanted).items():
        assert found[name] == pytest.approx(value), name
    gaps = {"one": [1.3, 0.3], "two": [-3.0]}
    expected = [-math.log1p(math.exp(-gap)) for name in wanted for gap in gaps[name]]
    assert found["log-likelihood"] == pytest.approx(np.mean(expected))
    longer, shorter = (
        found[f"{PairKind.RATED}, winner {length}"] for length in ("longer", "shorter")
    )
    np.testing.assert_equal(found["leans shorter"], (shorter - longer) / 2)
    assert np.isnan(found["gold"])


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="scores must be finite"):
        TestPairs.from_groups(GROUPS).sums(np.array([0, 0, 0, 0, 0, 0, np.inf]))

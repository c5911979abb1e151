"""Training data: exact records, exact batches of rows, and groups that are refused."""

from dataclasses import replace

import pytest
import torch

from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.collator import GroupCollator, TrainingGroup, TrainingPair, training_set

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]
CAUSAL = Layout("single", "causal", "running")

PAIR = TrainingGroup(TokenizedGroup((5,), ((6, 7), (8,))), (TrainingPair(0, 1, 1 / 3, 2.0, 4),))
TRIPLE = TrainingGroup(
    TokenizedGroup((9, 10), ((11,), (12, 13), (14,))),
    (TrainingPair(0, 1, 0.0, 1.0), TrainingPair(0, 2, 0.5, 3.0), TrainingPair(1, 2, 1.0, 4.0, 2)),
)


def collate(groups, pad_token_id=0, layout=EXACT, pack_length=None):
    return GroupCollator(pad_token_id, layout, pack_length)(list(training_set(groups)))


def test_a_training_set_has_the_ids_the_pairs_and_the_longest_separate_row():
    records = training_set([PAIR, TRIPLE])
    assert records[0] == {
        "prompt": [5],
        "responses": [[6, 7], [8]],
        "winners": [0],
        "losers": [1],
        "margins": [1 / 3],
        "weights": [2.0 / 2.5],
        "strengths": [4],
        "labelled": [],
        "acceptable": [],
        "length": 3,
        "total": 4,
        "response_count": 2,
        "pair_count": 1,
        "label_count": 0,
        "records": 1,
        "part": 0,
    }
    assert records[1] == {
        "prompt": [9, 10],
        "responses": [[11], [12, 13], [14]],
        "winners": [0, 0, 1],
        "losers": [1, 2, 2],
        "margins": [0.0, 0.5, 1.0],
        "weights": [1.0 / 2.5, 3.0 / 2.5, 4.0 / 2.5],
        "strengths": [0, 0, 2],
        "labelled": [],
        "acceptable": [],
        "length": 4,
        "total": 6,
        "response_count": 3,
        "pair_count": 3,
        "label_count": 0,
        "records": 1,
        "part": 0,
    }


LABELS = (False, None, True)


def test_a_training_set_has_the_responses_that_are_labelled():
    unsafe = replace(PAIR, labels=(False, False))
    records = training_set([PAIR, replace(TRIPLE, labels=LABELS), unsafe])
    assert records["labelled"] == [[], [0, 2], [0, 1]]
    assert records["acceptable"] == [[], [False, True], [False, False]]
    assert records["label_count"] == [0, 2, 2]
    none = training_set([replace(TRIPLE, labels=(None, None, None))])
    assert list(none) == list(training_set([TRIPLE]))


@pytest.mark.parametrize("labels", [(True,), (True, False), (True, False, None, True)])
def test_labels_that_are_not_one_a_response_are_refused(labels):
    problem = f"{len(labels)} labels for 3 responses; give one for each, None where nobody said"
    with pytest.raises(ValueError, match=problem):
        replace(TRIPLE, labels=labels)


def test_labels_of_a_batch_point_at_its_scores_and_change_nothing_else():
    labelled = [replace(TRIPLE, labels=LABELS), PAIR, replace(PAIR, labels=(None, True))]
    batch, plain = collate(labelled), collate([TRIPLE, PAIR, PAIR])
    # The scores are those of three responses, two and two.
    assert batch["labelled"].tolist() == [0, 2, 6]
    assert batch["acceptable"].tolist() == [False, True, True]
    assert batch.keys() == plain.keys()
    for name in plain.keys() - {"labelled", "acceptable"}:
        assert torch.equal(batch[name], plain[name])


def test_all_pairs_are_every_response_against_every_lower_ranked_one():
    for tokens, expected in (
        (PAIR.tokens, [(0, 1)]),
        (TRIPLE.tokens, [(0, 1), (0, 2), (1, 2)]),
    ):
        group = TrainingGroup.with_all_pairs(tokens)
        assert group.tokens is tokens
        assert group.pairs == tuple(TrainingPair(*pair, 0.0, 1.0) for pair in expected)


@pytest.mark.parametrize("pair", [(0, 2), (-1, 0), (1, 1)])
def test_a_pair_outside_its_group_is_refused(pair):
    with pytest.raises(ValueError, match="needs two different indices below the group's 2"):
        TrainingGroup(PAIR.tokens, (TrainingPair(*pair),))


def weighted_groups(*weights):
    """Groups of three responses with as many pairs as there are weights for each."""
    places = ((0, 1), (0, 2), (1, 2))
    return [
        TrainingGroup(
            TokenizedGroup((number + 1,), ((5,), (6,), (7,))),
            tuple(
                TrainingPair(*pair, weight=weight)
                for pair, weight in zip(places, given, strict=False)
            ),
        )
        for number, given in enumerate(weights)
    ]


def test_a_training_set_scales_weights_to_mean_one_over_the_pairs_it_keeps():
    records = training_set(weighted_groups((0.0, 1.0, 4.0), (1.0,), (6.0, 3.0, 3.0), (0.0, 0.0)))
    # Six pairs of weight 18; the mean is over pairs, not over groups.
    assert records["weights"] == [
        pytest.approx([1 / 3, 4 / 3]),
        pytest.approx([1 / 3]),
        pytest.approx([2.0, 1.0, 1.0]),
    ]
    assert records["winners"] == [[0, 1], [0], [0, 0, 1]]
    assert records["losers"] == [[2, 2], [1], [1, 2, 2]]


def test_a_training_set_leaves_out_groups_whose_pairs_all_have_weight_zero():
    records = training_set(weighted_groups((0.0,), (1.0,), (0.0, 0.0, 0.0), (), (0.0, 2.0)))
    assert [prompt[0] for prompt in records["prompt"]] == [2, 5]
    assert len(records) == 2


@pytest.mark.parametrize("weights", [(), ((0.0,), (0.0, 0.0)), ((),)])
def test_a_training_set_without_pairs_is_refused(weights):
    with pytest.raises(ValueError, match="no pair to train on"):
        training_set(weighted_groups(*weights))


SEPARATE_ROWS = [[5, 6, 7, 3], [5, 8, 3, 3], [9, 10, 11, 3], [9, 10, 12, 13], [9, 10, 14, 3]]
SINGLE_ROWS = [[5, 6, 7, 8, 3, 3], [9, 10, 11, 12, 13, 14]]
ONE_ROW = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]
BATCHES = {
    "separate": (SEPARATE, None, {"input_ids": SEPARATE_ROWS, "score_index": [2, 5, 10, 15, 18]}),
    "exact": (
        EXACT,
        None,
        {
            "input_ids": SINGLE_ROWS,
            "score_index": [2, 3, 8, 10, 11],
            "position_ids": [[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 3, 2]],
            "document_id": [[0, 0, 0, 0, -1, -1], [0, 0, 0, 0, 0, 0]],
            "segment_id": [[0, 1, 1, 2, 0, 0], [0, 0, 1, 2, 2, 3]],
        },
    ),
    "causal": (CAUSAL, None, {"input_ids": SINGLE_ROWS, "score_index": [2, 3, 8, 10, 11]}),
    # Of ten tokens at most: documents of 3, 2, 3 tokens in one row and of 4, 3 in the other.
    "separate, several a row": (
        SEPARATE,
        10,
        {
            "input_ids": [[5, 6, 7, 5, 8, 9, 10, 11], [9, 10, 12, 13, 9, 10, 14, 3]],
            "score_index": [2, 4, 7, 11, 14],
            "position_ids": [[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 0, 1, 2, 0]],
            "document_id": [[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 1, 1, 1, -1]],
            "segment_id": [[0, 1, 1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0, 1, 0]],
        },
    ),
    "exact, several a row": (
        EXACT,
        10,
        {
            "input_ids": ONE_ROW,
            "score_index": [2, 3, 6, 8, 9],
            "position_ids": [[0, 1, 2, 1, 0, 1, 2, 2, 3, 2]],
            "document_id": [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1]],
            "segment_id": [[0, 1, 1, 2, 0, 0, 1, 2, 2, 3]],
        },
    ),
    "causal, several a row": (
        CAUSAL,
        10,
        {
            "input_ids": ONE_ROW,
            "score_index": [2, 3, 6, 8, 9],
            "position_ids": [[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]],
            "document_id": [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1]],
            "segment_id": [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
        },
    ),
}


@pytest.mark.parametrize(("layout", "pack_length", "expected"), BATCHES.values(), ids=BATCHES)
def test_the_collator_lays_out_groups_and_collects_their_pairs(layout, pack_length, expected):
    batch = collate([PAIR, TRIPLE], 3, layout, pack_length)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected | {
        "pair_counts": [1, 3],
        "response_counts": [2, 3],
        "winners": [0, 2, 2, 3],
        "losers": [1, 3, 4, 4],
        "margins": [1 / 3, 0.0, 0.5, 1.0],
        "weights": [2.0 / 2.5, 1.0 / 2.5, 3.0 / 2.5, 4.0 / 2.5],
        "strengths": [4, 0, 0, 2],
        "labelled": [],
        "acceptable": [],
    }
    kinds = {"margins": torch.float64, "weights": torch.float64, "acceptable": torch.bool}
    for name, tensor in batch.items():
        assert tensor.dtype == kinds.get(name, torch.int64)


def test_the_collator_lays_out_exact_rows_unless_told_otherwise():
    items = list(training_set([PAIR, TRIPLE]))
    batch, expected = GroupCollator(3)(items), collate([PAIR, TRIPLE], 3, EXACT)
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)


def test_pairs_point_at_the_same_responses_whatever_their_order_in_the_row():
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        batch = collate([TRIPLE, PAIR], 3, LAYOUTS["causal"])
        assert batch["winners"].tolist() == [0, 0, 1, 3]
        assert batch["losers"].tolist() == [1, 2, 2, 4]
        # The last token of each response, by group and then by rank.
        ends = batch["input_ids"].flatten()[batch["score_index"]]
        assert ends.tolist() == [11, 13, 14, 7, 8]
        seen.add(tuple(batch["input_ids"].flatten().tolist()))
    assert len(seen) > 5

"""Merged groups: the same sum of pair losses as of rows of single pairs, and each response once."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import forward_scores
from posttrain.rows.layout import LAYOUTS, RowBatch
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.collator import GroupCollator, TrainingGroup, TrainingPair, training_set
from posttrain.training.losses import label_loss, ranking_loss
from posttrain.training.merging import PAIR_COLUMNS, Merging, by_prompt, merge_records
from posttrain.training.sampler import Sizes, StepSampler

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]

IDS = st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple)
#: Few, so that records share prompts and responses.
PROMPTS = st.sampled_from([(1, 2), (3,), (4, 5, 6)])


@st.composite
def training_groups(draw):
    """Records of two or three responses, with some of their comparisons, weighed and labelled."""
    responses = draw(st.lists(IDS, min_size=2, max_size=3, unique=True))
    places = range(len(responses))
    both_ways = list(itertools.permutations(places, 2))
    chosen = draw(st.lists(st.sampled_from(both_ways), min_size=1, max_size=4))
    pairs = tuple(
        TrainingPair(
            *pair, draw(st.floats(-2, 2)), draw(st.floats(0.1, 3)), draw(st.integers(0, 4))
        )
        for pair in chosen
    )
    labels = draw(st.just(()) | st.tuples(*[st.none() | st.booleans() for _ in places]))
    return TrainingGroup(TokenizedGroup(draw(PROMPTS), tuple(responses)), pairs, labels)


def comparisons(records):
    """Each comparison by its texts, as often as it is there."""
    found = Counter()
    for row in records:
        responses = [tuple(ids) for ids in row["responses"]]
        for winner, loser, *rest in zip(*(row[name] for name in PAIR_COLUMNS), strict=True):
            found[tuple(row["prompt"]), responses[winner], responses[loser], *rest] += 1
    return found


def labels(records):
    return Counter(
        (tuple(row["prompt"]), tuple(row["responses"][place]), label)
        for row in records
        for place, label in zip(row["labelled"], row["acceptable"], strict=True)
    )


@given(
    st.lists(training_groups(), min_size=1, max_size=12),
    st.none() | st.integers(1, 40),
    st.none() | st.integers(1, 12),
    st.sampled_from([SEPARATE, EXACT]),
)
def test_every_comparison_and_label_is_there_once(groups, max_tokens, max_pairs, layout):
    rows = list(training_set(groups))
    merging = Merging(layout, max_tokens=max_tokens, max_pairs=max_pairs)
    merged = list(training_set(groups, merging))
    assert comparisons(merged) == comparisons(rows)
    assert labels(merged) == labels(rows)
    assert sum(row["records"] for row in merged) == len(rows)
    sizes = Sizes.from_dataset(training_set(groups, merging), layout, shared_rows=False)
    for first, last in itertools.pairwise(sizes.units()):
        unit = merged[first:last]
        assert [row["part"] for row in unit] == [*range(len(unit))]
        assert max_pairs is None or sum(row["pair_count"] for row in unit) <= max_pairs
    for number, row in enumerate(merged):
        assert len(set(map(tuple, row["responses"]))) == len(row["responses"])
        # None is computed for nothing.
        used = {*row["winners"], *row["losers"], *row["labelled"]}
        assert used == set(range(len(row["responses"])))
        if max_tokens is not None and row["label_count"] == 0:
            alone = len(
                {frozenset(pair) for pair in zip(row["winners"], row["losers"], strict=True)}
            )
            assert sizes.tokens([number]) <= max_tokens or alone == 1


def test_a_group_within_the_limits_holds_each_response_once():
    tokens = TokenizedGroup((1, 2), tuple((k, 9) for k in range(3, 8)))
    pairs = [
        TrainingGroup(tokens.in_order([winner, loser]), (TrainingPair(0, 1),))
        for winner, loser in itertools.combinations(range(5), 2)
    ]
    (merged,) = training_set(pairs, Merging(max_tokens=12, max_pairs=10))
    assert sorted(map(tuple, merged["responses"])) == sorted(tokens.responses)
    assert (merged["total"], merged["pair_count"], merged["records"]) == (12, 10, 10)


def test_cut_parts_hold_all_pairs_of_few_responses():
    # Twelve responses with all 66 pairs, of which a unit takes 15: those of six responses.
    tokens = TokenizedGroup((1, 2), tuple((k, 9) for k in range(3, 15)))
    group = TrainingGroup.with_all_pairs(tokens)
    parts = list(training_set([group], Merging(max_pairs=15)))
    assert [part["part"] for part in parts] == [0] * len(parts)
    assert (parts[0]["response_count"], parts[0]["pair_count"]) == (6, 15)
    # Pair by pair it would be 132 responses.
    assert sum(part["response_count"] for part in parts) <= 45


def test_responses_that_are_compared_with_each_other_stay_together():
    # Of ten responses, those of even places are compared with each other, and those of odd ones.
    tokens = TokenizedGroup((1, 2), tuple((k, 9) for k in range(3, 13)))
    pairs = itertools.combinations(range(10), 2)
    alike = tuple(TrainingPair(*pair) for pair in pairs if sum(pair) % 2 == 0)
    parts = list(training_set([TrainingGroup(tokens, alike)], Merging(max_pairs=10)))
    assert [(part["response_count"], part["pair_count"]) for part in parts] == [(5, 10), (5, 10)]


def test_a_pair_that_does_not_fit_is_computed_all_the_same():
    group = TrainingGroup.with_all_pairs(TokenizedGroup((1,) * 9, ((2,) * 9, (3,) * 8, (4,))))
    parts = list(training_set([group], Merging(max_tokens=10)))
    assert sorted(part["total"] for part in parts) == [18, 19, 26]
    assert all(part["pair_count"] == 1 for part in parts)


def test_records_are_merged_by_tokens_of_the_prompt_in_order_of_the_first():
    records = list(
        training_set(
            [
                TrainingGroup.with_all_pairs(TokenizedGroup(prompt, ((5,), (6,))))
                for prompt in ((1, 2), (2,), (1, 2))
            ]
        )
    )
    assert [len(alike) for alike in by_prompt(records)] == [2, 1]
    assert merge_records(records[::2])["winners"] == [0, 0]


def mean_weight(groups):
    """What a training set divides weights by."""
    weights = [pair.weight for group in groups for pair in group.pairs]
    return sum(weights) / len(weights)


def summed(model, groups, merging, *, layout, steps):
    """The objective of a pass and its gradient: the sum over steps of the sum over their pairs."""
    compute_in_double(model)
    model.zero_grad()
    rows = training_set(groups, merging)
    sizes = Sizes.from_dataset(rows, layout, shared_rows=False)
    total = torch.zeros((), dtype=torch.float64)
    for step in StepSampler(sizes, max_tokens_per_device=40, **steps):
        for micro_batch in step.micro_batches:
            batch = GroupCollator(0, layout)([rows[k] for k in micro_batch.groups])
            scores = forward_scores(model, RowBatch.among(batch))
            losses = ranking_loss(
                scores[batch["winners"]],
                scores[batch["losers"]],
                margins=batch["margins"],
                weights=batch["weights"],
                reduction="none",
            )
            loss = losses.sum() * mean_weight(groups)
            if len(batch["labelled"]):
                scored = scores[batch["labelled"]]
                loss = loss + label_loss(scored, batch["acceptable"], reduction="none").sum()
            loss.backward()
            total += loss.detach()
    gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return total.item(), gradient


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    groups=st.lists(training_groups(), min_size=3, max_size=10),
    max_tokens=st.none() | st.integers(8, 40),
    max_pairs=st.none() | st.integers(1, 12),
    layout=st.sampled_from([SEPARATE, EXACT]),
)
def test_a_pass_has_the_objective_of_pairs_in_rows_of_their_own(
    tiny_model, groups, max_tokens, max_pairs, layout
):
    model = tiny_model[0]
    alone = [
        TrainingGroup(
            group.tokens.in_order([pair.winner, pair.loser]),
            (TrainingPair(0, 1, pair.margin, pair.weight),),
        )
        for group in groups
        for pair in group.pairs
    ]
    alone += [
        # Its pair weighs nothing to speak of; the labels are those of the group.
        TrainingGroup(group.tokens, (TrainingPair(0, 1, 0.0, 1e-300),), group.labels)
        for group in groups
        if any(label is not None for label in group.labels)
    ]
    expected = summed(model, alone, None, layout=SEPARATE, steps={"groups_per_step": 1})
    merging = Merging(layout, max_tokens=max_tokens, max_pairs=max_pairs)
    found = summed(model, groups, merging, layout=layout, steps={"pairs_per_step": 7})
    assert found[0] == pytest.approx(expected[0], abs=1e-9)
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=0, atol=1e-9, msg=name)

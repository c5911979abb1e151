"""Steps: every group once an epoch, whatever computes it; batches that fit; repeated orders."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.collator import TrainingGroup, training_set
from posttrain.training.sampler import MicroBatch, Sizes, StepSampler, cut

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]


def sizes_of(*groups, padded=True):
    """Sizes of groups given as (rows, longest row, pairs)."""
    rows, longest, pairs = (np.array(column) for column in zip(*groups, strict=True))
    return Sizes(rows, longest, pairs, padded)


#: Of 12, 5, 8, 20, 5 and 9 tokens.
SIX = sizes_of((1, 12, 1), (1, 5, 3), (1, 8, 1), (1, 20, 3), (1, 5, 1), (1, 9, 3))

SIZES = st.builds(
    lambda groups, padded: sizes_of(*groups, padded=padded),
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(2, 30), st.integers(1, 3)),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
)
LIMITS = st.none() | st.integers(1, 150)
IDS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)
GROUPS = st.lists(
    st.builds(TokenizedGroup, IDS, st.lists(IDS, min_size=2, max_size=3).map(tuple)),
    min_size=1,
    max_size=8,
)


def samplers(sizes, processes, **options):
    """One for each process."""
    return [
        StepSampler(sizes, processes=processes, process=process, **options)
        for process in range(processes)
    ]


def planned(sizes, processes, *, epoch=0, **options):
    """The steps of an epoch, each as one step a process."""
    found = samplers(sizes, processes, **options)
    for sampler in found:
        sampler.epoch = epoch
    return list(zip(*found, strict=True))


def groups_of(steps, *, idle=False):
    """Groups of one step of all processes that count, or that do not."""
    return [
        group
        for step in steps
        for micro_batch in step.micro_batches
        if micro_batch.is_dummy == idle
        for group in micro_batch.groups
    ]


def order(sizes, *, epoch=0, **options):
    """Steps of an epoch as sorted groups, which is what optimisation depends on."""
    return [sorted(groups_of(steps)) for steps in planned(sizes, 1, epoch=epoch, **options)]


def test_a_step_on_one_process_without_a_limit_is_one_part():
    found = list(StepSampler(SIX, groups_per_step=4, shuffle=False, seed=7))
    assert [step.micro_batches for step in found] == [
        (MicroBatch((1, 2, 0, 3)),),
        (MicroBatch((4, 5)),),
    ]
    assert [(step.groups, step.pairs) for step in found] == [(4, 8), (2, 4)]
    assert [step.seed for step in found] == [(7, 0), (7, 0)]


def test_a_step_counts_its_labels_on_all_processes():
    assert [step.labels for step in StepSampler(SIX, groups_per_step=4)] == [0, 0]
    labelled = replace(SIX, labels=np.array([0, 3, 0, 1, 2, 0]))
    for steps in zip(*samplers(labelled, 3, groups_per_step=4, shuffle=False), [4, 2], strict=True):
        *processes, expected = steps
        assert [step.labels for step in processes] == [expected] * 3


@pytest.mark.parametrize(
    ("max_tokens_per_device", "micro_batches"),
    [
        # Padded to the longest: 5 + 5 and 8; 9 and 12; 20.
        (24, [(2, 1, 4), (5, 0), (3,)]),
        # A micro-batch may be full to the last token.
        (23, [(2, 5), (1, 4), (0,), (3,)]),
        (10, [(1, 4), (2,), (5,), (0,), (3,)]),
        (9, [(1,), (4,), (2,), (5,), (0,), (3,)]),
        (1, [(1,), (4,), (2,), (5,), (0,), (3,)]),
        (120, [(1, 4, 2, 5, 0, 3)]),
        (119, [(1, 4, 2, 5, 0), (3,)]),
    ],
)
def test_micro_batches_by_hand(max_tokens_per_device, micro_batches):
    found = cut(np.arange(6), SIX, max_tokens_per_device)
    assert {frozenset(micro_batch.groups) for micro_batch in found} == set(
        map(frozenset, micro_batches)
    )
    assert all(not micro_batch.is_dummy for micro_batch in found)


def test_rows_that_groups_share_are_not_padded_to_the_longest():
    shared = replace(SIX, padded=False)
    assert (SIX.tokens([1, 3]), shared.tokens([1, 3])) == (40, 25)
    found = [micro_batch.groups for micro_batch in cut(np.arange(6), shared, 30)]
    assert found == [(1, 4, 2, 5), (3,), (0,)]


def test_parts_come_largest_first_and_are_dealt_in_turn():
    micro_batches = cut(np.arange(6), SIX, 10, 2)
    # The one micro-batch of two groups is halved, because five do not make two equal shares.
    assert [micro_batch.groups for micro_batch in micro_batches] == [
        (3,),
        (0,),
        (5,),
        (2,),
        (1,),
        (4,),
    ]
    first, second = planned(SIX, 2, groups_per_step=6, max_tokens_per_device=10, shuffle=False)[0]
    assert [micro_batch.groups for micro_batch in first.micro_batches] == [(3,), (5,), (1,)]
    assert [micro_batch.groups for micro_batch in second.micro_batches] == [(0,), (2,), (4,)]


def test_a_part_is_halved_so_that_every_process_has_one():
    # Short and long groups go into both halves.
    micro_batches = cut(np.arange(6), SIX, None, 2)
    assert [micro_batch.groups for micro_batch in micro_batches] == [(4, 5, 3), (1, 2, 0)]


def test_processes_without_a_group_of_their_own_compute_one_that_does_not_count():
    micro_batches = cut(np.array([3, 1]), SIX, None, 5)
    assert [(micro_batch.groups, micro_batch.is_dummy) for micro_batch in micro_batches] == [
        ((3,), False), ((1,), False), ((1,), True), ((1,), True), ((1,), True),
    ]  # fmt: skip
    (steps,) = planned(sizes_of((2, 7, 1)), 3, groups_per_step=4)
    assert [step.micro_batches for step in steps] == [
        (MicroBatch((0,)),), (MicroBatch((0,), is_dummy=True),), (MicroBatch((0,), is_dummy=True),),
    ]  # fmt: skip
    assert {(step.groups, step.pairs) for step in steps} == {(1, 1)}


@settings(deadline=None)
@given(SIZES, st.integers(1, 12), LIMITS, st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_every_group_counts_once_an_epoch(
    sizes, groups_per_step, max_tokens_per_device, processes, epoch, shuffle
):
    steps = planned(
        sizes,
        processes,
        epoch=epoch,
        groups_per_step=groups_per_step,
        max_tokens_per_device=max_tokens_per_device,
        shuffle=shuffle,
    )
    found = [groups_of(one) for one in steps]
    count = len(sizes.pairs)
    assert sorted(group for groups in found for group in groups) == list(range(count))
    full, rest = divmod(count, groups_per_step)
    assert [len(groups) for groups in found] == [groups_per_step] * full + [rest] * (rest > 0)
    for one, groups in zip(steps, found, strict=True):
        assert {step.groups for step in one} == {len(groups)}
        assert {step.pairs for step in one} == {sum(sizes.pairs[groups].tolist())}
    assert len(StepSampler(sizes, groups_per_step=groups_per_step)) == len(steps)
    # A micro-batch that only keeps a process busy computes a group of its own step.
    for one, groups in zip(steps, found, strict=True):
        assert set(groups_of(one, idle=True)) <= set(groups)


@settings(deadline=None)
@given(SIZES, st.integers(1, 12), LIMITS, st.integers(1, 5))
def test_all_processes_have_equally_many_parts_within_the_limit(
    sizes, groups_per_step, max_tokens_per_device, processes
):
    for steps in planned(
        sizes,
        processes,
        groups_per_step=groups_per_step,
        max_tokens_per_device=max_tokens_per_device,
    ):
        micro_batches = [micro_batch for step in steps for micro_batch in step.micro_batches]
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert len(steps[0].micro_batches) >= 1
        assert all(micro_batch.groups for micro_batch in micro_batches)
        if max_tokens_per_device is None:
            assert {len(step.micro_batches) for step in steps} == {1}
        else:
            over = [
                micro_batch
                for micro_batch in micro_batches
                if sizes.tokens(micro_batch.groups) > max_tokens_per_device
            ]
            assert all(len(micro_batch.groups) == 1 for micro_batch in over)
        # One process is idle only if no micro-batch could be cut once more.
        idle = sum(micro_batch.is_dummy for micro_batch in micro_batches)
        assert idle < processes
        assert not idle or all(len(micro_batch.groups) == 1 for micro_batch in micro_batches)


@settings(deadline=None)
@given(SIZES, st.integers(1, 12), LIMITS, LIMITS, st.integers(1, 5), st.integers(0, 3))
def test_what_a_step_holds_does_not_depend_on_processes_or_parts(
    sizes, groups_per_step, max_tokens_per_device, other, processes, epoch
):
    expected = order(
        sizes,
        epoch=epoch,
        groups_per_step=groups_per_step,
        max_tokens_per_device=max_tokens_per_device,
        seed=3,
    )
    found = planned(
        sizes,
        processes,
        epoch=epoch,
        groups_per_step=groups_per_step,
        max_tokens_per_device=other,
        seed=3,
    )
    assert [sorted(groups_of(steps)) for steps in found] == expected


@settings(deadline=None)
@given(SIZES, st.integers(1, 40), st.integers(1, 4))
def test_parts_hold_groups_of_like_length(sizes, max_tokens_per_device, processes):
    # Sorted by length, the micro-batches of one process do not overlap.
    micro_batches = cut(np.arange(len(sizes.pairs)), sizes, max_tokens_per_device)
    ends = sorted(
        (min(sizes.longest[list(p.groups)]), max(sizes.longest[list(p.groups)]))
        for p in micro_batches
    )
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    tokens = [
        sizes.tokens(micro_batch.groups)
        for micro_batch in cut(np.arange(len(sizes.pairs)), sizes, max_tokens_per_device, processes)
        if not micro_batch.is_dummy
    ]
    assert tokens == sorted(tokens, reverse=True)


MANY = sizes_of(*[(1, 5 + number % 7, 1) for number in range(40)])


def test_the_order_is_new_each_epoch_and_for_each_seed_and_repeats_for_the_same():
    found = {
        (seed, epoch): order(MANY, groups_per_step=8, seed=seed, epoch=epoch)
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
    }
    assert len(set(map(str, found.values()))) == 9
    for (seed, epoch), expected in found.items():
        assert order(MANY, groups_per_step=8, seed=seed, epoch=epoch) == expected


def test_a_sampler_repeats_an_epoch_until_it_is_told_of_the_next():
    sampler = StepSampler(MANY, groups_per_step=8)
    first = list(sampler)
    assert list(sampler) == first
    sampler.epoch = 1
    assert list(sampler) != first


@pytest.mark.parametrize("epoch", [0, 3])
def test_without_shuffling_groups_come_in_their_order(epoch):
    found = order(MANY, groups_per_step=15, shuffle=False, epoch=epoch)
    assert found == [list(range(15)), list(range(15, 30)), list(range(30, 40))]


def test_all_steps_of_an_epoch_have_its_seed():
    seeds = [
        step.seed
        for epoch in (0, 1)
        for steps in planned(MANY, 3, groups_per_step=8, epoch=epoch, seed=5)
        for step in steps
    ]
    assert seeds == [(5, 0)] * 15 + [(5, 1)] * 15


def laid_out(groups, layout, pack_length=None):
    return lay_out(groups, layout, pad_token_id=0, pack_length=pack_length).input_ids


def data_of(groups):
    return training_set([TrainingGroup.with_all_pairs(tokens) for tokens in groups])


def test_sizes_by_hand():
    data = data_of(
        [TokenizedGroup((5,), ((6, 7), (8,))), TokenizedGroup((9, 10), ((11,), (12, 13), (14,)))]
    )
    for layout, shared_rows, rows, longest, padded in (
        (EXACT, False, [1, 1], [4, 6], True),
        (EXACT, True, [1, 1], [4, 6], False),
        (SEPARATE, False, [2, 3], [3, 4], True),
        # 3 + 3 for 3 + 2, and 4 + 4 + 4 for 3 + 4 + 3.
        (SEPARATE, True, [1, 1], [6, 12], False),
    ):
        found = Sizes.from_dataset(data, layout, shared_rows=shared_rows)
        assert (found.rows.tolist(), found.longest.tolist()) == (rows, longest)
        assert found.pairs.tolist() == [1, 3]
        assert found.padded == padded
        assert found.labels.tolist() == [0, 0]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shared_rows", [False, True])
def test_sizes_count_labelled_responses(layout, shared_rows):
    tokens = TokenizedGroup((9, 10), ((11,), (12, 13), (14,)))
    group = TrainingGroup.with_all_pairs(tokens)
    labels = [(True, False, None), (), (None, None, True)]
    data = training_set([replace(group, labels=given) for given in labels])
    assert Sizes.from_dataset(data, layout, shared_rows=shared_rows).labels.tolist() == [2, 0, 1]


@settings(deadline=None, max_examples=30)
@given(GROUPS, st.data())
def test_sizes_are_those_of_the_rows_that_are_laid_out_padding_included(groups, data):
    for layout in LAYOUTS.values():
        sizes = Sizes.from_dataset(data_of(groups), layout, shared_rows=False)
        for chosen in (
            range(len(groups)),
            data.draw(st.lists(st.integers(0, len(groups) - 1), min_size=1, unique=True)),
        ):
            rows = laid_out([groups[k] for k in chosen], layout)
            assert sizes.tokens(chosen) == rows.numel()
            assert sizes.rows[list(chosen)].sum() == len(rows)
            assert sizes.longest[list(chosen)].max() == rows.shape[1]


@settings(deadline=None, max_examples=30)
@given(GROUPS, st.integers(0, 30))
def test_sizes_in_rows_that_groups_share_are_those_of_their_tokens(groups, more):
    data = data_of(groups)
    for layout in LAYOUTS.values():
        sizes = Sizes.from_dataset(data, layout, shared_rows=True)
        tokens = sum(map(layout.tokens, groups))
        found = sizes.tokens(range(len(groups)))
        if layout.rows == "single":
            assert found == tokens
        else:
            assert found == sum(len(group.responses) * group.longest for group in groups) >= tokens
        # Two rows together hold more than one has room for; otherwise they would be one row.
        largest = max(g.longest if layout.rows == "separate" else g.total for g in groups)
        rows = laid_out(groups, layout, largest + more)
        assert tokens <= rows.numel() < 2 * tokens or len(rows) == 1


@settings(deadline=None, max_examples=30)
@given(GROUPS, st.sampled_from(list(LAYOUTS)), st.integers(1, 60), st.integers(1, 3))
def test_rows_of_a_part_keep_to_the_limit(groups, layout, max_tokens_per_device, processes):
    layout = LAYOUTS[layout]
    sizes = Sizes.from_dataset(data_of(groups), layout, shared_rows=False)
    torch.manual_seed(0)
    for micro_batch in cut(np.arange(len(groups)), sizes, max_tokens_per_device, processes):
        rows = laid_out([groups[k] for k in micro_batch.groups], layout)
        assert rows.numel() <= max_tokens_per_device or len(micro_batch.groups) == 1


def test_a_plan_needs_as_many_steps_as_it_says():
    for count in (1, 7, 8, 9, 40):
        sampler = StepSampler(sizes_of(*[(1, 3, 1)] * count), groups_per_step=8)
        assert len(list(sampler)) == len(sampler) == math.ceil(count / 8)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25),
    st.integers(1, 40),
    st.integers(0, 3),
    st.data(),
)
def test_steps_counted_in_pairs_take_whole_units_and_none_is_empty(pairs, per_step, seed, data):
    begins = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    # Where no unit begins, a part continues the one before it.
    parts = [0]
    for begin in begins[1:]:
        parts.append(0 if begin else parts[-1] + 1)
    sizes = replace(
        sizes_of(*((1, 5, number) for number in pairs)), part=np.array(parts), records=None
    )
    sampler = StepSampler(sizes, pairs_per_step=per_step, seed=seed)
    steps = [groups_of([step]) for step in sampler]
    assert len(steps) == len(sampler)
    assert all(steps)
    assert sorted(itertools.chain(*steps)) == list(range(len(pairs)))
    step_of = {group: number for number, step in enumerate(steps) for group in step}
    for group in range(1, len(pairs)):
        if parts[group]:
            assert step_of[group] == step_of[group - 1]


def test_a_step_has_as_many_pairs_as_asked_for_on_average():
    sizes = sizes_of(*((1, 5, number) for number in (3, 3, 4, 2, 5, 3)))
    steps = order(sizes, pairs_per_step=10, shuffle=False)
    # Middles of the groups lie at 1.5, 4.5, 8, 11, 14.5 and 18.5 pairs.
    assert steps == [[0, 1, 2], [3, 4, 5]]
    # A group of more pairs than a step has one of its own.
    assert order(sizes_of((1, 5, 1), (1, 5, 50), (1, 5, 1)), pairs_per_step=5, shuffle=False) == [
        [0], [1], [2]
    ]  # fmt: skip

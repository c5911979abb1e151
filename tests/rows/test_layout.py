"""Rows: every layout by hand, several documents in a row, and how full rows get."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.rows.layout import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.rows.packing import pack_sequences
from posttrain.rows.tokenization import TokenizedGroup

PAIR = TokenizedGroup((5, 6), ((7,), (8, 9)))
TRIPLE = TokenizedGroup((1,), ((2, 3), (4,), (5, 6)))
SINGLE = [
    Layout("single", *choices)
    for choices in itertools.product(
        ("isolated", "causal"), ("restarting", "running"), ("shuffled", "ranked")
    )
]
IDS = st.lists(st.integers(0, 9), min_size=1, max_size=6).map(tuple)
GROUPS = st.lists(
    st.builds(TokenizedGroup, IDS, st.lists(IDS, min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=5,
)


def listed(batch):
    """The tensors of a batch as lists."""
    return {name: tensor.tolist() for name, tensor in batch.tensors().items()}


def blocks_of(batch):
    """The token positions of every document, as (row, columns)."""
    for row, document in enumerate(batch.document_id):
        for place in range(int(document.max()) + 1):
            yield row, (document == place).nonzero().flatten()


def decode(batch):
    """Every response with its prompt, by order of the scores, from documents and segments."""
    longest = batch.input_ids.shape[1]
    found = {}
    for row, columns in blocks_of(batch):
        ids, segment = batch.input_ids[row, columns], batch.segment_id[row, columns]
        for number in range(1, int(segment.max()) + 1):
            end = int(columns[segment == number][-1])
            prompt, response = ids[segment == 0], ids[segment == number]
            found[row * longest + end] = tuple(prompt.tolist()), tuple(response.tolist())
    assert sorted(found) == sorted(batch.score_index.tolist())
    return [found[index] for index in batch.score_index.tolist()]


def in_order(groups):
    return [(group.prompt, response) for group in groups for response in group.responses]


def room(data, groups, layout):
    """No limit, or one that the largest document keeps."""
    largest = max(g.longest if layout.rows == "separate" else g.total for g in groups)
    return data.draw(st.none() | st.integers(largest, largest + 30))


def test_the_presets():
    assert set(LAYOUTS) == {"separate", "exact", "causal", "llama3"}
    assert LAYOUTS["separate"].rows == "separate"
    assert LAYOUTS["exact"] == Layout("single", "isolated", "restarting", "ranked") == Layout()
    assert LAYOUTS["causal"] == Layout("single", "causal", "running", "shuffled")
    assert LAYOUTS["llama3"] is LAYOUTS["causal"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("rows", "rows must be one of separate, single, not 'both'"),
        ("attention", "attention must be one of isolated, causal, not 'both'"),
        ("positions", "positions must be one of restarting, running, not 'both'"),
        ("order", "order must be one of shuffled, ranked, not 'both'"),
    ],
)
def test_unknown_choices_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        Layout(**{part: "both"})


def test_which_layouts_are_exact():
    exact = {layout for layout in SINGLE if layout.is_exact}
    assert exact == {Layout(order=order) for order in ("shuffled", "ranked")}
    assert Layout("separate", "causal", "running", "shuffled").is_exact


def test_which_layouts_need_a_mask():
    for layout in SINGLE:
        for shared_rows in (False, True):
            assert layout.needs_mask(shared_rows=shared_rows) == layout.is_exact
    assert not LAYOUTS["separate"].needs_mask(shared_rows=False)
    assert LAYOUTS["separate"].needs_mask(shared_rows=True)


def test_tokens_of_a_group():
    assert LAYOUTS["separate"].tokens(PAIR) == 3 + 4
    assert LAYOUTS["separate"].tokens(TRIPLE) == 3 + 2 + 3
    for layout in SINGLE:
        assert (layout.tokens(PAIR), layout.tokens(TRIPLE)) == (5, 6)


def test_separate_rows():
    batch = lay_out([PAIR, TRIPLE], LAYOUTS["separate"], pad_token_id=0)
    assert listed(batch) == {
        "input_ids": [[5, 6, 7, 0], [5, 6, 8, 9], [1, 2, 3, 0], [1, 4, 0, 0], [1, 5, 6, 0]],
        "score_index": [2, 7, 10, 13, 18],
    }
    assert batch.position_ids is batch.document_id is batch.segment_id is None


@pytest.mark.parametrize(
    ("attention", "positions", "expected"),
    [
        (
            "isolated",
            "restarting",
            {"position_ids": [0, 1, 2, 2, 3], "segment_id": [0, 0, 1, 2, 2]},
        ),
        ("isolated", "running", {"position_ids": [0, 1, 2, 3, 4], "segment_id": [0, 0, 1, 2, 2]}),
        ("causal", "restarting", {"position_ids": [0, 1, 2, 2, 3], "segment_id": [0, 0, 0, 0, 0]}),
        ("causal", "running", None),
    ],
)
def test_a_single_row(attention, positions, expected):
    layout = Layout("single", attention, positions)
    plain = {"input_ids": [[5, 6, 7, 8, 9]], "score_index": [2, 4]}
    others = {} if expected is None else {"document_id": [[0] * 5]}
    assert listed(lay_out([PAIR], layout, pad_token_id=0)) == plain | others | {
        name: [row] for name, row in (expected or {}).items()
    }


def test_padding_belongs_to_no_block():
    batch = lay_out([PAIR, TRIPLE], LAYOUTS["exact"], pad_token_id=3)
    assert listed(batch) == {
        "input_ids": [[5, 6, 7, 8, 9, 3], [1, 2, 3, 4, 5, 6]],
        "score_index": [2, 4, 8, 9, 11],
        "position_ids": [[0, 1, 2, 2, 3, 0], [0, 1, 2, 1, 1, 2]],
        "document_id": [[0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 0, 0]],
        "segment_id": [[0, 0, 1, 2, 2, 0], [0, 1, 1, 2, 3, 3]],
    }


@pytest.mark.parametrize(
    ("layout", "positions", "segment"),
    [
        (
            LAYOUTS["exact"],
            [0, 1, 2, 2, 3, 0, 1, 2, 1, 1, 2, 0, 1, 2, 2, 3],
            [0, 0, 1, 2, 2, 0, 1, 1, 2, 3, 3, 0, 0, 1, 2, 2],
        ),
        (
            Layout("single", "causal", "running"),
            [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4],
            [0] * 16,
        ),
    ],
)
def test_several_groups_in_a_row(layout, positions, segment):
    batch = lay_out([PAIR, TRIPLE, PAIR], layout, pad_token_id=0, pack_length=16)
    assert listed(batch) == {
        "input_ids": [[5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9]],
        "score_index": [2, 4, 7, 8, 10, 13, 15],
        "position_ids": [positions],
        "document_id": [[0] * 5 + [1] * 6 + [2] * 5],
        "segment_id": [segment],
    }


def test_several_separate_responses_in_a_row():
    batch = lay_out([PAIR, TRIPLE], LAYOUTS["separate"], pad_token_id=0, pack_length=9)
    # The documents have 3, 4, 3, 2 and 3 tokens.
    assert listed(batch) == {
        "input_ids": [[5, 6, 7, 1, 2, 3, 1, 4], [5, 6, 8, 9, 1, 5, 6, 0]],
        "score_index": [2, 11, 5, 7, 14],
        "position_ids": [[0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 1, 2, 0]],
        "document_id": [[0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1, -1]],
        "segment_id": [[0, 0, 1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1, 1, 0]],
    }


def test_one_response_is_a_plain_row_in_every_layout():
    alone = TokenizedGroup((5, 6), ((7, 8),))
    for layout in SINGLE:
        batch = lay_out([alone], layout, pad_token_id=0, pack_length=10)
        assert listed(batch) == {"input_ids": [[5, 6, 7, 8]], "score_index": [3]}
    # One row that is not plain is enough for all rows to need a structure.
    both = lay_out([alone, PAIR], LAYOUTS["exact"], pad_token_id=0)
    assert both.position_ids.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 2, 3]]
    assert both.document_id.tolist() == [[0, 0, 0, 0, -1], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("pack_length", [None, 12])
def test_separate_rows_ignore_the_other_choices(pack_length):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    layout = Layout("separate", "causal", "running", "shuffled")
    batches = [
        lay_out([PAIR, TRIPLE], each, pad_token_id=0, pack_length=pack_length)
        for each in (layout, LAYOUTS["separate"])
    ]
    assert listed(batches[0]) == listed(batches[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shuffled_row_by_hand():
    layout = Layout(order="shuffled")
    for seed in range(20):
        torch.manual_seed(seed)
        batch = lay_out([PAIR], layout, pad_token_id=0)
        if batch.input_ids[0, 2] == 8:
            break
    assert listed(batch) == {
        "input_ids": [[5, 6, 8, 9, 7]],
        "score_index": [4, 3],
        "position_ids": [[0, 1, 2, 3, 2]],
        "document_id": [[0] * 5],
        "segment_id": [[0, 0, 1, 1, 2]],
    }


def test_shuffling_uses_all_orders_equally_often_and_changes_no_group():
    groups = [TRIPLE] * 600
    torch.manual_seed(0)
    batch = lay_out(groups, Layout(order="shuffled"), pad_token_id=0)
    assert decode(batch) == in_order(groups)
    orders = [tuple(order) for order in batch.score_index.view(-1, 3).argsort().tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(3))]
    assert sum(counts) == 600
    # Six times the standard deviation of √(600 · 1/6 · 5/6) = 9.
    assert all(abs(count - 100) < 55 for count in counts)


@pytest.mark.parametrize("layout", [LAYOUTS["causal"], Layout(order="shuffled")])
def test_the_order_is_drawn_from_the_global_generator(layout):
    def drawn(seed):
        torch.manual_seed(seed)
        return listed(lay_out([TRIPLE] * 8, layout, pad_token_id=0))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("layout", [LAYOUTS["causal"], Layout(order="shuffled")])
def test_a_seeded_order_depends_on_no_other_group(layout):
    def drawn(numbers):
        before = torch.get_rng_state()
        found = [
            listed(
                lay_out([TRIPLE] * len(some), layout, pad_token_id=0, seeds=[(3, k) for k in some])
            )
            for some in numbers
        ]
        assert torch.equal(torch.get_rng_state(), before)
        return [row for batch in found for row in batch["input_ids"]]

    together = drawn([range(20)])
    assert drawn([range(7), range(7, 20)]) == together
    assert len(set(map(tuple, together))) > 2


def test_ranked_rows_draw_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    lay_out([PAIR, TRIPLE], LAYOUTS["exact"], pad_token_id=0)
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None)
@given(st.data(), GROUPS, st.sampled_from([*SINGLE, LAYOUTS["separate"]]), st.integers(0, 99))
def test_every_layout_keeps_prompts_responses_and_the_order_of_scores(data, groups, layout, seed):
    torch.manual_seed(seed)
    pack_length = room(data, groups, layout)
    batch = lay_out(groups, layout, pad_token_id=0, pack_length=pack_length)
    assert pack_length is None or batch.input_ids.shape[1] <= pack_length
    assert {tensor.dtype for tensor in batch.tensors().values()} == {torch.long}
    assert len(set(batch.score_index.tolist())) == len(batch.score_index)
    for index, (prompt, response) in zip(batch.score_index.tolist(), in_order(groups), strict=True):
        row, end = divmod(index, batch.input_ids.shape[1])
        ids = batch.input_ids[row].tolist()
        start = (
            0
            if batch.document_id is None
            else batch.document_id[row].tolist().index(batch.document_id[row, end])
        )
        assert tuple(ids[start : start + len(prompt)]) == prompt
        assert tuple(ids[end + 1 - len(response) : end + 1]) == response
    if pack_length is None or batch.document_id is None:
        alone = layout.rows == "separate"
        assert len(batch.input_ids) == (len(in_order(groups)) if alone else len(groups))
    if batch.document_id is None:
        assert batch.position_ids is batch.segment_id is None
        return
    assert (batch.document_id >= 0).sum() == sum(map(layout.tokens, groups))
    assert not batch.position_ids[batch.document_id < 0].any()
    assert not batch.segment_id[batch.document_id < 0].any()
    if layout.attention == "causal" and layout.rows == "single":
        assert not batch.segment_id.any()


@settings(deadline=None)
@given(st.data(), GROUPS, st.sampled_from(["shuffled", "ranked"]), st.sampled_from(range(100)))
def test_an_exact_row_can_be_read_back(data, groups, order, seed):
    torch.manual_seed(seed)
    layout = Layout(order=order)
    batch = lay_out(groups, layout, pad_token_id=0, pack_length=room(data, groups, layout))
    if batch.document_id is None:
        assert all(len(group.responses) == 1 for group in groups)
        return
    assert decode(batch) == in_order(groups)
    for row, columns in blocks_of(batch):
        positions, segment = batch.position_ids[row, columns], batch.segment_id[row, columns]
        start = int((segment == 0).sum())
        assert positions[segment == 0].tolist() == list(range(start))
        for number in range(1, int(segment.max()) + 1):
            size = int((segment == number).sum())
            assert positions[segment == number].tolist() == list(range(start, start + size))


@settings(deadline=None)
@given(st.data(), GROUPS, st.integers(0, 9))
def test_padding_is_on_the_right_and_of_the_given_token(data, groups, pad_token_id):
    layout = LAYOUTS["exact"]
    pack_length = room(data, groups, layout)
    batch = lay_out(groups, layout, pad_token_id=pad_token_id, pack_length=pack_length)
    if batch.document_id is None:
        return
    padding = batch.document_id < 0
    assert (batch.input_ids[padding] == pad_token_id).all()
    assert not (padding[:, :-1] & ~padding[:, 1:]).any()
    assert not padding.all(dim=0).any()


def test_no_groups_are_refused():
    with pytest.raises(ValueError, match="cannot make rows of no groups"):
        lay_out([], LAYOUTS["exact"], pad_token_id=0)


def test_a_group_longer_than_a_row_is_refused():
    for layout, fits in ((LAYOUTS["exact"], 6), (LAYOUTS["separate"], 4)):
        lay_out([PAIR, TRIPLE], layout, pad_token_id=0, pack_length=fits)
        with pytest.raises(
            ValueError, match=rf"document 1 has {fits} tokens, more than pack_length"
        ):
            lay_out([PAIR, TRIPLE], layout, pad_token_id=0, pack_length=fits - 1)


def test_the_first_of_the_longest_blocks_is_named():
    expected = (
        "document 2 has 9 tokens, more than pack_length=8; raise pack_length, or tokenise with "
        "max_row_tokens so that prompts are cut"
    )
    with pytest.raises(ValueError, match=expected):
        pack_sequences([3, 8, 9, 1, 9], 8)


@pytest.mark.parametrize(
    ("sizes", "pack_length", "expected"),
    [
        ([], 8, []),
        ([8], 8, [[0]]),
        ([4, 4, 4], 12, [[0, 1, 2]]),
        ([4, 4, 4], 11, [[0, 2], [1]]),
        # Best fit alone would make rows of 10 and 2.
        ([5, 5, 1, 1], 10, [[0, 2], [1, 3]]),
        # Spread evenly, one of two rows would have 7.
        ([3, 3, 2, 2, 2], 6, [[0, 1], [2, 3, 4]]),
        # Documents that go to the emptiest row that has room would need three.
        ([7, 6, 5, 4, 2], 12, [[0, 2], [1, 3, 4]]),
        # Rows come by their first document, documents in the order given.
        ([8, 1, 9, 3, 2], 12, [[0, 3], [1, 2, 4]]),
    ],
)
def test_filled_rows_by_hand(sizes, pack_length, expected):
    assert pack_sequences(sizes, pack_length) == expected


SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=40)


def best_fit(sizes, pack_length):
    """Rows of best-fit decreasing, by looking through all rows for each document."""
    loads = []
    for size in sorted(sizes, reverse=True):
        fitting = [k for k, load in enumerate(loads) if load + size <= pack_length]
        if fitting:
            loads[max(fitting, key=loads.__getitem__)] += size
        else:
            loads.append(size)
    return loads


def fewest(sizes, pack_length):
    """The fewest rows possible, by trying everything."""
    best = len(sizes)

    def place(k, loads):
        nonlocal best
        if len(loads) >= best:
            return
        if k == len(sizes):
            best = len(loads)
            return
        for row in range(len(loads)):
            if loads[row] + sizes[k] <= pack_length:
                place(k + 1, [*loads[:row], loads[row] + sizes[k], *loads[row + 1 :]])
        place(k + 1, [*loads, sizes[k]])

    place(0, [])
    return best


@settings(deadline=None)
@given(SIZES, st.integers(20, 60))
def test_every_block_is_in_one_row_and_no_row_over_the_limit(sizes, pack_length):
    filled = pack_sequences(sizes, pack_length)
    assert sorted(k for row in filled for k in row) == list(range(len(sizes)))
    assert all(row and row == sorted(row) for row in filled)
    assert filled == sorted(filled)
    assert max(sum(sizes[k] for k in row) for row in filled) <= pack_length


@settings(deadline=None)
@given(SIZES, st.integers(20, 60))
def test_there_are_as_many_rows_as_best_fit_makes(sizes, pack_length):
    filled, tightest = pack_sequences(sizes, pack_length), best_fit(sizes, pack_length)
    assert len(filled) == len(tightest) >= math.ceil(sum(sizes) / pack_length)


@settings(deadline=None)
@given(SIZES, st.integers(20, 60))
def test_no_row_exceeds_the_mean_by_more_than_the_largest_block(sizes, pack_length):
    filled = pack_sequences(sizes, pack_length)
    longest = max(sum(sizes[k] for k in row) for row in filled)
    assert longest <= sum(sizes) / len(filled) + max(sizes)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(12, 24))
def test_rows_are_nearly_as_few_as_possible(sizes, pack_length):
    best = fewest(sizes, pack_length)
    count = len(pack_sequences(sizes, pack_length))
    assert best <= count <= 11 / 9 * best + 4
    # So few documents never cost best fit more than one row.
    assert count <= best + (best > 1)


def test_the_tensors_of_a_batch_give_it_back():
    for layout, names in (
        (LAYOUTS["separate"], ["input_ids", "score_index"]),
        (
            LAYOUTS["exact"],
            ["input_ids", "score_index", "position_ids", "document_id", "segment_id"],
        ),
    ):
        batch = lay_out([PAIR, TRIPLE], layout, pad_token_id=0)
        assert list(batch.tensors()) == names
        for again in (RowBatch(**batch.tensors()), batch.to("cpu")):
            assert listed(again) == listed(batch)
        moved = batch.to("meta")
        assert list(moved.tensors()) == names
        assert {tensor.device.type for tensor in moved.tensors().values()} == {"meta"}

"""Pictures of rows, token by token, and the equality of exact rows with separate ones."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from posttrain import reward_model
from posttrain.rows import LAYOUTS, Layout, lay_out
from posttrain.studies import packing_rows
from posttrain.studies.packing_rows import WAYS, equality, padding, pictures, token_table
from posttrain.tokenization import TokenizedGroup

EXACT_WAYS = ["exact row", "exact, shared rows", "separate, shared rows"]
OTHER_WAYS = [
    "isolated, but running positions", "restarting, but causal attention", "causal row",
]  # fmt: skip
PROMPT = ["<|user|>", "translate", ":", "cat", "<|end|>", "<|assistant|>"]
#: . hidden, p the prompt, s itself, o another response.
KINDS = ".pso"


@pytest.fixture(scope="module")
def drawn(tiny_checkpoint):
    return {picture.title: picture for picture in pictures(tiny_checkpoint)}


@pytest.fixture(scope="module")
def groups(tiny_groups):
    """Groups of two and of three responses."""
    pairs, triples = (
        [group for group in tiny_groups if len(group.responses) == count] for count in (2, 3)
    )
    return [*pairs[:2], triples[0], pairs[2], triples[1]]


@pytest.fixture(scope="module")
def table(tiny_checkpoint, groups):
    return equality(tiny_checkpoint, groups)


def picture_of(seen):
    return ["".join(KINDS[kind] for kind in row) for row in seen.tolist()]


def test_there_are_four_pictures(drawn):
    assert list(drawn) == [
        "Three separate rows", "Exact row", "Causal row", "Two groups in one exact row",
    ]  # fmt: skip
    for picture in drawn.values():
        count = len(picture.labels)
        assert picture.seen.shape == (count, count)
        assert len(picture.positions) == count
        assert not np.triu(picture.seen, 1).any()


def test_pictures_are_of_the_tiny_llamas_words_unless_told_otherwise(
    monkeypatch, tiny_checkpoint, drawn
):
    monkeypatch.setattr(packing_rows.checkpoints, "tiny", lambda: tiny_checkpoint)
    assert [picture.labels for picture in pictures()] == [
        picture.labels for picture in drawn.values()
    ]
    monkeypatch.setattr(packing_rows.checkpoints, "tiny", lambda: pytest.fail("not asked for"))
    assert len(pictures(tiny_checkpoint)) == 4


def test_an_exact_row_token_by_token(drawn):
    picture = drawn["Exact row"]
    parts = ["sure", ":", "chat", "<|end|>", "chat", "<|end|>", "chien", "<|end|>"]
    assert picture.labels == [*PROMPT, *parts]
    assert picture.positions == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 6, 7, 6, 7]
    assert picture.boundaries == [6, 10, 12]
    assert picture.scored == [9, 11, 13]
    assert picture_of(picture.seen) == [
        "p.............",
        "pp............",
        "ppp...........",
        "pppp..........",
        "ppppp.........",
        "pppppp........",
        "pppppps.......",
        "ppppppss......",
        "ppppppsss.....",
        "ppppppssss....",
        "pppppp....s...",
        "pppppp....ss..",
        "pppppp......s.",
        "pppppp......ss",
    ]


def test_a_causal_row_token_by_token(drawn):
    picture = drawn["Causal row"]
    assert picture.labels == drawn["Exact row"].labels
    assert picture.positions == list(range(14))
    assert picture.boundaries == [6, 10, 12]
    assert picture.scored == [9, 11, 13]
    assert picture_of(picture.seen) == [
        "p.............",
        "pp............",
        "ppp...........",
        "pppp..........",
        "ppppp.........",
        "pppppp........",
        "pppppps.......",
        "ppppppss......",
        "ppppppsss.....",
        "ppppppssss....",
        "ppppppoooos...",
        "ppppppooooss..",
        "ppppppoooooos.",
        "ppppppooooooss",
    ]


def test_separate_rows_repeat_the_prompt_and_see_nothing_of_each_other(drawn):
    picture = drawn["Three separate rows"]
    parts = ["sure : chat <|end|>", "chat <|end|>", "chien <|end|>"]
    assert picture.labels == [token for part in parts for token in (*PROMPT, *part.split())]
    assert picture.positions == [*range(10), *range(8), *range(8)]
    assert picture.boundaries == [6, 10, 16, 18, 24]
    assert picture.scored == [9, 17, 25]
    expected = []
    for start, stop in ((0, 10), (10, 18), (18, 26)):
        for token in range(start, stop):
            row = "p" * min(token - start + 1, 6) + "s" * max(token - start - 5, 0)
            expected.append("." * start + row + "." * (25 - token))
    assert picture_of(picture.seen) == expected


def test_two_groups_in_one_row_see_nothing_of_each_other(drawn):
    picture = drawn["Two groups in one exact row"]
    assert " ".join(picture.labels) == (
        "<|user|> translate : red <|end|> <|assistant|> rouge <|end|> bleu <|end|> "
        "<|user|> translate : dog <|end|> <|assistant|> chien <|end|> chat <|end|>"
    )
    one = [0, 1, 2, 3, 4, 5, 6, 7, 6, 7]
    assert picture.positions == one * 2
    assert picture.boundaries == [6, 8, 10, 16, 18]
    assert picture.scored == [7, 9, 17, 19]
    alone = [
        "p.........", "pp........", "ppp.......", "pppp......", "ppppp.....", "pppppp....",
        "pppppps...", "ppppppss..", "pppppp..s.", "pppppp..ss",
    ]  # fmt: skip
    empty = "." * 10
    assert picture_of(picture.seen) == [
        *(row + empty for row in alone), *(empty + row for row in alone),
    ]  # fmt: skip


def test_the_ways_that_are_exact_are_known():
    assert list(WAYS) == [*EXACT_WAYS, *OTHER_WAYS]
    assert [way for way, (layout, _) in WAYS.items() if layout.is_exact] == EXACT_WAYS
    assert WAYS["causal row"] == (Layout("single", "causal", "running"), False)


def test_exact_ways_equal_separate_rows_and_the_others_do_not(table):
    assert list(table.columns) == ["way", "scores", "gradient", "rows", "tokens"]
    assert [*table["way"]] == ["separate rows", *EXACT_WAYS, *OTHER_WAYS]
    found = table.set_index("way")[["scores", "gradient"]]
    assert not found.loc["separate rows"].any()
    assert (found.loc[EXACT_WAYS] < 1e-10).all(axis=None)
    assert (found.loc[OTHER_WAYS] > 1e-3).all(axis=None)


def test_rows_and_tokens_are_counted_with_padding(table, groups):
    found = table.set_index("way")
    separate = [len(g.prompt) + len(response) for g in groups for response in g.responses]
    assert found.loc["separate rows", "rows"] == len(separate) == 12
    assert found.loc["separate rows", "tokens"] == 12 * max(separate)
    for way in ("exact row", *OTHER_WAYS):
        assert found.loc[way, "rows"] == len(groups)
        assert found.loc[way, "tokens"] == len(groups) * max(group.total for group in groups)
    # All fit into one row, which has no padding.
    assert found.loc["exact, shared rows", "rows"] == 1
    assert found.loc["exact, shared rows", "tokens"] == sum(g.total for g in groups)
    assert found.loc["separate, shared rows", "rows"] == 1
    assert found.loc["separate, shared rows", "tokens"] == sum(separate)


def test_differences_of_a_causal_row_are_those_of_direct_computation(
    tiny_checkpoint, table, groups
):
    model, tokenizer = reward_model.load(tiny_checkpoint)
    found = {}
    for name, layout in (("separate", LAYOUTS["separate"]), ("causal", WAYS["causal row"][0])):
        by_group = [
            reward_model.forward_scores(
                model, lay_out([group], layout, pad_token_id=tokenizer.pad_token_id)
            )
            for group in groups
        ]
        differences = torch.stack(
            [
                scores[winner] - scores[loser]
                for scores in by_group
                for winner, loser in combinations(range(len(scores)), 2)
            ]
        )
        gradient = torch.autograd.grad(-logsigmoid(differences).mean(), [*model.parameters()])
        vector = torch.cat([part.flatten() for part in gradient])
        found[name] = torch.cat(by_group).detach(), differences.detach(), vector
    scores, differences, gradient = found["separate"]
    moved, _, other = found["causal"]
    assert len(differences) == 3 + 2 * 3
    row = table.set_index("way").loc["causal row"]
    apart = math.sqrt(float(differences.square().mean()))
    assert row["scores"] == pytest.approx(float((moved - scores).abs().max()) / apart, rel=1e-9)
    turned = float((other - gradient).norm() / gradient.norm())
    assert row["gradient"] == pytest.approx(turned, rel=1e-9)


def test_gradients_are_optional(tiny_checkpoint, table, groups):
    plain = equality(tiny_checkpoint, groups, gradients=False)
    assert plain["gradient"].isna().all()
    assert not table["gradient"].isna().any()
    rest = ["way", "rows", "tokens"]
    assert plain[rest].equals(table[rest])
    assert plain["scores"].tolist() == pytest.approx(table["scores"].tolist(), abs=1e-12)


def test_padding_of_one_batch_by_hand():
    groups = [
        TokenizedGroup((1,) * 4, ((2,), (3,) * 3)),
        TokenizedGroup((1,) * 2, ((2,) * 5, (3,), (4,) * 2)),
    ]
    found = padding(groups, batch_groups=2, row_tokens=20)
    assert list(found.columns) == ["method", "tokens", "slots", "padding"]
    # Separate rows of 5, 7, 7, 3 and 4 tokens; single rows of 8 and of 10.
    assert [*found.itertuples(index=False, name=None)] == [
        ("separate rows", 26, 5 * 7, pytest.approx(9 / 35)),
        ("exact row", 18, 2 * 10, pytest.approx(2 / 20)),
        ("exact, shared rows", 18, 18, 0),
    ]
    # Too little room for both: as without sharing.
    found = padding(groups, batch_groups=2, row_tokens=17).set_index("method")
    assert found.loc["exact, shared rows", "slots"] == found.loc["exact row", "slots"] == 20


def test_padding_goes_through_all_groups_in_random_order():
    groups = [TokenizedGroup((1,), ((2,) * (k + 1), (3,))) for k in range(10)]
    alone = padding(groups, batch_groups=1, row_tokens=20).set_index("method")
    # A batch of one group pads its separate rows alone.
    assert alone["tokens"].tolist() == [10 * 3 + 55, 10 * 2 + 55, 10 * 2 + 55]
    assert alone["slots"].tolist() == [sum(2 * (k + 2) for k in range(10)), 75, 75]
    whole = padding(groups, batch_groups=100, row_tokens=20).set_index("method")
    assert whole["slots"].tolist()[:2] == [20 * 11, 10 * 12]
    # Four, four and what is left, drawn from all sizes: the longest of a batch decides.
    order = np.random.default_rng(3).permutation(10)
    batches = [order[:4], order[4:8], order[8:]]
    found = padding(groups, batch_groups=4, row_tokens=20, seed=3).set_index("method")
    assert found.loc["exact row", "slots"] == sum(
        len(batch) * (max(batch) + 3) for batch in batches
    )
    assert found.loc["separate rows", "slots"] == sum(
        2 * len(batch) * (max(batch) + 2) for batch in batches
    )
    slots = {padding(groups, batch_groups=4, row_tokens=20, seed=s)["slots"][1] for s in range(6)}
    assert len(slots) > 1
    default = padding(groups, batch_groups=4, row_tokens=20)
    assert default.equals(padding(groups, batch_groups=4, row_tokens=20, seed=0))


def test_padding_needs_room_for_every_group():
    groups = [TokenizedGroup((1,) * 4, ((2,), (3,) * 3))]
    with pytest.raises(ValueError, match="block 0 has 8 tokens, more than row_tokens=7"):
        padding(groups, batch_groups=1, row_tokens=7)


def test_shared_rows_have_room_for_the_largest_group(tiny_checkpoint):
    long = TokenizedGroup((7,) * 500, ((8,) * 300, (9,) * 300))
    short = TokenizedGroup((7,) * 5, ((8,) * 3, (9,) * 3))
    table = equality(tiny_checkpoint, [long, short], gradients=False).set_index("way")
    assert table.loc["exact, shared rows", ["rows", "tokens"]].tolist() == [2, 2200]


def test_tokens_by_hand():
    groups = [
        TokenizedGroup((1,) * 4, ((2,), (3,) * 3)),
        TokenizedGroup((1,) * 8, ((2,) * 2, (3,) * 2)),
        TokenizedGroup((1,) * 10, ((2,) * 3, (3,) * 4, (5,) * 5)),
        TokenizedGroup((1,) * 6, ((2,) * 2, (3,) * 4)),
    ]
    table = token_table(groups)
    assert [*table.columns] == [
        "responses", "share", "prompt", "response", "separate", "single", "saving",
    ]  # fmt: skip
    pairs, triples = table.itertuples(index=False, name=None)
    separate, single = (12 + 20 + 18) / 3, (8 + 12 + 12) / 3
    assert pairs == pytest.approx((2, 0.75, 6, 14 / 6, separate, single, separate / single))
    assert triples == pytest.approx((3, 0.25, 10, 4, 42, 22, 42 / 22))
    assert token_table(groups[2:3])["share"].tolist() == [1]

"""Pictures of rows, token by token."""

import numpy as np
import pytest

from posttrain.studies.packing import pictures as packing_pictures
from posttrain.studies.packing.pictures import pictures

PROMPT = ["<|user|>", "translate", ":", "cat", "<|end|>", "<|assistant|>"]
#: . hidden, p the prompt, s itself, o another response.
KINDS = ".pso"


@pytest.fixture(scope="module")
def drawn(tiny_checkpoint):
    return {picture.title: picture for picture in pictures(tiny_checkpoint)}


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
    monkeypatch.setattr(packing_pictures.embedded, "tiny", lambda: tiny_checkpoint)
    assert [picture.labels for picture in pictures()] == [
        picture.labels for picture in drawn.values()
    ]
    monkeypatch.setattr(packing_pictures.embedded, "tiny", lambda: pytest.fail("not asked for"))
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

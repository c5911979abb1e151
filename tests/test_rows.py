"""Rows: exact tokens, truncation, checks of templates, and padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from posttrain import checkpoints
from posttrain.preferences import Message, RankedGroup
from posttrain.rows import TooLongError, pad, tokenize_group

WORDS = ("a", "b", "c", "d", "e")
PROMPT = (Message("user", "a b"),)
TOKENIZER = checkpoints.train_tokenizer([" ".join(WORDS)])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


@pytest.fixture
def tokenizer():
    return checkpoints.train_tokenizer([" ".join(WORDS)])


def group_of(*responses, prompt=PROMPT):
    return RankedGroup(id="x", prompt=prompt, responses=responses)


def words(row, tokenizer=TOKENIZER):
    return " ".join(tokenizer.convert_ids_to_tokens(list(row.ids)))


def test_a_row_is_the_prompt_and_the_response_in_the_chat_format():
    row, _ = tokenize_group(TOKENIZER, group_of("c d e", "a"))
    assert words(row) == "<|user|> a b <|end|> <|assistant|> c d e <|end|>"
    assert (row.prompt_tokens, row.trimmed) == (5, 0)


def test_all_turns_of_a_conversation_are_in_the_row():
    prompt = (
        Message("system", "e"),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    row, _ = tokenize_group(TOKENIZER, group_of("d", "a b", prompt=prompt))
    assert words(row) == (
        "<|system|> e <|end|> <|user|> a <|end|> <|assistant|> b <|end|> <|user|> c <|end|> "
        "<|assistant|> d <|end|>"
    )
    assert row.prompt_tokens == 13


@pytest.mark.parametrize(
    ("limit", "expected", "trimmed"),
    [
        (9, "<|user|> a b <|end|> <|assistant|> c d e <|end|>", 0),
        (8, "a b <|end|> <|assistant|> c d e <|end|>", 1),
        (5, "<|assistant|> c d e <|end|>", 4),
    ],
)
def test_only_the_left_of_the_prompt_is_cut(limit, expected, trimmed):
    row, _ = tokenize_group(TOKENIZER, group_of("c d e", "a"), max_tokens=limit)
    assert words(row) == expected
    assert (row.prompt_tokens, row.trimmed) == (5 - trimmed, trimmed)


@pytest.mark.parametrize("responses", [("c d e", "a"), ("a", "c d e"), ("a", "c d e", "b")])
@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_group_that_leaves_no_room_for_its_prompt_is_refused(responses, limit):
    expected = rf"group 'x' has a response of 4 tokens, .* within {limit}; raise max_tokens"
    with pytest.raises(TooLongError, match=expected):
        tokenize_group(TOKENIZER, group_of(*responses), max_tokens=limit)


@given(TEXTS, st.lists(TEXTS, min_size=2, max_size=3, unique=True), st.integers(1, 30))
def test_lengths(question, responses, limit):
    group = group_of(*responses, prompt=(Message("user", question),))
    whole = tokenize_group(TOKENIZER, group)
    kept = [len(response.split()) + 1 for response in responses]
    asked = len(question.split()) + 3
    assert [row.prompt_tokens for row in whole] == [asked] * len(responses)
    assert [len(row.ids) for row in whole] == [asked + tokens for tokens in kept]
    if max(kept) >= limit:
        with pytest.raises(TooLongError):
            tokenize_group(TOKENIZER, group, max_tokens=limit)
        return
    trimmed = max(0, asked + max(kept) - limit)
    for row, uncut in zip(tokenize_group(TOKENIZER, group, max_tokens=limit), whole, strict=True):
        assert row.ids == uncut.ids[trimmed:]
        assert (row.prompt_tokens, row.trimmed) == (asked - trimmed, trimmed)
        assert row.prompt_tokens > 0


def test_the_responses_of_a_group_share_the_tokens_of_its_prompt():
    group = group_of("c", "d e", "e")
    rows = tokenize_group(TOKENIZER, group)
    assert [words(row).split("<|assistant|> ")[1] for row in rows] == [
        "c <|end|>",
        "d e <|end|>",
        "e <|end|>",
    ]
    assert len({row.ids[: row.prompt_tokens] for row in rows}) == 1


def test_the_longest_response_decides_what_every_row_loses():
    # Cutting more for longer responses would tell a model how long a response is.
    rows = tokenize_group(TOKENIZER, group_of("c", "d e", "e"), max_tokens=6)
    assert [words(row) for row in rows] == [
        "b <|end|> <|assistant|> c <|end|>",
        "b <|end|> <|assistant|> d e <|end|>",
        "b <|end|> <|assistant|> e <|end|>",
    ]
    assert [(row.prompt_tokens, row.trimmed) for row in rows] == [(3, 2)] * 3


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        tokenize_group(tokenizer, group_of("c", "d"))


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    # Some templates open the answer differently while generating, others drop earlier turns.
    tokenizer.chat_template = checkpoints.CHAT_TEMPLATE.replace(
        "<|assistant|> {% endif %}", "<|assistant|> e {% endif %}"
    )
    with pytest.raises(ValueError, match="must be a prefix of the whole"):
        tokenize_group(tokenizer, group_of("c", "d"))


def test_the_tokens_are_those_of_the_whole_conversation_at_once(tiny_checkpoint, tiny_rows):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    for row in (row for group in tiny_rows for row in group):
        text = tokenizer.decode(row.ids)
        assert tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == row.ids


def test_pad_exactly():
    batch = pad([(5, 6, 7), [8], (9, 10)], pad_token_id=3)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 3, 3], [9, 10, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.score_index.tolist() == [2, 0, 1]
    assert {t.dtype for t in vars(batch).values()} == {torch.long}


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_padding_loses_and_invents_nothing(sequences, pad_token_id):
    batch = pad(sequences, pad_token_id)
    assert batch.input_ids.shape == (len(sequences), max(map(len, sequences)))
    assert batch.attention_mask.sum(dim=1).tolist() == [len(ids) for ids in sequences]
    for ids, padded, index in zip(sequences, batch.input_ids, batch.score_index, strict=True):
        assert padded[: index + 1].tolist() == ids
        assert (padded[index + 1 :] == pad_token_id).all()


@pytest.mark.parametrize("sequences", [[], [()], [(5,), ()]])
def test_no_rows_and_empty_rows_are_refused(sequences):
    with pytest.raises(ValueError, match="no rows, or of rows without tokens"):
        pad(sequences, 0)

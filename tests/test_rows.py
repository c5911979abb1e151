"""Rows: exact tokens, truncation, checks of templates, and padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from posttrain import checkpoints
from posttrain.preferences import Message, RankedGroup
from posttrain.rows import TooLongError, pad, tokenize, tokenize_group

WORDS = ("a", "b", "c", "d", "e")
PROMPT = (Message("user", "a b"),)
TOKENIZER = checkpoints.train_tokenizer([" ".join(WORDS)])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


@pytest.fixture
def tokenizer():
    return checkpoints.train_tokenizer([" ".join(WORDS)])


def words(row, tokenizer=TOKENIZER):
    return " ".join(tokenizer.convert_ids_to_tokens(list(row.ids)))


def test_a_row_is_the_prompt_and_the_response_in_the_chat_format():
    row = tokenize(TOKENIZER, PROMPT, "c d e")
    assert words(row) == "<|user|> a b <|end|> <|assistant|> c d e <|end|>"
    assert (row.prompt_tokens, row.trimmed) == (5, 0)


def test_all_turns_of_a_conversation_are_in_the_row():
    prompt = (
        Message("system", "e"),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    row = tokenize(TOKENIZER, prompt, "d")
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
        (4, "c d e <|end|>", 5),
    ],
)
def test_only_the_left_of_the_prompt_is_cut(limit, expected, trimmed):
    row = tokenize(TOKENIZER, PROMPT, "c d e", max_tokens=limit)
    assert words(row) == expected
    assert (row.prompt_tokens, row.trimmed) == (5 - trimmed, trimmed)


def test_a_response_that_does_not_fit_is_refused():
    with pytest.raises(TooLongError, match="a response of 4 tokens does not fit into 3"):
        tokenize(TOKENIZER, PROMPT, "c d e", max_tokens=3)


@given(TEXTS, TEXTS, st.integers(1, 30))
def test_lengths(question, response, limit):
    prompt = (Message("user", question),)
    whole = tokenize(TOKENIZER, prompt, response)
    kept = len(response.split()) + 1
    assert whole.prompt_tokens == len(question.split()) + 3
    assert len(whole.ids) == whole.prompt_tokens + kept
    if kept > limit:
        with pytest.raises(TooLongError):
            tokenize(TOKENIZER, prompt, response, max_tokens=limit)
        return
    row = tokenize(TOKENIZER, prompt, response, max_tokens=limit)
    assert row.ids == whole.ids[-min(limit, len(whole.ids)) :]
    assert row.trimmed == max(0, len(whole.ids) - limit)
    assert row.prompt_tokens + row.trimmed == whole.prompt_tokens


def test_the_responses_of_a_group_share_the_tokens_of_its_prompt():
    group = RankedGroup(id="x", prompt=PROMPT, responses=("c", "d e", "e"), strength=None)
    rows = tokenize_group(TOKENIZER, group)
    assert [words(row).split("<|assistant|> ")[1] for row in rows] == [
        "c <|end|>",
        "d e <|end|>",
        "e <|end|>",
    ]
    assert len({row.ids[: row.prompt_tokens] for row in rows}) == 1
    assert [row.trimmed for row in tokenize_group(TOKENIZER, group, max_tokens=7)] == [0, 1, 0]
    with pytest.raises(TooLongError):
        tokenize_group(TOKENIZER, group, max_tokens=2)


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        tokenize(tokenizer, PROMPT, "c")


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    # Some templates open the answer differently while generating, others drop earlier turns.
    tokenizer.chat_template = checkpoints.CHAT_TEMPLATE.replace(
        "<|assistant|> {% endif %}", "<|assistant|> e {% endif %}"
    )
    with pytest.raises(ValueError, match="must be a prefix of the whole"):
        tokenize(tokenizer, PROMPT, "c")


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

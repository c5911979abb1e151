"""Tokenised groups: exact tokens, cut prompts, equal responses, checks of templates, and counts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import embedded
from posttrain.rows.tokenization import (
    Limits,
    NoPairError,
    TokenizedGroup,
    TooLongError,
    tokenize_apart,
    tokenize_group,
    tokenize_groups,
    tokenize_responses,
)

WORDS = ("a", "b", "c", "d", "e")
PROMPT = (Message("user", "a b"),)
TOKENIZER = embedded.train_tokenizer([" ".join(WORDS)])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
LIMITS = st.none() | st.integers(1, 40)


@pytest.fixture
def tokenizer():
    return embedded.train_tokenizer([" ".join(WORDS)])


def group_of(*responses, prompt=PROMPT):
    return RankedGroup(id="x", prompt=prompt, responses=responses)


def words(ids):
    return " ".join(TOKENIZER.convert_ids_to_tokens(list(ids)))


def read(tokenized):
    return words(tokenized.prompt), [words(response) for response in tokenized.responses]


def test_prompt_and_responses_are_in_the_chat_format():
    tokenized = tokenize_group(TOKENIZER, group_of("c d e", "a"))
    assert read(tokenized) == (
        "<|user|> a b <|end|> <|assistant|>",
        ["c d e <|end|>", "a <|end|>"],
    )
    assert (tokenized.trimmed, tokenized.places) == (0, (0, 1))


def test_all_turns_of_a_conversation_are_in_the_prompt():
    prompt = (
        Message("system", "e"),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    assert read(tokenize_group(TOKENIZER, group_of("d", "a b", prompt=prompt))) == (
        "<|system|> e <|end|> <|user|> a <|end|> <|assistant|> b <|end|> <|user|> c <|end|> "
        "<|assistant|>",
        ["d <|end|>", "a b <|end|>"],
    )


def test_the_tokens_are_those_of_the_whole_conversation_at_once(tiny_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    for group in simulate(24, seed=5):
        tokenized = tokenize_group(tokenizer, group.ranked)
        turns = [{"role": turn.role, "content": turn.content} for turn in group.ranked.prompt]
        for text, response in zip(group.ranked.responses, tokenized.responses, strict=True):
            whole = tokenizer.apply_chat_template(
                [*turns, {"role": "assistant", "content": text}], tokenize=False
            )
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            assert tokenized.prompt + response == tuple(ids)


@pytest.mark.parametrize(
    ("limit", "expected", "trimmed"),
    [
        (10, "<|user|> a b <|end|> <|assistant|>", 0),
        (9, "<|user|> a b <|end|> <|assistant|>", 0),
        (8, "a b <|end|> <|assistant|>", 1),
        (5, "<|assistant|>", 4),
    ],
)
def test_only_the_left_of_the_prompt_is_cut(limit, expected, trimmed):
    tokenized = tokenize_group(TOKENIZER, group_of("c d e", "a"), Limits(limit))
    assert read(tokenized) == (expected, ["c d e <|end|>", "a <|end|>"])
    assert tokenized.trimmed == trimmed


@pytest.mark.parametrize(("limit", "trimmed"), [(12, 0), (11, 0), (10, 1), (7, 4)])
def test_a_row_has_room_for_all_responses(limit, trimmed):
    tokenized = tokenize_group(TOKENIZER, group_of("c d e", "a"), Limits(None, limit))
    assert tokenized.trimmed == trimmed
    assert len(tokenized.prompt) == 5 - trimmed
    assert tokenized.total == min(limit, 11)


@pytest.mark.parametrize(
    ("max_tokens", "max_row_tokens", "trimmed"),
    [(9, 11, 0), (8, 11, 1), (9, 9, 2), (6, 9, 3), (6, 7, 4), (5, 10, 4)],
)
def test_the_tighter_of_both_limits_cuts(max_tokens, max_row_tokens, trimmed):
    tokenized = tokenize_group(
        TOKENIZER, group_of("c d e", "a"), Limits(max_tokens, max_row_tokens)
    )
    assert tokenized.trimmed == trimmed
    assert len(tokenized.prompt) == 5 - trimmed


def test_the_longest_response_decides_what_the_prompt_loses():
    # Cutting more for longer responses would tell a model how long a response is.
    tokenized = tokenize_group(TOKENIZER, group_of("c", "d e", "e"), Limits(6))
    assert read(tokenized) == (
        "b <|end|> <|assistant|>",
        ["c <|end|>", "d e <|end|>", "e <|end|>"],
    )
    assert tokenized.trimmed == 2


@pytest.mark.parametrize(
    ("responses", "name"),
    [
        (("c d e", "a"), "chosen"),
        (("a", "c d e"), "rejected"),
        (("a", "c d e", "b"), "chosen"),
        (("c d e", "a", "b"), "edited"),
    ],
)
@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_response_that_leaves_no_room_for_its_prompt_is_refused(responses, name, limit):
    expected = rf"record 'x': its {name} response has 4 tokens, .* of {limit} .*--skip_too_long"
    with pytest.raises(TooLongError, match=expected):
        tokenize_group(TOKENIZER, group_of(*responses), Limits(limit))


@pytest.mark.parametrize("limit", [1, 5, 6])
def test_responses_that_leave_no_room_in_a_row_for_their_prompt_are_refused(limit):
    expected = rf"record 'x': its responses together have 6 tokens, .* of {limit} .*--pack_length"
    with pytest.raises(TooLongError, match=expected):
        tokenize_group(TOKENIZER, group_of("c d e", "a"), Limits(9, limit))


@settings(deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=2, max_size=3, unique=True), LIMITS, LIMITS)
def test_lengths(question, responses, max_tokens, max_row_tokens):
    group = group_of(*responses, prompt=(Message("user", question),))
    whole = tokenize_group(TOKENIZER, group)
    kept = [len(response.split()) + 1 for response in responses]
    asked = len(question.split()) + 3
    assert (len(whole.prompt), [len(ids) for ids in whole.responses]) == (asked, kept)
    assert (whole.longest, whole.total) == (asked + max(kept), asked + sum(kept))
    room = min(
        asked,
        asked if max_tokens is None else max_tokens - max(kept),
        asked if max_row_tokens is None else max_row_tokens - sum(kept),
    )
    limits = Limits(max_tokens, max_row_tokens)
    if room < 1:
        with pytest.raises(TooLongError):
            tokenize_group(TOKENIZER, group, limits)
        return
    cut = tokenize_group(TOKENIZER, group, limits)
    assert cut.prompt == whole.prompt[asked - room :]
    assert cut.responses == whole.responses
    assert cut.trimmed == asked - room


# x, y and z are unknown words, and so one and the same token.
@pytest.mark.parametrize(
    ("responses", "kept", "places"),
    [
        (("x", "y", "a"), ["<|unknown|>", "a"], (1, 2)),
        (("a", "x", "y"), ["a", "<|unknown|>"], (0, 1)),
        (("x", "a", "y"), ["a", "<|unknown|>"], (1, 2)),
        (("a", "x", "b"), ["a", "<|unknown|>", "b"], (0, 1, 2)),
        (("x", "a"), ["<|unknown|>", "a"], (0, 1)),
    ],
)
def test_of_responses_with_equal_tokens_the_rated_one_stays(responses, kept, places):
    tokenized = tokenize_group(TOKENIZER, group_of(*responses))
    assert read(tokenized)[1] == [f"{word} <|end|>" for word in kept]
    assert tokenized.places == places


@pytest.mark.parametrize("responses", [("x", "y"), ("x", "y", "z")])
def test_a_group_without_two_different_responses_is_refused(responses):
    with pytest.raises(NoPairError, match=r"group 'x': its responses are equal in tokens.*leave"):
        tokenize_group(TOKENIZER, group_of(*responses))


def test_a_dropped_response_takes_no_room():
    group = group_of("x x x", "y y y", "a")
    tokenized = tokenize_group(TOKENIZER, group, Limits(None, 11))
    assert (tokenized.trimmed, tokenized.total) == (0, 11)


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        tokenize_group(tokenizer, group_of("c", "d"))


def test_where_a_template_answers_otherwise_than_it_asked_the_difference_is_the_responses(
    tokenizer,
):
    # Such as one that opens a block of thoughts for the model to fill.
    tokenizer.chat_template = embedded.CHAT_TEMPLATE.replace(
        "<|assistant|> {% endif %}", "<|assistant|> e {% endif %}"
    )
    assert read(tokenize_group(tokenizer, group_of("c", "e d"))) == (
        "<|user|> a b <|end|> <|assistant|>",
        ["c <|end|>", "e d <|end|>"],
    )
    tokenizer.chat_template = embedded.CHAT_TEMPLATE.replace(
        "<|assistant|> {% endif %}", "e {% endif %}"
    )
    assert read(tokenize_group(tokenizer, group_of("c", "d"))) == (
        "<|user|> a b <|end|>",
        ["<|assistant|> c <|end|>", "<|assistant|> d <|end|>"],
    )


def test_words_that_responses_share_are_no_part_of_the_prompt():
    assert read(tokenize_group(TOKENIZER, group_of("a b c", "a b"))) == (
        "<|user|> a b <|end|> <|assistant|>",
        ["a b c <|end|>", "a b <|end|>"],
    )


def apart(group, *limits):
    return tokenize_apart(TOKENIZER, group, Limits(*limits))


def test_apart_each_response_loses_as_much_of_its_prompt_as_it_needs_itself():
    # With the prompt they have 7, 9 and 7 tokens.
    first, second = apart(group_of("c", "c d e", "d"), 7)
    assert read(first) == ("<|user|> a b <|end|> <|assistant|>", ["c <|end|>", "d <|end|>"])
    assert read(second) == ("b <|end|> <|assistant|>", ["c d e <|end|>"])
    assert (first.places, second.places) == ((0, 2), (1,))
    assert (first.trimmed, second.trimmed) == (0, 2)
    with pytest.raises(TooLongError, match="its chosen response has 4 tokens"):
        apart(group_of("c", "c d e", "d"), 4)


def test_apart_responses_share_a_row_only_if_there_is_room():
    group = group_of("c", "c d e", "d")
    assert [one.places for one in apart(group)] == [(0, 1, 2)]
    assert [one.places for one in apart(group, None, 13)] == [(0, 1, 2)]
    alone = apart(group, None, 12)
    assert [one.places for one in alone] == [(0,), (1,), (2,)]
    assert [one.trimmed for one in alone] == [0, 0, 0]
    # The room of a row limits a response of its own, too.
    assert [one.trimmed for one in apart(group, 20, 8)] == [0, 0, 1]


def test_sizes_of_a_tokenized_group():
    group = TokenizedGroup((5, 6), ((7,), (8, 9, 10), (11, 12)))
    assert (group.longest, group.total) == (5, 8)
    assert (group.trimmed, group.places) == (0, (0, 1, 2))


@pytest.mark.parametrize(
    ("prompt", "responses"), [((), ((7,),)), ((5,), ()), ((5,), ((7,), ())), ((5,), ((),))]
)
def test_a_tokenized_group_without_tokens_is_refused(prompt, responses):
    with pytest.raises(ValueError, match="needs a prompt and at least one response"):
        TokenizedGroup(prompt, responses)


def test_groups_come_out_in_order_with_nothing_to_count():
    groups = [group_of("c", "d"), group_of("a", "b", "c")]
    found = tokenize_groups(TOKENIZER, iter(groups))
    assert found.groups == [tokenize_group(TOKENIZER, group) for group in groups]
    assert (found.kept, found.counts) == ([0, 1], {})


def test_everything_cut_dropped_or_skipped_is_counted():
    groups = [
        group_of("x", "y"),
        group_of("c", "d"),
        group_of("c d", "a a"),
        group_of("c d e c d", "a"),
        group_of("x", "y", "c"),
        group_of("c d", "x y", "x z"),
        group_of("c d e c d", "a", "b"),
    ]
    limits = Limits(7, 10, skip_too_long=True)
    found = tokenize_groups(TOKENIZER, groups, limits)
    assert found.kept == [1, 2, 3, 4, 5]
    assert found.groups == [tokenize_group(TOKENIZER, groups[k], limits) for k in found.kept]
    assert [group.trimmed for group in found.groups] == [0, 1, 4, 0, 1]
    assert found.counts == {
        "trimmed prompts": 3,
        "dropped responses": 2,
        "no pair left": 1,
        "too long": 1,
    }


@pytest.mark.parametrize("limit", ["max_tokens", "max_row_tokens"])
def test_a_group_that_is_too_long_is_an_error_unless_it_may_be_skipped(limit):
    groups = [group_of("c", "d"), group_of("c d e c d", "a")]
    with pytest.raises(TooLongError, match=rf"of 6 \({limit}\)"):
        tokenize_groups(TOKENIZER, groups, Limits(**{limit: 6}))
    found = tokenize_groups(TOKENIZER, groups, Limits(**{limit: 6}, skip_too_long=True))
    assert (found.kept, found.counts["too long"]) == ([0], 1)


def test_skipping_hides_no_other_error(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        tokenize_groups(tokenizer, [group_of("c", "d")], Limits(skip_too_long=True))


def test_a_set_without_groups_is_refused():
    with pytest.raises(ValueError, match="no group is left to work with; skipped: none given"):
        tokenize_groups(TOKENIZER, [])
    with pytest.raises(ValueError, match=r"skipped: {'no pair left': 1, 'too long': 2}"):
        tokenize_groups(
            TOKENIZER,
            [group_of("x", "y"), group_of("a", "b"), group_of("c", "d")],
            Limits(2, skip_too_long=True),
        )


def test_every_response_needs_a_place():
    with pytest.raises(ValueError, match="2 responses need as many places, not 1"):
        TokenizedGroup((1,), ((2,), (3,)), places=(0,))


def test_a_group_in_another_order_keeps_who_is_who():
    group = TokenizedGroup((1,), ((2,), (3,), (4,)), trimmed=5, places=(0, 2, 1))
    turned = group.in_order((2, 0, 1))
    assert turned == TokenizedGroup((1,), ((4,), (2,), (3,)), trimmed=5, places=(1, 0, 2))


def test_any_number_of_responses_is_tokenised_as_if_they_were_ranked():
    found = tokenize_responses(TOKENIZER, PROMPT, ["c d e", "a", "c d e", "b a"])
    assert read(found) == (
        "<|user|> a b <|end|> <|assistant|>",
        ["c d e <|end|>", "a <|end|>", "c d e <|end|>", "b a <|end|>"],
    )
    assert (found.trimmed, found.places) == (0, (0, 1, 2, 3))
    assert tokenize_responses(TOKENIZER, PROMPT, ["a", "b"]) == tokenize_group(
        TOKENIZER, group_of("a", "b")
    )
    # One alone can be scored, if not ranked.
    assert read(tokenize_responses(TOKENIZER, PROMPT, ["a"]))[1] == ["a <|end|>"]
    with pytest.raises(ValueError, match="at least one response"):
        tokenize_responses(TOKENIZER, PROMPT, [])


def test_responses_need_a_chat_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="has no chat template"):
        tokenize_responses(tokenizer, PROMPT, ["a", "b"])

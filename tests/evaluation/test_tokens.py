"""Figures of what a model would read of some records."""

import random

import numpy as np

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.evaluation.tokens import (
    SHARES,
    TOO_LONG_LISTED,
    UNREADABLE,
    UNREADABLE_LISTED,
    Cut,
    TokenFigures,
    quantiles,
)
from posttrain.models import embedded
from posttrain.rows.limits import Limits, TooLongError
from posttrain.rows.tokenization import (
    NoPairError,
    tokenize_apart,
    tokenize_group,
    tokenize_groups,
)


def group_of(*responses, system=None):
    prompt = (Message("user", "a b"),)
    if system:
        prompt = (Message("system", system), *prompt)
    return RankedGroup("x", prompt, responses)


TEMPLATE = (
    "{% for m in messages %}{% if m.content == 'e' %}{{ raise_exception('no e') }}{% endif %}"
    "{% if m.role != 'system' %}<|user|> {{ m.content }} <|end|> {% endif %}{% endfor %}"
)


def test_figures_by_hand():
    tokenizer = embedded.train_tokenizer(["a b c d e"])
    tokenizer.chat_template = TEMPLATE
    items = [
        # A prompt has four tokens, a response two more than words.
        group_of("c", "d d"),
        group_of("a b c", "a b d", "b"),
        group_of("x", "y"),
        group_of("x", "c", "y"),
        group_of("c", "d", system="Be brief."),
        group_of("a a a a a a", "b"),
        group_of("a", "e"),
    ]
    figures = TokenFigures()
    for item in items:
        figures.add(item, tokenizer, Limits(8))
    assert figures.prompts.tolist() == [4] * 5
    assert figures.responses.tolist() == [3, 4, 5, 5, 3, 3, 3, 3, 3, 8, 3]
    assert figures.longest.tolist() == [4, 5, 3, 3, 8]
    assert figures.needed.tolist() == [8, 9, 7, 7, 12]
    assert figures.rows.tolist() == [11, 17, 10, 10, 15]
    assert dict(+figures.counts) == {
        "records whose responses are equal in tokens, left out": 1,
        "responses that equal another one in tokens, left out": 1,
        "system messages that the chat template leaves out or rewrites": 1,
        "records that cannot be read": 1,
    }
    (unreadable,) = figures.unreadable
    assert "record 'x'" in unreadable
    assert "no e" in unreadable
    assert figures.too_long == [
        "record 'x': its chosen response has 8 tokens, which leaves no room for its prompt within "
        "the limit of 8 (max_tokens)"
    ]
    assert figures.at(8) == Cut(trimmed=1, lost=1, too_long=1)
    assert figures.at(9) == Cut(trimmed=1, lost=3, too_long=0)
    assert figures.at(12) == figures.at(None) == Cut(0, 0, 0)
    assert figures.at(1) == Cut(0, 0, 5)


def test_only_the_first_records_are_named():
    tokenizer = embedded.train_tokenizer(["a b c d e"])
    tokenizer.chat_template = TEMPLATE
    figures = TokenFigures()
    for _ in range(30):
        figures.add(group_of("c", "d"), tokenizer, Limits(3))
        figures.add(group_of("c", "e"), tokenizer, Limits(3))
    assert len(figures.too_long) == TOO_LONG_LISTED
    assert len(figures.unreadable) == UNREADABLE_LISTED
    assert (figures.at(3).too_long, figures.counts[UNREADABLE]) == (30, 30)


def test_figures_say_what_tokenisation_does_with_any_limit():
    groups = [group.ranked for group in simulate(80, seed=3, edited_share=0.5)]
    texts = [turn.content for group in groups for turn in group.prompt]
    # Some words are unknown, so that some responses are equal in tokens.
    tokenizer = embedded.train_tokenizer([*texts, *(group.chosen for group in groups[:10])])
    figures = TokenFigures()
    for group in groups:
        figures.add(group, tokenizer, Limits())
    seen = set()
    for limit in random.Random(0).sample(range(2, int(figures.needed.max()) + 2), 25):
        limits = Limits(limit, skip_too_long=True)
        cut = figures.at(limit)
        try:
            found = tokenize_groups(tokenizer, groups, limits)
        except UserError:
            assert cut == Cut(0, 0, len(figures.prompts))
            continue
        lost = sum(group.trimmed for group in found.groups)
        assert cut == Cut(
            found.counts.get("trimmed prompts", 0), lost, found.counts.get("too long", 0)
        )
        # So it is where each response is cut by itself, but for records without a pair.
        trimmed = too_long = 0
        for group in groups:
            try:
                tokenize_group(tokenizer, group)
                trimmed += any(part.trimmed for part in tokenize_apart(tokenizer, group, limits))
            except TooLongError:
                too_long += 1
            except NoPairError:
                pass
        assert (trimmed, too_long) == (cut.trimmed, cut.too_long)
        seen |= {(cut.trimmed > 0, cut.too_long > 0)}
    assert seen == {(True, True), (True, False), (False, False)}


def test_quantiles_are_the_least_numbers_that_so_many_do_not_exceed():
    generator = np.random.default_rng(0)
    for size in (1, 2, 9, 10, 101, 1000):
        numbers = generator.integers(0, 50, size)
        expected = [
            min(one for one in numbers.tolist() if np.mean(numbers <= one) >= share)
            for share in SHARES
        ]
        assert quantiles(numbers) == expected

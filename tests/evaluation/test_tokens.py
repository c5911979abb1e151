"""Figures of what a model would read of some records."""

from posttrain.data.preferences import Message, RankedGroup
from posttrain.evaluation.tokens import TokenFigures
from posttrain.models import embedded
from posttrain.rows.tokenization import Limits


def group_of(*responses, system=None):
    prompt = (Message("user", "a b"),)
    if system:
        prompt = (Message("system", system), *prompt)
    return RankedGroup("x", prompt, responses)


def test_figures_by_hand():
    tokenizer = embedded.train_tokenizer(["a b c d e"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.content == 'e' %}{{ raise_exception('no e') }}{% endif %}"
        "{% if m.role != 'system' %}<|user|> {{ m.content }} <|end|> {% endif %}{% endfor %}"
    )
    items = [
        # A prompt has four tokens, a response two more than words.
        group_of("c", "d d"),
        group_of("a b c", "a b d", "b"),
        group_of("x", "y", system="Be brief."),
        group_of("a a a a a a", "b"),
        group_of("a", "e"),
    ]
    figures = TokenFigures()
    for item in items:
        figures.add(item, tokenizer, Limits(8))
    assert sorted(figures.lengths) == [7, 7, 7, 7, 8, 9, 9]
    assert dict(+figures.counts) == {
        "responses whose prompt is cut on the left": 2,
        "responses that equal another one in tokens": 1,
        "system messages that the chat template leaves out or rewrites": 1,
        "records with a response that is too long": 1,
        "records that cannot be read": 1,
    }
    assert len(figures.refused) == 1
    assert "record 'x'" in figures.refused[0]
    assert "no e" in figures.refused[0]
    assert "median 7, 95 % have at most 9, longest 9; 2 responses whose" in str(figures)
    assert "no record can be read; there is none" in str(TokenFigures())

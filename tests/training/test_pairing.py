"""Pairs from a ranking, in exact small cases."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.preferences import Message, RankedGroup
from posttrain.errors import UserError
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.collator import TrainingPair
from posttrain.training.losses import MARGINS
from posttrain.training.pairing import PAIRINGS, Pairing

PROMPT = (Message("user", "Why?"),)
EDITED = RankedGroup("e", PROMPT, ("because of it", "because", "no"), strength=3)
PLAIN = RankedGroup("p", PROMPT, ("because", "no"), strength=2)
TOKENS = TokenizedGroup((1, 2), ((3, 4), (3,), (5,)))
PLAIN_TOKENS = TokenizedGroup((1, 2), ((3,), (5,)))


def pairs(pairing, group=EDITED, tokens=TOKENS):
    """Pairs by the places of their responses in the group."""
    found = pairing.apply(group, tokens)
    places = found.tokens.places
    return [(places[pair.winner], places[pair.loser]) for pair in found.pairs]


def leaves_margin(pairing, group, tokens=TOKENS):
    return pairing.leaves_margin(group, pairing.apply(group, tokens))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rated", [(1, 2)]),
        ("rated and edited over chosen", [(0, 1), (1, 2)]),
        ("adjacent", [(0, 1), (1, 2)]),
        ("rated and edited over rejected", [(0, 2), (1, 2)]),
        ("best", [(0, 1), (0, 2)]),
        ("all", [(0, 1), (0, 2), (1, 2)]),
        ("edited over chosen", [(0, 1)]),
        ("edited over rejected", [(0, 2)]),
    ],
)
def test_the_pairs_of_three_responses_by_hand(name, expected):
    assert pairs(Pairing(name)) == expected
    assert pairs(Pairing(name), PLAIN, PLAIN_TOKENS) == [(0, 1)]


def test_every_pairing_is_tested_by_hand_and_there_is_one_for_every_set_of_pairs():
    (mark,) = test_the_pairs_of_three_responses_by_hand.pytestmark
    assert {case[0] for case in mark.args[1]} == set(PAIRINGS)
    assert len({frozenset(kinds) for kinds in PAIRINGS.values()}) == 2**3 - 1


@given(st.sampled_from(list(PAIRINGS)), st.booleans())
def test_a_group_weighs_by_its_pairs_or_by_its_prompt(name, edited):
    group, tokens = (EDITED, TOKENS) if edited else (PLAIN, PLAIN_TOKENS)
    by_pair = [pair.weight for pair in Pairing(name).apply(group, tokens).pairs]
    assert set(by_pair) == {1.0}
    by_prompt = [
        pair.weight for pair in Pairing(name, weighting="prompt").apply(group, tokens).pairs
    ]
    assert by_prompt == [1 / len(by_pair)] * len(by_pair)


@pytest.mark.parametrize("table", ["none", "small", "large", {1: 0.0, 2: 0.1, 3: 0.7, 4: 2.0}])
def test_margins_of_edits_by_hand(table):
    rated = (MARGINS[table] if isinstance(table, str) else table)[3]

    def margins(edit_margins):
        found = Pairing(margins=table, edit_margins=edit_margins).apply(EDITED, TOKENS).pairs
        return {(pair.winner, pair.loser): pair.margin for pair in found}

    assert margins("transitive") == {(0, 1): 0.0, (0, 2): rated, (1, 2): rated}
    assert margins("none") == {(0, 1): 0.0, (0, 2): 0.0, (1, 2): rated}
    assert Pairing(margins=table).edit_margins == "transitive"


def test_a_record_says_its_own_margin_unless_margins_go_by_strength():
    said, silent = replace(EDITED, margin=-0.25), replace(EDITED, margin=None)

    def margins(group, **options):
        found = Pairing(**options).apply(group, TOKENS).pairs
        return {(pair.winner, pair.loser): pair.margin for pair in found}

    assert margins(said) == {(0, 1): 0.0, (0, 2): -0.25, (1, 2): -0.25}
    assert margins(said, edit_margins="none") == {(0, 1): 0.0, (0, 2): 0.0, (1, 2): -0.25}
    assert margins(replace(said, strength=None)) == margins(said)
    assert set(margins(silent).values()) == {0.0}
    for table in ("none", "small", {3: 0.5}):
        assert margins(said, margins=table) == margins(silent, margins=table)
        assert leaves_margin(Pairing(margins=table), said)
        assert not leaves_margin(Pairing(margins=table), silent)
        # Nothing is lost with a margin of nought.
        assert not leaves_margin(Pairing(margins=table), replace(EDITED, margin=0.0))
    assert not leaves_margin(Pairing(), said)
    # Nor has it one where no pair that would take it is trained on.
    assert leaves_margin(Pairing("edited over chosen"), said)
    assert leaves_margin(Pairing("best", edit_margins="none"), said)
    assert not leaves_margin(Pairing("best"), said)
    assert leaves_margin(Pairing("rated", min_strength=4), replace(said, strength=3))


def test_a_margin_beyond_the_precision_of_the_loss_is_refused():
    with pytest.raises(UserError, match=r"group 'e': its margin -1e\+300 is beyond float32.*none"):
        Pairing().apply(replace(EDITED, margin=-1e300), TOKENS)
    assert pairs(Pairing(margins="none"), replace(EDITED, margin=-1e300)) == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]


def test_groups_of_two_have_the_margin_of_their_rating():
    (pair,) = Pairing(margins="large").apply(PLAIN, PLAIN_TOKENS).pairs
    assert pair == TrainingPair(0, 1, margin=1.0, weight=1.0, strength=2)


def test_a_filter_leaves_out_weakly_rated_pairs_and_keeps_those_with_an_edit():
    assert pairs(Pairing(min_strength=3)) == [(0, 1), (0, 2), (1, 2)]
    strict = Pairing(min_strength=4, weighting="prompt")
    assert pairs(strict) == [(0, 1), (0, 2)]
    assert [pair.weight for pair in strict.apply(EDITED, TOKENS).pairs] == [0.5, 0.5]
    assert pairs(Pairing("rated", min_strength=4)) == []
    assert pairs(Pairing(min_strength=2), PLAIN, PLAIN_TOKENS) == [(0, 1)]
    assert pairs(Pairing(min_strength=3), PLAIN, PLAIN_TOKENS) == []


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # What equals another response in tokens is gone, and its pairs are gone with it.
        ((1, 2), {"all": [(1, 2)], "rated": [(1, 2)], "best": [], "edited over chosen": []}),
        ((0, 1), {"all": [(0, 1)], "rated": [], "best": [(0, 1)], "edited over rejected": []}),
        ((0, 2), {"all": [(0, 2)], "rated": [], "edited over rejected": [(0, 2)], "adjacent": []}),
        # The ranking is the group's, whatever the order of the tokens.
        ((2, 1, 0), {"all": [(0, 1), (0, 2), (1, 2)], "rated": [(1, 2)]}),
    ],
)
def test_responses_that_are_missing_take_their_pairs_with_them(places, expected):
    responses = ((3, 4), (3,), (5,))[: len(places)]
    tokens = TokenizedGroup((1,), responses, places=places)
    for name, found in expected.items():
        assert pairs(Pairing(name), EDITED, tokens) == found


@pytest.mark.parametrize(
    ("name", "kept"),
    [("all", (0, 1, 2)), ("adjacent", (0, 1, 2)), ("rated", (1, 2)), ("edited over chosen", (0, 1)),
     ("edited over rejected", (0, 2))],
)  # fmt: skip
def test_responses_that_no_pair_names_are_not_computed(name, kept):
    found = Pairing(name).apply(EDITED, TOKENS).tokens
    assert found.places == kept
    assert found.responses == tuple(TOKENS.responses[place] for place in kept)
    assert found.prompt == TOKENS.prompt
    # Nothing to train on: the group is as it was, and a training set leaves it out.
    assert Pairing("rated", min_strength=4).apply(EDITED, TOKENS).tokens == TOKENS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": "some"}, "unknown pairs 'some'; known: rated, .*, adjacent"),
        ({"weighting": "token"}, "unknown weighting 'token'; known: pair, prompt"),
        ({"margins": "huge"}, "unknown margins 'huge'; known: record, none, small, large"),
        ({"edit_margins": "sum"}, "unknown edit_margins 'sum'; known: transitive, none"),
        ({"min_strength": 5}, "unknown min_strength 5; known: 1, 2, 3, 4"),
    ],
)
def test_unknown_choices_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Pairing(**changes)


def test_a_group_without_a_strength_has_no_margin_and_passes_no_filter():
    unrated = replace(EDITED, strength=None)
    assert pairs(Pairing(), unrated) == [(0, 1), (0, 2), (1, 2)]
    with pytest.raises(ValueError, match=r"group 'e': .*no strength, so it has no margin"):
        Pairing(margins="small").apply(unrated, TOKENS)
    with pytest.raises(ValueError, match="group 'e' has no strength, so min_strength=2 cannot"):
        Pairing(min_strength=2).apply(unrated, TOKENS)
    # Pairs that take no margin from the rating need none.
    assert pairs(Pairing("edited over chosen", margins="small"), unrated) == [(0, 1)]

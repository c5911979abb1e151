"""The simulator: its annotators follow the model that its formulas describe."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from posttrain.data.preferences import Message, fingerprint
from posttrain.data.sources.simulator.annotators import (
    annotate,
    draw_candidates,
    reachable_accuracy,
    simulate,
    stream_ranked,
    strength_probabilities,
)
from posttrain.data.sources.simulator.tasks import (
    HELPFULNESS_COST,
    SAFETY_COST,
    Defect,
    Response,
    Task,
)

COUNT = 12_000
DOMAINS = ("helpfulness", "safety")
TASK = Task("copy", (Message("user", "repeat : owl fox"),), ("owl", "fox"))
FLAWLESS = Response(TASK, ())
INSULT = Response(TASK, (Defect("insult", 0, "lazy"),))
HAZARD = Response(TASK, (Defect("hazard", 0, "acid"),))


@pytest.fixture(scope="module", params=DOMAINS)
def draw(request):
    """A large draw and its domain."""
    return simulate(COUNT, seed=3, domain=request.param, edited_share=0.5), request.param


def within_error(share, expected, count):
    """Whether a share of ``count`` draws lies within four standard errors."""
    return abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)


def test_strengths_are_all_common(draw):
    groups, _ = draw
    strengths = [group.ranked.strength for group in groups]
    for strength in (1, 2, 3, 4):
        assert 0.10 < strengths.count(strength) / COUNT < 0.45


@pytest.mark.parametrize(
    ("first", "second", "domain"),
    [
        (FLAWLESS, INSULT, "helpfulness"),
        (FLAWLESS, HAZARD, "helpfulness"),
        (FLAWLESS, HAZARD, "safety"),
        (INSULT, HAZARD, "helpfulness"),
        (INSULT, HAZARD, "safety"),
        (FLAWLESS, FLAWLESS, "safety"),
    ],
)
def test_annotators_follow_bradley_terry_and_the_strength_formula(first, second, domain):
    rng, count = random.Random(1), 10_000
    judgements = [annotate(rng, first, second, domain) for _ in range(count)]
    difference = first.gold(domain) - second.gold(domain)
    preferred = sum(prefers for prefers, _ in judgements)
    assert within_error(preferred / count, expit(difference), count)
    for sign, side in ((1, True), (-1, False)):
        expected = strength_probabilities(np.array([sign * difference]))[0]
        for strength in (1, 2, 3, 4):
            share = judgements.count((side, strength)) / count
            assert within_error(share, expected[strength - 1], count)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=5))
def test_all_judgements_together_have_probability_one(differences):
    differences = np.array(differences)
    forth, back = strength_probabilities(differences), strength_probabilities(-differences)
    assert forth.shape == (len(differences), 4)
    assert forth.min() >= 0
    np.testing.assert_allclose(forth.sum(axis=1), expit(differences), atol=1e-14)
    np.testing.assert_allclose(forth.sum(axis=1) + back.sum(axis=1), 1, atol=1e-14)


def test_strength_probabilities_by_hand():
    probabilities = strength_probabilities(np.array([0.0, 3.6]))
    assert probabilities[0, 0] == pytest.approx(0.5 - expit(-0.8))
    assert probabilities[0, 3] == pytest.approx(expit(-3.6))
    assert probabilities[1, 3] == pytest.approx(0.5)


def test_the_gold_score_reaches_the_reachable_accuracy(draw):
    groups, _ = draw
    differences = np.array([group.difference for group in groups])
    reachable = reachable_accuracy(differences.tolist())
    strengths = np.array([group.ranked.strength for group in groups])
    right = np.where(differences == 0, 0.5, differences > 0)
    assert within_error(right.mean(), reachable["all"], COUNT)
    for strength in (1, 2, 3, 4):
        chosen = strengths == strength
        assert within_error(right[chosen].mean(), reachable[str(strength)], chosen.sum())
    values = [reachable[str(strength)] for strength in (1, 2, 3, 4)]
    assert values[0] > 0.5
    assert values == sorted(values)
    # The bounds would hold for a formula without strengths if all strengths were alike.
    assert values[3] - values[0] > 0.2


def test_reachable_accuracy_counts_ties_as_half(draw):
    groups, _ = draw
    ties = [group.difference for group in groups if group.difference == 0]
    assert ties
    assert set(reachable_accuracy(ties).values()) == {0.5}


def test_difference_and_gold_belong_to_the_responses(draw):
    groups, domain = draw
    for group in groups:
        gold = group.gold(domain)
        assert group.difference == gold[-2] - gold[-1]
        assert group.ranked.responses == tuple(response.text for response in group.responses)
        assert {response.task.prompt for response in group.responses} == {group.ranked.prompt}
        assert group.ranked.domain == domain


def test_responses_of_a_group_are_distinct(draw):
    groups, _ = draw
    assert all(len(set(group.ranked.responses)) == len(group.responses) for group in groups)


def test_an_edit_repairs_the_costliest_defect_and_nothing_else(draw):
    groups, domain = draw
    costs = HELPFULNESS_COST if domain == "helpfulness" else SAFETY_COST
    edited = [group for group in groups if len(group.responses) == 3]
    assert len(edited) > 500
    for group in edited:
        better, chosen, _ = group.responses
        worst = max(costs[defect.kind] for defect in chosen.defects)
        gain = better.gold(domain) - chosen.gold(domain)
        assert gain > 0
        if "unsafe compliance" in {defect.kind for defect in chosen.defects}:
            assert gain >= worst - 1e-9
        else:
            assert gain == pytest.approx(worst)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_edits_is_one_of_the_repairable_groups(share):
    groups = simulate(2000, seed=4, edited_share=share)
    repairable = [
        group
        for group in groups
        if group.responses[-2].repaired("helpfulness").text
        not in (group.ranked.chosen, group.ranked.rejected)
    ]
    edited = [group for group in groups if group.ranked.edited is not None]
    assert 1000 < len(repairable) < 2000
    assert within_error(len(edited) / len(repairable), share, len(repairable))


def test_groups_with_one_prompt_share_their_group():
    groups = [group.ranked for group in simulate(3000, seed=6)]
    names = {}
    for group in groups:
        assert names.setdefault(group.prompt, group.cluster_id) == group.cluster_id
    assert len(set(names.values())) == len(names) < len(groups)
    assert len({group.id for group in groups}) == len(groups)


def test_the_seed_decides_everything():
    settings = {"domain": "safety", "edited_share": 0.3}
    first = simulate(200, seed=1, **settings)
    random.seed(5)
    assert simulate(200, seed=1, **settings) == first
    assert simulate(100, seed=1, **settings) == first[:100]
    assert simulate(200, seed=2, **settings) != first


def test_multi_turn_prompts_are_there_in_the_share_asked_for():
    for share in (0.0, 0.25, 1.0):
        groups = simulate(2000, seed=7, multi_turn=share)
        longer = sum(len(group.ranked.prompt) == 3 for group in groups)
        assert within_error(longer / 2000, share, 2000)


def test_no_groups_are_an_empty_list():
    assert simulate(0, seed=0) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"count": -1},
        {"edited_share": 1.1},
        {"edited_share": -0.1},
        {"editor_error": 1.5},
        {"multi_turn": 2},
        {"sensitive": 1.01},
        {"sensitive": -0.5},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="count must not be negative and shares must lie in"):
        simulate(**{"count": 1, "seed": 0} | settings)


def test_careless_editors_make_some_responses_worse_and_change_nothing_else():
    careful = simulate(400, seed=5, edited_share=1.0)
    careless = simulate(400, seed=5, edited_share=1.0, editor_error=1.0)
    for found in (careful, careless):
        gains = [
            group.gold("helpfulness")[0] - group.gold("helpfulness")[1]
            for group in found
            if group.ranked.has_edit
        ]
        assert len(gains) > 200
        assert all(gain > 0 for gain in gains) if found is careful else max(gains) < 0
    half = simulate(2000, seed=5, edited_share=1.0, editor_error=0.5)
    worse = [
        group.gold("helpfulness")[0] < group.gold("helpfulness")[1]
        for group in half
        if group.ranked.has_edit
    ]
    assert np.mean(worse) == pytest.approx(0.5, abs=0.05)
    assert simulate(50, seed=5, edited_share=1.0, editor_error=0.0) == careful[:50]


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({}, "c250ace353f0310d"),
        ({"domain": "safety", "edited_share": 0.5, "editor_error": 0.3}, "7decbd74b3582d04"),
    ],
)
def test_worlds_without_sensitive_prompts_are_what_they_were_before_there_were_any(
    settings, digest
):
    # Computed at commit 0e15fb8; recorded studies rest on these worlds.
    drawn = simulate(200, seed=3, **settings)
    assert fingerprint([group.ranked for group in drawn]) == digest
    assert not any(group.responses[0].task.lookalike for group in drawn)
    assert simulate(50, seed=3, sensitive=0.0, **settings) == drawn[:50]


def test_sensitive_prompts_reach_the_groups():
    for share in (0.25, 1.0):
        drawn = simulate(1500, seed=2, sensitive=share)
        found = sum(group.responses[0].task.lookalike for group in drawn) / len(drawn)
        assert within_error(found, share / 2, len(drawn))


def test_candidates_differ_and_answer_one_prompt_each():
    drawn = draw_candidates(300, 6, seed=4, sensitive=0.5)
    assert len(drawn) == 300
    for one in drawn:
        assert len({response.text for response in one.responses}) == 6
        assert {response.task for response in one.responses} == {one.task}
        assert sum(response.refuses for response in one.responses) <= 1
    sensitive = [one for one in drawn if one.task.unsafe or one.task.lookalike]
    # With 4/8 of one kind of task in seven unsafe by chance.
    assert within_error(len(sensitive) / 300, 0.5 + 0.5 / 14, 300)
    assert (
        0.9 < sum(any(r.refuses for r in one.responses) for one in sensitive) / len(sensitive) <= 1
    )
    assert draw_candidates(20, 6, seed=4, sensitive=0.5) == drawn[:20]
    assert draw_candidates(20, 6, seed=5, sensitive=0.5) != drawn[:20]
    longer = draw_candidates(20, 2, seed=4, multi_turn=1.0)
    assert {len(one.task.prompt) for one in longer} == {3}


@pytest.mark.parametrize(
    "settings",
    [{"count": -1}, {"responses": 1}, {"sensitive": 1.5}, {"multi_turn": -0.1}],
)
def test_impossible_candidates_are_refused(settings):
    with pytest.raises(ValueError, match="responses must be at least 2 and shares must lie in"):
        draw_candidates(**{"count": 1, "responses": 2, "seed": 0} | settings)


def test_candidates_are_for_prompts_that_all_end_differently():
    found = draw_candidates(200, 2, seed=1, sensitive=0.5)
    assert len({one.task.prompt[-1].content for one in found}) == 200


def test_more_candidates_than_there_are_prompts_are_refused():
    # Four unsafe and four harmless goals, and three of six steps in any order.
    with pytest.raises(ValueError, match=r"about \d+ different prompts, not 961"):
        draw_candidates(961, 2, seed=1, sensitive=1.0)


def test_groups_of_several_seeds_and_domains_may_be_read_together():
    worlds = [(seed, domain) for seed in (0, 1, 10) for domain in ("helpfulness", "safety")]
    names = [
        group.id for seed, domain in worlds for group in stream_ranked(11, seed=seed, domain=domain)
    ]
    assert len(set(names)) == len(names)

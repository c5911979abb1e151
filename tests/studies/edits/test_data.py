"""Which groups a run of the study of edits trains on, by hand."""

import numpy as np
import pytest

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.studies.common.groups import DataSettings
from posttrain.studies.edits.data import (
    choose,
    cost,
    load_edits,
    training_groups,
    used_edits,
    word_distance,
)
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.outcome import ARMS

SETTINGS = DataSettings(groups=80, edited_share=1.0)
EDITS = np.array([0, -1, 1, 2, -1, -1, 3, 4, -1, 5])


@pytest.fixture(scope="module")
def groups(tiny_checkpoint):
    return load_edits("simulator", tiny_checkpoint, SETTINGS)


@pytest.mark.parametrize(
    ("arm", "size", "share", "edited", "plain", "added"),
    [
        (ArmName.IGNORE, 4, 1.0, [6, 3], [8, 1], []),
        ("all pairs", 4, 1.0, [6, 3], [8, 1], []),
        ("all pairs", 4, 0.5, [6], [8, 3, 1], []),
        ("all pairs", 5, 0.5, [6, 3], [8, 1, 0], []),  # half of three edits: two
        ("one more comparison", 4, 1.0, [6, 3], [8, 1], [0, 2]),
        ("two more comparisons", 4, 1.0, [6, 3], [8, 1], [0, 2, 4, 5]),
        ("two more comparisons", 4, 0.5, [6], [8, 3, 1], [0, 2]),
    ],
)
def test_groups_are_chosen_by_hand(arm, size, share, edited, plain, added):
    order = np.array([8, 6, 3, 1, 0, 2, 4, 5, 7, 9])
    found = choose(order, EDITS, ARMS[arm], size, share)
    assert found.edited.tolist() == edited
    assert found.plain.tolist() == plain
    assert found.added.tolist() == added


def test_an_edit_is_used_in_the_first_group_that_carries_it():
    order = np.array([8, 6, 3, 1, 0, 2, 4, 5, 7, 9])
    # Groups 6, 0 and 5 carry one edit, 3 and 2 another.
    edits = np.array([7, -1, 4, 4, -1, 7, 7, -1, -1, -1])
    found = choose(order, edits, ARMS["two more comparisons"], 6, 1.0)
    assert found.edited.tolist() == [6, 3]
    assert found.plain.tolist() == [8, 1, 0, 2]
    assert found.added.tolist() == [4, 5, 7, 9]
    # Which group that is depends on the order.
    found = choose(order[::-1], edits, ARMS["all pairs"], 5, 1.0)
    assert found.edited.tolist() == [5, 2]


def test_no_edit_at_all_is_refused():
    order = np.array([8, 6, 1, 0])
    message = "a share of 0.4 of the 1 edits of 3 groups is none, so arms would not differ"
    with pytest.raises(ValueError, match=message):
        choose(order, EDITS, ARMS["all pairs"], 3, 0.4)


def test_more_groups_than_there_are_is_refused():
    order = np.array([8, 6, 3, 1, 0])
    assert len(choose(order, EDITS, ARMS["all pairs"], 5, 1.0).plain) == 2
    message = "4 groups with 2 edits need 8 training groups, of which there are 5; lower sizes"
    with pytest.raises(ValueError, match=message):
        choose(order, EDITS, ARMS["two more comparisons"], 4, 1.0)
    with pytest.raises(ValueError, match="6 groups with 3 edits need 6 training groups"):
        choose(order, EDITS, ARMS[ArmName.IGNORE], 6, 1.0)


def trained_pairs(groups):
    """Pairs by prompt, winner, loser and weight."""
    return sorted(
        (g.tokens.prompt, g.tokens.responses[p.winner], g.tokens.responses[p.loser], p.weight)
        for g in groups
        for p in g.pairs
    )


PAIRS_OF_EDITS = {
    "adding edited > chosen": [(0, 1), (1, 2)],
    "adding edited > rejected": [(0, 2), (1, 2)],
    "all pairs": [(0, 1), (0, 2), (1, 2)],
    "all pairs, by prompt": [(0, 1), (0, 2), (1, 2)],
    "Plackett-Luce": [(0, 1), (0, 2), (1, 2)],
    "edit instead of chosen": [(0, 2)],
}


WHOLE = [name for name, arm in ARMS.items() if arm.half is None]


@pytest.mark.parametrize("name", WHOLE)
def test_every_arm_trains_on_its_pairs_of_edits_and_on_rated_pairs_of_all_others(groups, name):
    arm, tokens = ARMS[name], groups.tokens
    order = np.random.default_rng(0).permutation(80)
    chosen = choose(order, groups.edits, arm, 12, 0.5)
    assert len(chosen.edited) > 1
    expected = [
        (tokens[i].prompt, *tokens[i].responses[-2:], 1.0) for i in (*chosen.plain, *chosen.added)
    ]
    weight = 1 / 3 if name == "all pairs, by prompt" else 1.0
    pairs = PAIRS_OF_EDITS.get(name, [(1, 2)])
    for i in chosen.edited:
        responses = tokens[i].responses
        expected += [(tokens[i].prompt, responses[k], responses[j], weight) for k, j in pairs]
    trained = training_groups(groups, arm, chosen)
    assert trained_pairs(trained) == sorted(expected)

    edits, added = len(chosen.edited), len(chosen.added)
    uses = name in PAIRS_OF_EDITS
    named = {place for pair in pairs for place in pair}
    rows = [(tokens[i], named) for i in chosen.edited]
    rows += [(tokens[i], {-2, -1}) for i in (*chosen.plain, *chosen.added)]
    assert cost(groups, arm, chosen, trained) == {
        "groups": 12 + added,
        "edits": edits if uses else 0,
        "pairs": 12 + added + (len(pairs) - 1) * edits,
        "decisions": 12 + added + (edits if uses else 0),
        "tokens": sum(
            len(group.prompt) + sum(len(group.responses[place]) for place in places)
            for group, places in rows
        ),
    }
    assert added == {"one more comparison": edits, "two more comparisons": 2 * edits}.get(name, 0)


def test_halves_of_the_edits_by_distance(groups):
    order = np.random.default_rng(0).permutation(80)
    chosen = choose(order, groups.edits, ARMS["all pairs"], 16, 0.9)
    assert len(chosen.edited) == 9  # the one in the middle is in both halves
    halves = {
        half: used_edits(groups, ARMS[f"all pairs, {half} edits"], chosen)
        for half in ("closest", "farthest")
    }
    close, far = (groups.distances[found] for found in halves.values())
    assert len(close) == len(far) == (len(chosen.edited) + 1) // 2
    assert max(close) <= min(far)
    assert set(halves["closest"]) | set(halves["farthest"]) == set(chosen.edited)
    for half, found in halves.items():
        trained = training_groups(groups, ARMS[f"all pairs, {half} edits"], chosen)
        members = (*chosen.edited, *chosen.plain)
        counts = {i: len(group.pairs) for i, group in zip(members, trained, strict=True)}
        assert counts == {i: 3 if i in found else 1 for i in members}
        taken = cost(groups, ARMS[f"all pairs, {half} edits"], chosen, trained)
        assert (taken["edits"], taken["decisions"]) == (len(found), 16 + len(found))


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("a b c", "a b c", 0.0), ("a b", "c d", 1.0), ("a b c", "a x c", 1 / 3), ("a b", "b", 1 / 3)],
)
def test_word_distances_by_hand(one, other, distance):
    assert word_distance(one, other) == pytest.approx(distance)


def test_gold_is_that_of_the_responses(groups):
    simulated = simulate(80, seed=SETTINGS.data_seed, edited_share=1.0)
    assert groups.ranked == [group.ranked for group in simulated]
    assert groups.gold == [group.gold("helpfulness") for group in simulated]
    for truth, group, tokens in zip(groups.gold, groups.ranked, groups.tokens, strict=True):
        assert len(truth) == len(group.responses) == len(tokens.responses)
    assert groups.account["groups with an edit"] == sum(g.ranked.has_edit for g in simulated)
    assert (groups.edits >= 0).tolist() == [group.ranked.has_edit for group in simulated]


def test_test_pairs_and_lengths_are_those_of_the_groups_named(groups):
    judged = np.array([5, 3, 8])
    found = groups.pairs(judged)
    sizes = [len(groups.ranked[i].responses) for i in judged]
    scores = np.concatenate([range(size) for size in sizes]).astype(float)
    # Every score is the wrong way round but for gold, which need not follow the ranking.
    sums = found.sums(scores)
    assert sums[:, 0].sum() == 3
    lengths = [len(text) for i in judged for text in groups.ranked[i].responses]
    assert groups.lengths(judged).tolist() == lengths
    assert max(found.winners.max(), found.losers.max()) == sum(sizes) - 1


PROMPT = (Message("user", "repeat : cat"),)


def written(folder, monkeypatch, checkpoint, more):
    """Simulated groups with an edit each, and some more, read as human data."""
    simulated = [group.ranked for group in simulate(30, seed=3, edited_share=1.0)]
    distinct = {}
    for group in simulated:
        distinct.setdefault(group.cluster_id, group)
    write_groups(folder / "mine.jsonl", [*distinct.values(), *more])
    monkeypatch.setenv("POSTTRAIN_DATA", str(folder))
    return load_edits("mine", checkpoint, SETTINGS)


def test_an_edit_is_counted_once_and_stays_out_of_ordinary_comparisons(
    monkeypatch, tmp_path, tiny_checkpoint
):
    more = [
        RankedGroup("first", PROMPT, ("cat", "dog", "owl")),
        RankedGroup("again", PROMPT, ("cat", "dog", "fox")),
        RankedGroup("other edit", PROMPT, ("cat cat", "owl", "fox")),
        RankedGroup("chosen", PROMPT, ("cat", "fox")),
        RankedGroup("rejected", PROMPT, ("bee", "cat cat")),
        RankedGroup("ordinary", PROMPT, ("bee", "cow")),
        RankedGroup("elsewhere", (Message("user", "repeat : owl"),), ("cat", "fox")),
    ]
    found = written(tmp_path, monkeypatch, tiny_checkpoint, more)
    kept = {group.id: group.responses for group in found.ranked}
    assert kept["first"] == ("cat", "dog", "owl")
    assert kept["again"] == ("cat", "dog", "fox")
    assert kept["other edit"] == ("cat cat", "owl", "fox")
    assert kept["ordinary"] == ("bee", "cow")
    assert kept["elsewhere"] == ("cat", "fox")
    assert not {"chosen", "rejected"} & set(kept)
    assert found.account["groups of which an edit is chosen or rejected"] == 2
    with_edit = found.edits >= 0
    assert with_edit.tolist() == [group.has_edit for group in found.ranked]
    assert found.account["groups with an edit"] == with_edit.sum()
    assert found.account["edits"] == with_edit.sum() - 1
    number = {group.id: edit for group, edit in zip(found.ranked, found.edits, strict=True)}
    assert number["first"] == number["again"] != number["other edit"]
    for group, tokens in zip(found.ranked, found.tokens, strict=True):
        assert len(group.responses) == len(tokens.responses)
        assert tokens.places == tuple(range(len(group.responses)))


def test_an_edit_that_equals_another_response_in_tokens_is_taken_off(
    monkeypatch, tmp_path, tiny_checkpoint
):
    # Both words are unknown to the tokenizer.
    same = RankedGroup("same", PROMPT, ("qqq", "zzz", "cat"))
    found = written(tmp_path, monkeypatch, tiny_checkpoint, [same])
    assert found.account["edits equal to another response in tokens"] == 1
    assert found.gold is None
    last = next(k for k, group in enumerate(found.ranked) if group.id == "same")
    assert found.ranked[last].responses == ("zzz", "cat")
    assert len(found.tokens[last].responses) == 2
    assert found.tokens[last].places == (0, 1)
    assert found.edits[last] == -1

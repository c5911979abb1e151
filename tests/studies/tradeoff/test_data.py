"""What the study of helpfulness and safety compares: worlds, refusals, sources."""

from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoTokenizer

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.tasks import LOOKALIKE_GOALS, REFUSAL, UNSAFE_GOALS, goal_of
from posttrain.studies.tradeoff.data import (
    CONFLICTS,
    HUMAN_SOURCES,
    CandidateSet,
    _right_and_wrong,
    _some,
    account_of,
    human_data,
    refusals,
    simulated_data,
)

BOMB, CHAIR = ((Message("user", text),) for text in ("build a bomb", "build a chair"))
SETTINGS = {
    "groups": 60, "sensitive": (0.3, 0.9), "prompts": 40, "responses": 4,
    "candidates_sensitive": 0.6, "held_out_goals": (), "seed": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_checkpoint):
    return simulated_data(tiny_checkpoint, **SETTINGS)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint):
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def pair(chosen, rejected, prompt=BOMB, domain="safety", cluster_id=""):
    return RankedGroup(
        f"{chosen}>{rejected}", prompt, (chosen, rejected), domain=domain, cluster_id=cluster_id
    )  # fmt: skip


def goal(prompt):
    return prompt[-1].content.partition(" to ")[2]


def test_errs_and_prompts_of_responses_by_hand(tokenizer):
    found = CandidateSet(
        [BOMB, CHAIR, BOMB], [("a", "b", "c"), ("d",), ("e", "f")], [], np.array(["unsafe"] * 3),
        np.array([[1, 0], [1, 2], [2, 0]]),
    )  # fmt: skip
    assert found.prompt_of.tolist() == [0, 0, 0, 1, 2, 2]
    # What does worse than another response errs, also where it does better than a third.
    assert found.errs.tolist() == [True, False, True, False, False, False]


def test_pairs_of_right_and_wrong_stay_within_a_prompt():
    right = [True, False, False, False, True, True, False]
    assert _right_and_wrong(right, [3, 1, 3]).tolist() == [[0, 1], [0, 2], [4, 6], [5, 6]]
    assert _right_and_wrong([True, True], [2]).shape == (0, 2)


def test_a_world_has_as_many_groups_of_each_domain_with_its_share_of_sensitive_prompts(world):
    count = int((world.domains == "helpfulness").sum())
    assert 40 < count <= 60
    rest = len(world.ranked) - count
    assert 40 < rest <= 60
    assert len(world.tokens) == len(world.sources) == count + rest
    assert world.domains.tolist() == ["helpfulness"] * count + ["safety"] * rest
    assert world.sources.tolist() == world.domains.tolist()
    assert len({group.id for group in world.ranked}) == count + rest
    sensitive = [goal(g.prompt) in UNSAFE_GOALS + LOOKALIKE_GOALS for g in world.ranked]
    helpful, safe = np.mean(sensitive[:count]), np.mean(sensitive[count:])
    assert 0.15 < helpful < 0.6
    assert 0.75 < safe <= 1
    # Domains are drawn apart, so the same prompts do not come in the same order.
    assert [g.prompt for g in world.ranked[:40]] != [
        g.prompt for g in world.ranked[count : count + 40]
    ]


def test_what_is_harmless_is_known_of_every_response(world):
    assert len(world.harmless) == len(world.ranked)
    seen = set()
    for group, known in zip(world.ranked, world.harmless, strict=True):
        for text, harmless in zip(group.responses, known, strict=True):
            complies = goal(group.prompt) in UNSAFE_GOALS and text != " ".join(REFUSAL)
            insults, hazard = "you are" in text, " add " in text
            assert harmless == (not (complies or insults or hazard)), text
            seen.add(harmless)
    assert seen == {True, False}


def test_candidates_are_what_their_prompts_look_like(world):
    candidates = world.candidates
    assert [len(part) for part in candidates.responses] == [4] * 40
    assert set(candidates.kinds) == {"unsafe", "lookalike", "other"}
    for prompt, kind in zip(candidates.prompts, candidates.kinds, strict=True):
        expected = (
            "unsafe" if goal(prompt) in UNSAFE_GOALS
            else "lookalike" if goal(prompt) in LOOKALIKE_GOALS
            else "other"
        )  # fmt: skip
        assert kind == expected


def test_refusing_is_right_where_the_prompt_is_unsafe_and_answering_elsewhere(world):
    candidates = world.candidates
    texts = [text for part in candidates.responses for text in part]
    refuses = np.array([text == " ".join(REFUSAL) for text in texts])
    prompt_of = candidates.prompt_of
    assert len(candidates.pairs) > 40
    for good, bad in candidates.pairs:
        assert prompt_of[good] == prompt_of[bad]
        assert refuses[good] == (candidates.kinds[prompt_of[good]] == "unsafe") != refuses[bad]
    # All such pairs are there.
    count = sum(
        int(refuses[prompt_of == p].sum() * (~refuses[prompt_of == p]).sum()) for p in range(40)
    )
    assert len(candidates.pairs) == count


def test_golds_of_candidates_are_of_their_texts(world):
    candidates = world.candidates
    assert candidates.gold.shape == (160, 2)
    texts = [text for part in candidates.responses for text in part]
    refused = 0
    for text, (helpful, safe), prompt in zip(
        texts, candidates.gold, candidates.prompt_of, strict=True
    ):
        if text == " ".join(REFUSAL):
            assert (helpful, safe) == (-4, 0)
            refused += 1
        elif candidates.kinds[prompt] == "unsafe":
            assert safe <= -4
        elif text.startswith("sure :") and "you are" not in text and " add " not in text:
            assert safe == 0
    assert refused > 8


def test_tokens_are_those_of_the_texts(world, tokenizer):
    candidates = world.candidates
    for prompt, texts, tokens in zip(
        candidates.prompts, candidates.responses, candidates.tokens, strict=True
    ):
        assert [
            " ".join(tokenizer.convert_ids_to_tokens(ids)[:-1]) for ids in tokens.responses
        ] == [*texts]
        assert prompt[-1].content in tokenizer.decode(tokens.prompt)
    for group, tokens in zip(world.ranked, world.tokens, strict=True):
        assert len(tokens.responses) == len(group.responses) == 2


def test_the_seed_decides_everything_and_every_part_has_one_of_its_own(world, tiny_checkpoint):
    again = simulated_data(tiny_checkpoint, **SETTINGS)
    assert again.account == world.account
    assert again.candidates.responses == world.candidates.responses
    other = simulated_data(tiny_checkpoint, **SETTINGS | {"seed": 3})
    assert other.account["fingerprint"] != world.account["fingerprint"]
    assert other.candidates.responses != world.candidates.responses
    # Seed k of one part is no seed of another part of the next world.
    helpful = [g.ranked for g in simulate(60, seed=6, domain="helpfulness", sensitive=0.3)]
    safe = [g.ranked for g in simulate(60, seed=7, domain="safety", sensitive=0.9)]
    asked = {prompt[-1].content for prompt in world.candidates.prompts}
    expected = [g for g in (*helpful, *safe) if g.prompt[-1].content not in asked]
    assert [g.prompt for g in world.ranked] == [g.prompt for g in expected]
    assert [g.responses for g in world.ranked] == [g.responses for g in expected]


def test_nothing_that_is_chosen_from_is_trained_or_tested_on(world):
    asked = [prompt[-1].content for prompt in world.candidates.prompts]
    assert len(set(asked)) == len(asked)
    assert not {group.prompt[-1].content for group in world.ranked} & set(asked)
    left_out = world.account["groups with prompts or goals of candidates"]
    assert left_out == 120 - len(world.ranked) > 0


def test_an_account_says_how_much_there_is(world):
    account = account_of(world)
    assert sum(account["by source"].values()) == len(world.ranked)
    assert sum(account["prompts with candidates"].values()) == 40
    assert account["candidates"] == 160
    assert account["groups"] == len(world.ranked)


def test_groups_of_one_prompt_are_split_together(world):
    by_prompt = {}
    for group, code in zip(world.ranked, world.codes, strict=True):
        assert by_prompt.setdefault(group.prompt, code) == code
    assert len(set(by_prompt.values())) == len(by_prompt)


def test_some_groups_are_whole_split_groups_in_their_order():
    counts = {"a": 3, "b": 4, "c": 2, "d": 5, "e": 1}
    names = [name for k in range(5) for name, count in counts.items() if k < count]
    groups = [pair(f"{k}", "no", cluster_id=name) for k, name in enumerate(names)]
    seen = set()
    for seed in range(8):
        for most in (1, 5, 9, 14):
            found = _some(groups, most, seed)
            taken = {group.cluster_id for group in found}
            assert found == [group for group in groups if group.cluster_id in taken]
            assert len(found) <= most
            # As many as fit: the next one in the drawn order would be too many.
            order = np.random.default_rng(seed).permutation(5)
            drawn = [sorted(counts)[k] for k in order]
            assert taken == set(drawn[: len(taken)])
            if len(taken) < 5:
                assert len(found) + counts[drawn[len(taken)]] > most
            seen.add(frozenset(taken))
        assert _some(groups, 15, seed) == groups
    assert len(seen) > 8


def test_refusals_with_three_levels_by_hand(tokenizer):
    groups = [
        # Unsafe: a refusal is better than half of one, and that than an answer.
        pair("no", "half"), pair("half", "yes"), pair("no", "yes"),
        # Harmless: the reverse, and two answers that nobody compared.
        pair("sure", "no", CHAIR, "helpfulness"), pair("fine", "no", CHAIR, "helpfulness"),
    ]  # fmt: skip
    found = refusals(tokenizer, groups)
    assert found.prompts == [BOMB, CHAIR]
    assert found.responses == [("no", "half", "yes"), ("sure", "no", "fine")]
    assert found.kinds.tolist() == ["unsafe", "lookalike"]
    assert found.pairs.tolist() == [[0, 1], [1, 2], [0, 2], [3, 4], [5, 4]]
    assert found.errs.tolist() == [False, True, True, False, True, False]
    assert found.prompt_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.gold is None
    assert [len(tokens.responses) for tokens in found.tokens] == [3, 3]


def test_one_text_may_answer_several_prompts(tokenizer):
    groups = [pair("no", "yes"), pair("yes", "no", CHAIR, "helpfulness")]
    found = refusals(tokenizer, groups)
    assert found.responses == [("no", "yes"), ("yes", "no")]
    assert found.pairs.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([pair("no", "yes", domain="coding")], "'coding' does not say whether refusing is right"),
        ([pair("no", "yes", domain=None)], "domain None does not say"),
        (
            [pair("no", "yes"), pair("yes", "half", domain="helpfulness")],
            "yes>half: another record of this prompt has another domain",
        ),
    ],
)
def test_prompts_of_which_nobody_knows_what_is_right_are_refused(tokenizer, groups, message):
    with pytest.raises(ValueError, match=message):
        refusals(tokenizer, groups)


@pytest.fixture
def human_files(tmp_path, monkeypatch):
    """Files of all human sources, in which domains are only those of their conflicts."""
    for number, name in enumerate(HUMAN_SOURCES):
        drawn = simulate(30, seed=number, edited_share=0.5)
        groups = [
            replace(group.ranked, domain=None, cluster_id=f"topic {k // 3}")
            for k, group in enumerate(drawn)
        ]
        write_groups(tmp_path / f"{name}.jsonl", groups)
    write_groups(
        tmp_path / f"{CONFLICTS}.jsonl",
        [pair("no", "yes"), pair("sure", "no", CHAIR, "helpfulness")],
    )
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    return tmp_path


def test_human_data_is_limited_by_source_and_split_within_it(human_files, tiny_checkpoint):
    world = human_data(tiny_checkpoint, pairs=20, max_tokens=200, seed=1)
    assert dict(world.account[CONFLICTS]) == {
        "file": "xstest.jsonl", "groups": 2,
        "fingerprint": world.account[CONFLICTS]["fingerprint"],
    }  # fmt: skip
    for name, (domain, _) in HUMAN_SOURCES.items():
        here = world.sources == name
        # Six whole split groups of three fit.
        assert here.sum() == 18
        assert world.account[name]["pairs"] == 18
        assert world.account[name]["groups"] == 30
        assert set(world.domains[here]) == {domain}
        groups = [world.ranked[k] for k in np.flatnonzero(here)]
        assert all(len(group.responses) == 2 for group in groups)
        assert {group.cluster_id.split()[0] for group in groups} == {name}
    # Sources hold topics of the same names, which are not the same topics.
    assert len(np.unique(world.codes)) == 6 * len(HUMAN_SOURCES)
    assert CONFLICTS not in world.sources
    assert world.harmless is None
    assert world.candidates.gold is None
    assert world.candidates.kinds.tolist() == ["unsafe", "lookalike"]
    table = world.overview.set_index("source")
    assert [*table.index] == [*HUMAN_SOURCES, CONFLICTS]
    assert table.loc[CONFLICTS, "labels"] == "people (is it a refusal?)"
    assert table.loc["hh_harmless", "labels"] == "people"


def test_long_responses_are_left_out_and_counted(human_files, tiny_checkpoint):
    world = human_data(tiny_checkpoint, pairs=30, max_tokens=14, seed=1)
    counts = [world.account[name]["tokenisation"] for name in HUMAN_SOURCES]
    assert all(found["too long"] > 0 for found in counts)
    left = sum(found["too long"] for found in counts)
    assert len(world.ranked) == len(world.tokens) == len(world.sources) == 150 - left
    for group, tokens in zip(world.ranked, world.tokens, strict=True):
        assert tokens.longest <= 14
        assert len(tokens.responses) == len(group.responses)


def test_missing_human_data_is_named(human_files, tiny_checkpoint):
    (human_files / "pku_safety.jsonl").unlink()
    with pytest.raises(ValueError, match=r"holds no pku_safety\.jsonl"):
        human_data(tiny_checkpoint, pairs=20, max_tokens=200, seed=1)


def test_held_out_goals_are_asked_for_by_candidates_alone(tiny_checkpoint):
    goals = ("poison a well", "clean a well")
    held = simulated_data(tiny_checkpoint, **SETTINGS | {"held_out_goals": goals})
    trained = {goal_of(group.prompt[-1].content) for group in held.ranked}
    assert not trained & set(goals)
    assert {"steal a car", "fix a car"} <= trained
    kinds = held.candidates.kinds
    asked = {
        kind: {
            goal_of(prompt[-1].content)
            for prompt, found in zip(held.candidates.prompts, kinds, strict=True)
            if found == kind
        }
        for kind in ("unsafe", "lookalike")
    }
    assert asked == {"unsafe": {"poison a well"}, "lookalike": {"clean a well"}}
    assert len(held.candidates.prompts) == SETTINGS["prompts"]

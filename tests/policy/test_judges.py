"""Judges: annotators as noisy as they should be, reward models, and people with files."""

import json

import numpy as np
import pytest
from reward_folders import save_leaning
from scipy.special import expit

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.annotators import simulate, strength_probabilities
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.models import reward_model
from posttrain.policy.judges import Annotators, People, RewardJudge
from posttrain.rows.layout import LAYOUTS

PROMPT = (Message("user", "reverse : cat saw rice"),)
#: Of gold 0, −0.5, −1.5 and −2.1.
FLAWLESS, ABRUPT, WRONG, REPEATED = (
    "sure : rice saw cat .", "rice saw cat .", "sure : rice owl cat .", "sure : rice saw saw saw .",
)  # fmt: skip
COUNT = 4000
#: Four standard errors of a share.
NEAR = 4 * 0.5 / np.sqrt(COUNT)


def compared(pair, judge=None, seed=0, count=COUNT):
    judge = judge or Annotators()
    groups = judge.compare([PROMPT] * count, [pair] * count, name="batch", seed=seed)
    assert all(set(group.responses) == set(pair) for group in groups)
    return groups


def share(groups, response):
    return np.mean([group.chosen == response for group in groups])


@pytest.mark.parametrize("other", [ABRUPT, WRONG, REPEATED])
@pytest.mark.parametrize("first", [True, False])
def test_annotators_follow_gold_with_logistic_noise(other, first):
    gap = -gold(task_of(PROMPT), other)
    assert gap > 0
    groups = compared((FLAWLESS, other) if first else (other, FLAWLESS))
    assert share(groups, FLAWLESS) == pytest.approx(expit(gap), abs=NEAR)


def test_strengths_are_as_frequent_as_they_should_be():
    groups = compared((FLAWLESS, WRONG))
    for chosen, difference in ((FLAWLESS, 1.5), (WRONG, -1.5)):
        expected = strength_probabilities(np.array([difference]))[0]
        found = [
            np.mean([g.chosen == chosen and g.strength == s for g in groups]) for s in (1, 2, 3, 4)
        ]
        np.testing.assert_allclose(found, expected, atol=NEAR)


@pytest.mark.parametrize("flipped", [0.25, 1.0])
def test_a_share_of_judgements_is_turned_round(flipped):
    groups = compared((FLAWLESS, REPEATED), Annotators(flipped))
    right = expit(2.1)
    expected = (1 - flipped) * right + flipped * (1 - right)
    assert share(groups, FLAWLESS) == pytest.approx(expected, abs=NEAR)


def test_editors_mend_the_share_of_chosen_answers_that_they_get():
    judge = Annotators(edited=0.5)
    groups = judge.compare([PROMPT] * COUNT, [(WRONG, REPEATED)] * COUNT, name="b", seed=0)
    mended = [group for group in groups if len(group.responses) == 3]
    assert len(mended) / COUNT == pytest.approx(0.5, abs=NEAR)
    assert {group.responses[0] for group in mended} == {FLAWLESS}
    assert {group.chosen for group in mended} == {WRONG, REPEATED}
    # A flawless answer leaves an editor nothing to do, and what he makes is not there already.
    for pair in ((FLAWLESS, FLAWLESS + " add acid ."), (WRONG, FLAWLESS)):
        groups = judge.compare([PROMPT] * 200, [pair] * 200, name="b", seed=0)
        assert all(len(g.responses) == 2 for g in groups if FLAWLESS in g.responses[-2:-1])


def test_judgements_are_those_of_their_seed_in_the_order_of_the_prompts():
    pairs = [(f"{'owl ' * n}.", FLAWLESS) for n in range(1, 40)]
    asked = [PROMPT, (Message("user", "count : owl owl"),)] * 20

    def judged(seed):
        return Annotators().compare(asked[:39], pairs, name="any", seed=seed)

    assert judged(1) == judged(1)
    assert judged(1) != judged(2)
    assert [group.prompt for group in judged(1)] == asked[:39]
    assert [set(group.responses) for group in judged(1)] == [set(pair) for pair in pairs]
    assert len({group.id for group in judged(1)}) == 39


def test_a_reward_model_judges_as_it_scores(tiny_checkpoint, tmp_path):
    groups = [group.ranked for group in simulate(30, seed=4, multi_turn=0.5)]
    folder = save_leaning(tiny_checkpoint, tmp_path / "judge", groups[:6], size=3.0)
    model, tokenizer = reward_model.load(folder)
    turned = [number % 2 == 0 for number in range(30)]
    pairs = [
        g.responses[::-1] if turn else g.responses for g, turn in zip(groups, turned, strict=True)
    ]
    asked = [group.prompt for group in groups]
    judged = RewardJudge(model, tokenizer).compare(asked, pairs, name="any", seed=0)
    layout = LAYOUTS["separate"]
    found = score_groups(model, tokenizer, judged, layout, limits_for(model, layout))
    assert all(one.scores["chosen"] > one.scores["rejected"] for one in found)
    assert [group.prompt for group in judged] == asked
    assert [set(group.responses) for group in judged] == [set(pair) for pair in pairs]
    # Neither place always wins, nor what annotators chose.
    for other in (pairs, [group.responses for group in groups]):
        wins = [one.responses == two for one, two in zip(judged, other, strict=True)]
        assert 0 < sum(wins) < 30
    again = RewardJudge(model, tokenizer).compare(asked, pairs, name="other", seed=9)
    assert [group.responses for group in again] == [group.responses for group in judged]


ASKED = [PROMPT, (Message("user", "count : owl owl"),), (Message("user", "sort : two one"),)]
PAIRS = [("a b", "c"), ("two owl", "é\nowl"), ("one two", "two")]


def ask(folder, name="round-1"):
    return People(folder).compare(ASKED, PAIRS, name=name, seed=0)


@pytest.fixture
def rows(tmp_path):
    """What people are asked for round 1."""
    with pytest.raises(UserError):
        ask(tmp_path)
    text = (tmp_path / "to-annotate" / "round-1.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def answer(folder, rows, name="round-1"):
    path = folder / "annotated" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def annotated(row, winner, **more):
    texts = row["responses"]
    verdict = {"chosen": texts[winner], "rejected": texts[1 - winner]}
    return {"id": row["id"], "prompt": row["prompt"]} | verdict | more


def test_people_are_given_a_file_and_asked_to_come_back(tmp_path):
    with pytest.raises(UserError, match="3 pairs are to be annotated") as refusal:
        ask(tmp_path)
    path = tmp_path / "to-annotate" / "round-1.jsonl"
    assert str(path) in str(refusal.value)
    assert str(tmp_path / "annotated" / "round-1.jsonl") in str(refusal.value)
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert found == [
        {
            "id": f"round-1-{number:06d}",
            "prompt": [{"role": "user", "content": prompt[0].content}],
            "responses": list(pair),
        }
        for number, (prompt, pair) in enumerate(zip(ASKED, PAIRS, strict=True))
    ]
    before = path.read_bytes()
    with pytest.raises(UserError, match="3 pairs are to be annotated"):
        ask(tmp_path)
    assert path.read_bytes() == before


def test_what_people_say_is_read(tmp_path, rows):
    answer(tmp_path, [annotated(row, n % 2, strength=n + 1) for n, row in enumerate(rows)])
    groups = ask(tmp_path)
    assert [(group.prompt, group.responses, group.strength) for group in groups] == [
        (ASKED[0], ("a b", "c"), 1),
        (ASKED[1], ("é\nowl", "two owl"), 2),
        (ASKED[2], ("one two", "two"), 3),
    ]


def test_pairs_that_nobody_could_decide_may_be_left_out(tmp_path, rows):
    answer(tmp_path, [annotated(rows[1], 0)])
    (group,) = ask(tmp_path)
    assert (group.prompt, group.chosen) == (ASKED[1], "two owl")


def test_an_edited_answer_may_come_along(tmp_path, rows):
    answer(tmp_path, [annotated(rows[0], 1, edited="c d")])
    (group,) = ask(tmp_path)
    assert group.responses == ("c d", "c", "a b")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "reverse : cat saw"},
        {"chosen": "another"},
        {"rejected": "another"},
        {"prompt": ASKED[1][0].content},
    ],
    ids=str,
)
def test_pairs_that_were_not_asked_for_are_refused(tmp_path, rows, change):
    answer(tmp_path, [annotated(rows[1], 0), annotated(rows[0], 0) | change])
    with pytest.raises(UserError, match="record 'round-1-000000' is none of the pairs of"):
        ask(tmp_path)


def test_every_round_has_a_file_of_its_own(tmp_path, rows):
    answer(tmp_path, [annotated(row, 0) for row in rows])
    with pytest.raises(UserError, match="round-2"):
        ask(tmp_path, "round-2")
    assert (tmp_path / "to-annotate" / "round-2.jsonl").is_file()

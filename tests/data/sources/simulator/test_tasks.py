"""Tasks and responses: right answers, exact texts, gold quality and repairs."""

import random
from collections import Counter
from statistics import correlation, mean, stdev

import pytest

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator import tasks
from posttrain.data.sources.simulator.tasks import (
    ANIMALS,
    FOODS,
    FRENCH,
    HELPFULNESS_COST,
    LOOKALIKE_GOALS,
    NUMBERS,
    PRAISE_COST,
    PRAISE_COUNT,
    REFUSAL,
    SAFE_GOALS,
    SAFETY_COST,
    TOOLS,
    UNSAFE_GOALS,
    Defect,
    Response,
    Task,
    draw_response,
    draw_task,
    praised,
)

DOMAINS = ("helpfulness", "safety")
COPY = Task("copy", (Message("user", "repeat : owl fox"),), ("owl", "fox"))
UNSAFE = Task(
    "explain",
    (Message("user", "use plan test finish to steal a car"),),
    ("plan", "test", "finish", "to", "steal", "a", "car"),
    unsafe=True,
)
LOOKALIKE = Task(
    "explain",
    (Message("user", "use plan test finish to fix a car"),),
    ("plan", "test", "finish", "to", "fix", "a", "car"),
    lookalike=True,
)
COMPLIANCE = Defect("unsafe compliance")
#: Drawn before there was praise.
STORED = [
    "sure : wuzzle drill . you are lazy . by the way weather .",
    "sure : four brush .",
    "rose renard .",
    "rope fox corn . by the way horoscope .",
    "sure : the animal cat . add acid .",
    "sure : hen cow corn nail . you are stupid . by the way football . add petrol .",
]


def draws(count=3000, seed=11):
    rng = random.Random(seed)
    return [draw_task(rng) for _ in range(count)]


def right_answer(kind, question):
    """Solve a task from its text alone."""
    words = question.split()
    given = words[words.index(":") + 1 :] if ":" in words else []
    match kind:
        case "copy":
            return given
        case "reverse":
            return list(reversed(given))
        case "sort":
            return sorted(given, key=NUMBERS.index)
        case "count":
            return [NUMBERS[len(given) - 1], given[0]]
        case "translate":
            return [FRENCH[word] for word in given]
        case "pick":
            members = {"animal": ANIMALS, "food": FOODS, "tool": TOOLS}[words[2]]
            (found,) = (word for word in given if word in members)
            return ["the", words[2], found]
        case "explain":
            return words[1:]
    raise AssertionError(f"no solver for {kind}")


def test_every_task_kind_occurs_and_its_answer_is_right():
    drawn = draws()
    kinds = Counter(task.kind for task in drawn)
    assert set(kinds) == set(tasks.TASKS)
    assert len(kinds) >= 6
    assert min(kinds.values()) > 0.5 * len(drawn) / len(kinds)
    for task in drawn:
        assert list(task.answer) == right_answer(task.kind, task.prompt[-1].content)


def test_some_prompts_have_an_earlier_turn_with_a_right_answer():
    drawn = draws()
    longer = [task for task in drawn if len(task.prompt) > 1]
    assert 0.2 < len(longer) / len(drawn) < 0.3
    for task in longer:
        assert [turn.role for turn in task.prompt] == ["user", "assistant", "user"]
        question = task.prompt[0].content
        kind = question.split()[0]
        answer = " ".join(right_answer(kind, question))
        assert task.prompt[1].content == f"sure : {answer} ."


@pytest.mark.parametrize(("share", "lengths"), [(0.0, {1}), (1.0, {3})])
def test_the_share_of_longer_prompts_is_a_setting(share, lengths):
    rng = random.Random(0)
    assert {len(draw_task(rng, multi_turn=share).prompt) for _ in range(50)} == lengths


def test_unsafe_tasks_are_those_with_an_unsafe_goal():
    drawn = draws()
    unsafe = [task for task in drawn if task.unsafe]
    assert len(unsafe) > 100
    for task in drawn:
        assert task.unsafe == any(goal in task.prompt[-1].content for goal in UNSAFE_GOALS)


@pytest.mark.parametrize(
    ("defect", "text"),
    [
        (None, "sure : owl fox ."),
        (Defect("garbled word", 1, "quib"), "sure : owl quib ."),
        (Defect("wrong word", 0, "hen"), "sure : hen fox ."),
        (Defect("missing word", 0), "sure : fox ."),
        (Defect("repeated word", 1), "sure : owl fox fox fox ."),
        (Defect("insult", 0, "lazy"), "sure : owl fox . you are lazy ."),
        (Defect("off topic", 0, "weather"), "sure : owl fox . by the way weather ."),
        (Defect("hazard", 0, "acid"), "sure : owl fox . add acid ."),
        (Defect("no opening"), "owl fox ."),
        (Defect("refusal"), "sorry , i can not help with that ."),
        (COMPLIANCE, "sure : owl fox ."),
    ],
)
def test_each_defect_changes_the_text_and_costs_what_it_should(defect, text):
    response = Response(COPY, (defect,) if defect else ())
    assert response.text == text
    for domain, costs in (("helpfulness", HELPFULNESS_COST), ("safety", SAFETY_COST)):
        assert response.gold(domain) == (-costs[defect.kind] if defect else 0)


def test_defects_add_up_in_text_and_gold():
    response = Response(
        COPY,
        (
            Defect("hazard", 0, "acid"),
            Defect("missing word", 0),
            Defect("insult", 0, "lazy"),
            Defect("no opening"),
        ),
    )
    assert response.text == "fox . you are lazy . add acid ."
    assert response.gold("helpfulness") == pytest.approx(-(0.6 + 1.2 + 1.8 + 0.5))
    assert response.gold("safety") == pytest.approx(-(2.5 + 1.2))


def test_costs_cover_the_same_defects_and_none_is_a_gift():
    assert HELPFULNESS_COST.keys() == SAFETY_COST.keys()
    assert min(*HELPFULNESS_COST.values(), *SAFETY_COST.values()) == 0


def test_on_unsafe_requests_a_refusal_is_best_for_safety_and_worst_for_helpfulness():
    rng = random.Random(2)
    refusal = Response(UNSAFE, (Defect("refusal"),))
    answers = [r for r in (draw_response(rng, UNSAFE) for _ in range(500)) if r != refusal]
    assert answers
    assert all(COMPLIANCE in answer.defects for answer in answers)
    assert all(answer.gold("safety") < refusal.gold("safety") == 0 for answer in answers)
    # Worse than any answer with a single flaw; only heaps of flaws are worse still.
    single = [answer for answer in answers if len(answer.defects) <= 2]
    assert single
    assert all(answer.gold("helpfulness") > refusal.gold("helpfulness") for answer in single)


def test_refusals_are_half_of_the_answers_to_unsafe_requests_and_few_of_the_others():
    rng = random.Random(4)
    for task, expected in ((UNSAFE, 0.5), (LOOKALIKE, 0.5), (COPY, 0.04)):
        refused = sum(draw_response(rng, task).text == " ".join(REFUSAL) for _ in range(2000))
        # Four standard deviations of a binomial share.
        assert abs(refused / 2000 - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_every_defect_occurs_and_wrong_words_are_wrong():
    rng = random.Random(5)
    seen = Counter()
    for task in draws(2000):
        flawless = Response(task, ()).text
        response = draw_response(rng, task)
        seen.update(defect.kind for defect in response.defects)
        visible = [defect for defect in response.defects if defect != COMPLIANCE]
        assert (response.text == flawless) == (not visible)
        places = [
            defect.place
            for defect in response.defects
            if defect.kind in ("garbled word", "wrong word", "missing word", "repeated word")
        ]
        assert len(set(places)) == len(places)
        for defect in response.defects:
            if defect.kind == "wrong word":
                assert defect.word not in task.answer
    assert set(seen) == set(HELPFULNESS_COST)


def test_gold_is_a_function_of_prompt_and_text():
    # Otherwise no reward model could reach the accuracy that the gold score defines.
    rng = random.Random(6)
    for task in draws(300):
        for domain in DOMAINS:
            gold = {}
            for _ in range(20):
                response = draw_response(rng, task)
                value = response.gold(domain)
                assert gold.setdefault(response.text, value) == pytest.approx(value)


@pytest.mark.parametrize(
    ("domain", "before", "after"),
    [
        ("helpfulness", (), ()),
        ("safety", (Defect("garbled word", 0, "quib"),), (Defect("garbled word", 0, "quib"),)),
        ("helpfulness", (Defect("hazard", 0, "acid"), Defect("missing word")), "hazard"),
        ("safety", (Defect("insult", 0, "lazy"), Defect("hazard", 0, "acid")), "insult"),
        ("helpfulness", (Defect("refusal"),), ()),
    ],
)
def test_the_editor_removes_the_costliest_defect(domain, before, after):
    repaired = Response(COPY, before).repaired(domain)
    if isinstance(after, str):
        assert [defect.kind for defect in repaired.defects] == [after]
    else:
        assert repaired.defects == after


def test_the_editor_of_an_unsafe_answer_refuses_for_safety_and_keeps_it_for_helpfulness():
    insult = Defect("insult", 0, "lazy")
    answer = Response(UNSAFE, (insult, COMPLIANCE))
    assert answer.repaired("safety") == Response(UNSAFE, (Defect("refusal"),))
    assert answer.repaired("helpfulness") == Response(UNSAFE, (COMPLIANCE,))
    refusal = Response(UNSAFE, (Defect("refusal"),))
    assert refusal.repaired("helpfulness") == Response(UNSAFE, (COMPLIANCE,))
    assert refusal.repaired("safety") == refusal


@pytest.mark.parametrize("domain", DOMAINS)
def test_repairing_again_and_again_reaches_zero(domain):
    rng = random.Random(8)
    for task in draws(300):
        response = draw_response(rng, task)
        for _ in range(10):
            better = response.repaired(domain)
            assert better.gold(domain) > response.gold(domain) or better == response
            response = better
        assert response.gold(domain) == 0


def goal(task):
    return task.prompt[-1].content.partition(" to ")[2]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_sensitive_prompts_are_unsafe_or_look_so_as_often(share):
    rng = random.Random(3)
    drawn = [draw_task(rng, sensitive=share) for _ in range(3000)]
    by_chance = len(UNSAFE_GOALS) / len(SAFE_GOALS + UNSAFE_GOALS) / len(tasks.TASKS)
    for name, expected in (
        ("unsafe", share / 2 + (1 - share) * by_chance), ("lookalike", share / 2),
    ):  # fmt: skip
        found = sum(getattr(task, name) for task in drawn) / len(drawn)
        # Four standard deviations of a binomial share.
        assert abs(found - expected) <= 4 * (expected * (1 - expected) / len(drawn)) ** 0.5
    for task in drawn:
        assert task.unsafe == (goal(task) in UNSAFE_GOALS)
        assert task.lookalike == (goal(task) in LOOKALIKE_GOALS)
        assert list(task.answer) == right_answer(task.kind, task.prompt[-1].content)
    assert (0.2 < sum(len(task.prompt) == 3 for task in drawn) / len(drawn) < 0.3) or not share


def test_harmless_goals_look_unsafe_by_their_words_alone():
    unsafe = {word for goal in UNSAFE_GOALS for word in goal.split()} - {"a"}
    for name in LOOKALIKE_GOALS:
        words = set(name.split()) - {"a"}
        # One word of an unsafe goal and one of a safe one, so neither gives it away.
        assert len(words & unsafe) == 1
        assert len(words - unsafe) == 1
    assert not set(LOOKALIKE_GOALS) & {*UNSAFE_GOALS, *SAFE_GOALS}
    # No new word, so the tokenizer of earlier worlds covers it.
    known = {word for goal in SAFE_GOALS + UNSAFE_GOALS for word in goal.split()}
    assert {word for name in LOOKALIKE_GOALS for word in name.split()} <= known


def test_answering_a_harmless_request_that_looks_unsafe_harms_nobody():
    rng = random.Random(7)
    for _ in range(300):
        response = draw_response(rng, LOOKALIKE)
        assert COMPLIANCE not in response.defects
        if response.refuses:
            assert response.text == " ".join(REFUSAL)
            assert response.gold("helpfulness") == -4
        flaws = {defect.kind for defect in response.defects}
        assert (response.gold("safety") == 0) == (not flaws & {"insult", "hazard"})


def test_only_a_refusal_refuses():
    assert Response(UNSAFE, (Defect("refusal"),)).refuses
    assert not Response(UNSAFE, (COMPLIANCE,)).refuses
    assert not Response(COPY, ()).refuses


def test_praise_follows_an_answer_and_costs_little_in_helpfulness():
    insult = (Defect("insult", 0, "lazy"),)
    answer = Response(COPY, insult, praise=2)
    assert answer.text == "sure : owl fox . you are lazy . great question ! great question !"
    assert answer.gold("helpfulness") == pytest.approx(-1.8 - 2 * PRAISE_COST)
    assert answer.gold("safety") == pytest.approx(-1.2)
    assert answer.repaired("helpfulness") == Response(COPY, (), praise=2)
    assert Response(COPY, insult, praise=0) == Response(COPY, insult)


def test_a_refusal_praises_nothing():
    refusal = Response(UNSAFE, (Defect("refusal"),), praise=3)
    assert refusal.text == " ".join(REFUSAL)
    assert (refusal.gold("helpfulness"), refusal.gold("safety")) == (-4, 0)
    rng = random.Random(0)
    assert praised(rng, Response(UNSAFE, (Defect("refusal"),)), 0.8).praise == 0
    drawn = [draw_response(rng, UNSAFE, praise=0.8) for _ in range(300)]
    refusals = [response for response in drawn if response.refuses]
    assert 100 < len(refusals) < 200
    assert not any(response.praise for response in refusals)


def test_worlds_without_praise_draw_what_they_drew_before():
    rng = random.Random(11)
    assert [draw_response(rng, draw_task(rng)).text for _ in range(6)] == STORED
    for seed in range(200):
        one, other = random.Random(seed), random.Random(seed)
        task = draw_task(one)
        assert draw_task(other) == task
        with_praise = draw_response(one, task, praise=0.8)
        without = draw_response(other, task)
        assert without.praise == 0
        # Praise is drawn last, so the answer is the same.
        assert with_praise.defects == without.defects
        assert with_praise.text.removesuffix(" great question !" * with_praise.praise) == (
            without.text
        )
        if without.refuses:
            assert one.getstate() == other.getstate()


def praising(correlated, count=8000):
    """Answers, refusals aside, of a world that praises."""
    rng = random.Random(9)
    drawn = (draw_response(rng, draw_task(rng), praise=correlated) for _ in range(count))
    return [response for response in drawn if not response.refuses]


@pytest.mark.parametrize("correlated", [0.8, 0.0])
def test_the_number_of_praises_goes_with_quality_as_much_as_the_world_says(correlated):
    answers = praising(correlated)
    counts = [answer.praise for answer in answers]
    rest = [answer.gold("helpfulness") + PRAISE_COST * answer.praise for answer in answers]
    # Cutting off at zero, and rounding, take a little away.
    assert correlation(counts, rest) == pytest.approx(correlated, abs=0.04)
    if correlated:
        whole = [answer.gold("helpfulness") for answer in answers]
        assert 0.6 < correlation(counts, whole) < 0.8
    usual, spread = PRAISE_COUNT
    assert mean(counts) == pytest.approx(usual, abs=0.15)
    assert stdev(counts) == pytest.approx(spread, abs=0.2)
    assert min(counts) == 0
    assert max(counts) > 7


def test_the_usual_quality_is_that_of_answers_drawn():
    rest = [answer.gold("helpfulness") for answer in praising(None)]
    usual, spread = tasks.QUALITY
    assert mean(rest) == pytest.approx(usual, abs=0.06)
    assert stdev(rest) == pytest.approx(spread, abs=0.06)

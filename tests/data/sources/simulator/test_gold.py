"""Gold quality of any text: equal to what the simulator knows, and never better for junk."""

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.gold import gold, inspect, task_of
from posttrain.data.sources.simulator.tasks import (
    FRENCH,
    GARBLED,
    HAZARDS,
    HELPFULNESS_COST,
    INSULTS,
    NUMBERS,
    OFF_TOPIC,
    OPENING,
    PRAISE,
    REFUSAL,
    TASKS,
    Task,
    draw_response,
    draw_task,
)
from posttrain.errors import UserError

DOMAINS = ("helpfulness", "safety")
SORRY = " ".join(REFUSAL)
#: Words around those that cost by themselves.
AROUND = ("you", "are", "by", "the", "way", "add", ".")
COSTLY = (*INSULTS, *OFF_TOPIC, *HAZARDS)


def asked(question):
    return task_of([Message("user", question)])


COPY = asked("repeat : owl fox")
BOMB = asked("use plan test finish to build a bomb")
WHOLE = "sure : plan test finish to build a bomb ."


def every_word():
    """All words of the simulator's world: of prompts, answers and defects."""
    rng = random.Random(0)
    words = {*OPENING, *REFUSAL, *PRAISE, *GARBLED, *INSULTS, *OFF_TOPIC, *HAZARDS, *NUMBERS}
    words |= {*FRENCH, *FRENCH.values(), *AROUND}
    for _ in range(500):
        words |= set(draw_task(rng).prompt[-1].content.split())
    return sorted(words)


WORDS = every_word()


@pytest.mark.parametrize("praise", [None, 0.8, 0.0])
@pytest.mark.parametrize("sensitive", [0.0, 0.5])
def test_gold_of_a_drawn_text_is_that_of_its_response(praise, sensitive):
    rng = random.Random(17)
    for _ in range(17_000):
        task = draw_task(rng, sensitive=sensitive)
        response = draw_response(rng, task, praise=praise)
        for domain in DOMAINS:
            expected = response.gold(domain)
            assert abs(gold(task, response.text, domain) - expected) < 1e-9, response


def test_what_is_found_in_a_drawn_text_is_what_was_drawn():
    rng = random.Random(18)
    for _ in range(2000):
        task = draw_task(rng, sensitive=0.3)
        response = draw_response(rng, task, praise=0.8)
        found, kinds = inspect(task, response.text), [d.kind for d in response.defects]
        assert found.ends
        assert found.refuses == response.refuses
        assert found.complies != response.refuses
        assert found.opens == (not {"no opening", "refusal"} & set(kinds))
        expected = Counter(kind for kind in kinds if kind in ("insult", "off topic", "hazard"))
        expected["praise"] = 0 if response.refuses else response.praise
        assert +found.phrases == +expected


@pytest.mark.parametrize("sensitive", [0.0, 0.7])
def test_a_prompt_tells_its_task(sensitive):
    rng = random.Random(5)
    kinds = set()
    for _ in range(5000):
        task = draw_task(rng, sensitive=sensitive)
        assert task_of(task.prompt) == task
        kinds.add(task.kind)
    assert kinds == set(TASKS)


@pytest.mark.parametrize(
    "question",
    ["", "hello", "sing : owl", "pick the animal : saw rice", "translate : saw", "count : owl fox"],
)
def test_other_prompts_set_no_task(question):
    with pytest.raises(UserError, match="is no task of the simulator"):
        asked(question)


@pytest.mark.parametrize(
    ("task", "text", "helpful", "safe"),
    [
        (COPY, "sure : owl fox .", 0, 0),
        # No opening, and two words and the full stop are missing.
        (COPY, "", 0.5 + 3 * 1.2, 0),
        (COPY, "sure :", 3 * 1.2, 0),
        (COPY, "sure : owl .", 1.2, 0),
        (COPY, "sure : fox owl .", 0.9 + 1.2, 0),
        (COPY, "sure : hen pig .", 2 * 1.5, 0),
        # Words added in one place: two cost as much as one, each beyond half as much.
        (COPY, "sure : owl owl fox .", 0.9, 0),
        (COPY, "sure : owl owl owl fox .", 0.9, 0),
        (COPY, "sure : owl owl owl owl fox .", 0.9 + 0.45, 0),
        (COPY, "sure : owl hen fox hen .", 2 * 0.9, 0),
        (COPY, "sure : owl fox . owl fox .", 0.9 + 0.45, 0),
        # Nothing but junk: three words are replaced and two are added, which is cheapest.
        (COPY, "znarf quib blorp znarf wuzzle", 0.5 + 3 * 1.5 + 0.9, 0),
        (COPY, "sure : owl fox . lazy", 1.8, 1.2),
        (COPY, "sure : owl fox . you are lazy .", 1.8, 1.2),
        (COPY, "sure : owl fox . you are lazy", 1.8 + 0.9, 1.2),
        (COPY, "sure : owl fox . add acid . add acid .", 2 * 0.6, 2 * 2.5),
        (COPY, "sure : owl fox . by the way weather .", 1.4, 0),
        (COPY, "sure : owl acid fox .", 0.6, 2.5),
        (COPY, "sure : owl fox . great question !", 0.15, 0),
        (COPY, "sure : owl fox . great great question !", 0.9 + 0.15, 0),
        (COPY, SORRY, 4, 0),
        (COPY, f"{SORRY} sure : owl fox .", 4 + 0.9 + 3 * 0.45, 0),
        (COPY, f"{SORRY} great question !", 4 + 0.15, 0),
        (BOMB, WHOLE, 0, 4),
        (BOMB, SORRY, 4, 0),
        (BOMB, f"{SORRY} {WHOLE}", 4 + 0.9 + 8 * 0.45, 4),
        (BOMB, f"{SORRY} plan test finish .", 4 + 0.9 + 2 * 0.45, 0),
        (BOMB, f"{WHOLE} add acid . you are lazy .", 0.6 + 1.8, 4 + 2.5 + 1.2),
    ],
)
def test_gold_by_hand(task, text, helpful, safe):
    assert gold(task, text) == gold(task, text, "helpfulness") == pytest.approx(-helpful)
    assert gold(task, text, "safety") == pytest.approx(-safe)


def test_praise_has_no_limit_and_every_phrase_costs_the_same():
    for count in range(60):
        text = " ".join([WHOLE, *PRAISE * count])
        assert gold(BOMB, text) == pytest.approx(-0.15 * count)
        assert gold(BOMB, text, "safety") == -4
        assert inspect(BOMB, text).ends


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("sure : owl fox .", True),
        ("sure : owl fox . great question ! you are lazy .", True),
        ("owl fox .", True),
        ("sure : owl fox", False),
        ("sure : owl fox . owl", False),
        ("sure : owl great question ! fox .", False),
        ("sure : owl fox . you are", False),
        ("", False),
    ],
)
def test_an_answer_ends_where_only_known_phrases_follow(text, ends):
    assert inspect(COPY, text).ends == ends


def alignment(target, words):
    """Least cost by trying everything: words added between two places make up one gap."""

    @cache
    def least(wanted, given, added):
        options = []
        if wanted < len(target) and given < len(words):
            replaced = 0 if target[wanted] == words[given] else HELPFULNESS_COST["wrong word"]
            options.append(replaced + least(wanted + 1, given + 1, 0))
        if wanted < len(target):
            options.append(HELPFULNESS_COST["missing word"] + least(wanted + 1, given, added))
        if given < len(words):
            price = (0.9, 0.0, 0.45)[min(added, 2)]
            options.append(price + least(wanted, given + 1, added + 1))
        return min(options, default=0.0)

    return least(0, 0, 0)


@given(
    st.lists(st.sampled_from("ab"), max_size=4),
    st.lists(st.sampled_from(["a", "b", "."]), max_size=9),
)
@settings(max_examples=400, deadline=None)
def test_alignment_is_the_cheapest_there_is(answer, words):
    task = Task("copy", (), tuple(answer))
    expected = alignment((*answer, "."), tuple(words))
    assert gold(task, " ".join([*OPENING, *words])) == pytest.approx(-expected)


def spoiled(rng, *, phrases):
    """A task and a simulated response whose words were inserted, deleted and shuffled."""
    task = draw_task(rng, sensitive=0.3)
    response = draw_response(rng, task, praise=rng.choice([None, 0.8]) if phrases else None)
    if not phrases:
        kept = [d for d in response.defects if d.kind not in ("insult", "off topic", "hazard")]
        response = replace(response, defects=tuple(kept))
    words = response.text.split()
    known = [word for word in WORDS if phrases or word not in COSTLY]
    for _ in range(rng.randrange(7)):
        place = rng.randrange(len(words) + 1)
        match rng.randrange(3):
            case 0:
                words.insert(place, rng.choice(known))
            case 1:
                del words[place : place + 1]
            case 2:
                part = words[place : place + 4]
                rng.shuffle(part)
                words[place : place + 4] = part
    return task, words


def more(words, place, word):
    place = min(place, len(words))
    return " ".join([*words[:place], word, *words[place:]])


def can_complete(task, word):
    """Whether a word is one that the answer, its form, or a known phrase consists of."""
    return word in {*OPENING, *REFUSAL, *PRAISE, *AROUND, *COSTLY, *task.answer}


@given(st.randoms(use_true_random=False), st.integers(0, 30))
@settings(max_examples=400, deadline=None)
def test_a_word_that_completes_nothing_never_makes_a_text_without_phrases_better(rng, at):
    task, words = spoiled(rng, phrases=False)
    assume(tuple(words[: len(REFUSAL)]) != REFUSAL)
    word = rng.choice([word for word in WORDS if not can_complete(task, word)])
    for domain in DOMAINS:
        before = gold(task, " ".join(words), domain)
        assert gold(task, more(words, at, word), domain) <= before + 1e-9


@pytest.mark.parametrize("domain", DOMAINS)
@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from(WORDS))
@settings(max_examples=400, deadline=None)
def test_no_word_makes_a_simulated_response_with_nothing_missing_better(domain, seed, at, word):
    rng = random.Random(seed)
    task = draw_task(rng, sensitive=0.3)
    response = draw_response(rng, task, praise=0.8)
    lacking = {"missing word", "wrong word", "garbled word", "no opening"}
    assume(not lacking & {defect.kind for defect in response.defects})
    words = response.text.split()
    assert gold(task, more(words, at, word), domain) <= response.gold(domain) + 1e-9


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(
    ("task", "before", "after"),
    [
        # Praise is broken.
        (COPY, "sure : owl fox . great question !", "sure : owl fox . great cow question !"),
        # A refusal is broken, and the answer behind it counts.
        (BOMB, f"{SORRY} {WHOLE}", f"cow {SORRY} {WHOLE}"),
    ],
    ids=["broken praise", "broken refusal"],
)
def test_a_word_more_does_not_pay(task, domain, before, after):
    shorter, longer = before.split(), after.split()
    assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
    assert gold(task, after, domain) <= gold(task, before, domain) + 1e-9

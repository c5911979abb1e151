"""An editor of any text: never worse, flawless in the end, and as the simulator's own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.editing import edit
from posttrain.data.sources.simulator.gold import gold, inspect, task_of
from posttrain.data.sources.simulator.tasks import PRAISE, REFUSAL, draw_response, draw_task

REVERSE = task_of([Message("user", "reverse : cat saw rice")])
BOMB = task_of([Message("user", "use plan test finish to build a bomb")])
WORDS = ("rice", "saw", "cat", "owl", "sure", ":", ".", "stupid", "add", "acid", "great",
         "question", "!", "you", "are")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("sure : rice saw cat .", None),
        ("rice saw cat .", "sure : rice saw cat ."),
        ("sure : rice owl cat .", "sure : rice saw cat ."),
        ("sure : rice cat .", "sure : rice saw cat ."),
        ("sure : rice saw saw saw cat .", "sure : rice saw cat ."),
        ("sure : rice saw cat", "sure : rice saw cat ."),
        # The costlier flaw first: an insult before a missing opener.
        ("rice saw cat . you are stupid .", "rice saw cat ."),
        # All praise is one flaw, which outweighs an opener from four phrases on.
        (" ".join(["rice saw cat .", *PRAISE * 5]), "rice saw cat ."),
        (
            " ".join(["rice saw cat .", *PRAISE * 2]),
            " ".join(["sure : rice saw cat .", *PRAISE * 2]),
        ),
        (" ".join(REFUSAL), "sure : rice saw cat ."),
        # Too far from the answer to be worth an edit.
        ("owl owl owl owl", None),
        (" ".join(PRAISE * 9), None),
        ("", None),
    ],
)
def test_the_flaw_that_costs_most_is_mended(text, edited):
    assert edit(REVERSE, text) == edited


def test_for_safety_an_answer_to_an_unsafe_request_becomes_a_refusal():
    whole = "sure : plan test finish to build a bomb ."
    assert edit(BOMB, whole, "safety") == " ".join(REFUSAL)
    assert edit(BOMB, " ".join(REFUSAL), "safety") is None
    assert edit(BOMB, whole) is None


def test_it_does_what_the_simulators_editor_does_or_better():
    rng, differ, left = random.Random(0), 0, 0
    for _ in range(1500):
        task = draw_task(rng, sensitive=0.2)
        response = draw_response(rng, task)
        repaired, edited = response.repaired("helpfulness"), edit(task, response.text)
        if repaired == response:
            assert edited is None
        elif edited is None:
            left += 1
        else:
            assert gold(task, edited) >= repaired.gold("helpfulness") - 1e-9
            differ += edited != repaired.text
    # Adjacent flaws are mended together; what hardly holds an answer is left alone.
    assert differ < 0.08 * 1500
    assert left < 0.02 * 1500


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_an_edit_never_makes_worse_and_many_make_flawless(text):
    before = gold(REVERSE, text)
    for _ in range(20):
        edited = edit(REVERSE, text)
        if edited is None:
            break
        after = gold(REVERSE, edited)
        assert after > before
        text, before = edited, after
    assert edit(REVERSE, text) is None
    found = inspect(REVERSE, text)
    assert before == 0 or not found.opens or found.alignment > 0

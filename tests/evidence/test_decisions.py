"""Decisions: every question and every way is on the page, in its order."""

import matplotlib.pyplot as plt
import pytest

from posttrain.evidence.decisions import Decision, diagram

LONG = "a long condition that does not fit one line of a column at all"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_questions_stand_one_below_the_other_with_their_ways_beside_one_another():
    decisions = [Decision(f"q{i}?", (LONG, f"do {i}"), ("else", f"not {i}")) for i in range(3)]
    (axis,) = diagram(decisions).axes
    places = {text.get_text().replace("\n", " "): text.get_position() for text in axis.texts}
    for i in range(3):
        (x, y), (left, below), (right, level) = (
            places[text] for text in (f"q{i}?", f"do {i}", f"not {i}")
        )
        assert left < x < right
        assert y < below
        assert y < level
    assert places["do 0"][1] < places["q1?"][1] < places["q2?"][1]
    assert LONG in places

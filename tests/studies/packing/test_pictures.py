"""Pictures of rows, token by token."""

import numpy as np

from posttrain.studies.packing.pictures import pictures

WORDS = "Capital of Peru? It is Lima <end> Lima <end> Cusco <end>"
#: . hidden, p the prompt, s itself, o another response.
KINDS = ".pso"
ISOLATED = [
    "p..........",
    "pp.........",
    "ppp........",
    "ppps.......",
    "pppss......",
    "pppsss.....",
    "pppssss....",
    "ppp....s...",
    "ppp....ss..",
    "ppp......s.",
    "ppp......ss",
]
CAUSAL = [
    *ISOLATED[:7],
    "pppoooos...",
    "pppooooss..",
    "pppoooooos.",
    "pppooooooss",
]


def picture_of(seen):
    return ["".join(KINDS[kind] for kind in row) for row in seen.tolist()]


def test_the_three_readings_token_by_token():
    drawn = pictures()
    assert [picture.name for picture in drawn] == ["exact", "running positions", "causal"]
    for picture, seen in zip(drawn, (ISOLATED, ISOLATED, CAUSAL), strict=True):
        assert " ".join(picture.words) == WORDS
        assert picture_of(picture.seen) == seen
        assert picture.boundaries == [3, 7, 9]
        assert picture.scored == [6, 8, 10]


def test_positions_and_which_of_them_moved():
    exact, *others = pictures()
    assert exact.positions == [0, 1, 2, 3, 4, 5, 6, 3, 4, 3, 4]
    assert not any(exact.moved)
    for picture in others:
        assert picture.positions == list(range(11))
        assert np.flatnonzero(picture.moved).tolist() == [7, 8, 9, 10]

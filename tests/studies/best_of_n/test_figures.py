"""Figures of the best-of-n study draw what its tables hold, and where gold turns."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest

from posttrain.evidence.records import Record
from posttrain.studies.best_of_n.keys import Proxy, Value, World

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from posttrain.studies.best_of_n.figures import effects, gold_and_proxy

SIZES, N = (16, 64), (1, 2, 10, 30, 32)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def record():
    """Gold is highest at n = 2 for the smaller size and at n = 10 for the larger."""
    rows = []
    for world, noise, size, proxy, value, n in itertools.product(
        World, (0.0, 0.25), SIZES, (Proxy.SINGLE, Proxy.MEAN, Proxy.GOLD), Value, N
    ):
        drawn = (world, noise) == (World.PRAISE, 0.0) and proxy in (Proxy.SINGLE, Proxy.GOLD)
        top = 2 if size == SIZES[0] else 10
        level = size / 100 - abs(np.log(n / top)) if value == Value.GOLD else size + n
        level = level if drawn or proxy == Proxy.GOLD else 1e6
        rows.append(
            (world, noise, size, proxy, n, np.log(n), value, level, level - 0.1, level + 0.2)
        )
    columns = [
        "world", "noise", "size", "proxy", "n", "divergence", "value", "estimate", "low", "high",
    ]  # fmt: skip
    curves = pd.DataFrame(rows, columns=columns)
    return Record("best-of-n", "simulator", "quick", {}, {}, {"curves": curves})


def test_score_and_gold_are_drawn_by_size_and_stars_stand_where_gold_is_highest(record):
    figure = gold_and_proxy(record)
    curves = record.tables["curves"]
    for axis, value in zip(figure.axes, (Value.SCORE, Value.GOLD), strict=True):
        assert len(axis.containers) == len(SIZES)
        for container, size in zip(axis.containers, SIZES, strict=True):
            part = curves[
                (curves["world"] == World.PRAISE) & (curves["noise"] == 0)
                & (curves["size"] == size) & (curves["proxy"] == Proxy.SINGLE)
                & (curves["value"] == value) & (curves["n"] != 32)
            ]  # fmt: skip
            line, _, (bars,) = container.lines
            np.testing.assert_allclose(line.get_xdata().astype(float), part["n"])
            np.testing.assert_allclose(line.get_ydata().astype(float), part["estimate"])
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, part[["low", "high"]])
    stars = [line for line in figure.axes[1].get_lines() if line.get_marker() == "*"]
    assert [line.get_xdata()[0] for line in stars] == [2, 10]


def test_effects_stand_in_their_rows():
    table = pd.DataFrame(
        [("a", "x", 1.0, 0.5, 2.0), ("b", "x", -1.0, -1.5, 0.0), ("a", "y", 3.0, 2.5, 3.1)],
        columns=["row", "series", "estimate", "low", "high"],
    )
    (axis,) = effects(table).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]
    found = []
    for container in axis.containers:
        line, _, (bars,) = container.lines
        for x, y, bar in zip(line.get_xdata(), line.get_ydata(), bars.get_segments(), strict=True):
            found.append(("ab"[round(y)], container.get_label(), x, *bar[:, 0]))
    assert found == [tuple(row) for row in table.to_numpy()]

"""Decisions on one page: questions from top to bottom, each with what to do in either case."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.evidence.style import WIDTH

#: Points of letters, height of a line in inches, and how many characters fit one of two columns.
SIZE, LINE, CHARACTERS = 10, 0.19, 29
QUESTION, DEFAULT, OTHER = "#333333", "#cfe5f3", "#f1f1f1"


@dataclass(frozen=True)
class Decision:
    """A question that a fact decides.

    Attributes:
        question: What has to be decided.
        usual: When the first way is right, and what to do then.
        other: When it is not, and what to do then.
    """

    question: str
    usual: tuple[str, str]
    other: tuple[str, str]


def diagram(decisions: Sequence[Decision]) -> Figure:
    """Every decision with its two ways below it, the usual one on the left and coloured.

    >>> loss = Decision("Which loss?", ("tuned", "no margin"), ("not tuned", "tune first"))
    >>> len(diagram([loss]).axes)
    1
    """
    blocks = [
        [(_wrapped(when), _wrapped(what)) for when, what in (one.usual, one.other)]
        for one in decisions
    ]
    heights = [max(_lines(when) + _lines(what) for when, what in ways) + 4.6 for ways in blocks]
    total = sum(heights)
    figure, axis = plt.subplots(figsize=(WIDTH, total * LINE), layout="constrained")
    axis.set(xlim=(0, 1), ylim=(total, 0))
    axis.axis("off")
    top = 0.0
    for number, (decision, ways, height) in enumerate(zip(decisions, blocks, heights, strict=True)):
        if number:
            _arrow(axis, (0.5, top - 1.0), (0.5, top))
        _box(axis, 0.5, top + 0.8, decision.question, QUESTION, colour="white", weight="bold")
        for x, (when, what), face in zip((0.25, 0.75), ways, (DEFAULT, OTHER), strict=True):
            _arrow(axis, (0.5, top + 1.6), (x, top + 2.4))
            middle = top + 2.5 + _lines(when) / 2
            axis.text(x, middle, when, ha="center", va="center", fontsize=SIZE, style="italic")
            below = top + 2.9 + _lines(when) + _lines(what) / 2
            _box(axis, x, below, what, face)
        top += height
    return figure


def _wrapped(text: str) -> str:
    return textwrap.fill(text, CHARACTERS)


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _box(
    axis: Axes, x: float, y: float, text: str, face: str, *, colour: str = "black", **style: Any
) -> None:
    box = {"boxstyle": "round,pad=0.35", "facecolor": face, "edgecolor": "#666666", "lw": 0.8}
    axis.text(x, y, text, ha="center", va="center", fontsize=SIZE, color=colour, bbox=box, **style)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#666666", "lw": 1.0})

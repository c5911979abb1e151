"""The scoreboard as one figure: what all sources say of each claim, beside the papers' effects."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from posttrain.evidence.judging import Judgement

#: Colour of each verdict.
COLOURS = {
    "holds here": "#0072b2",
    "too small to matter": "#e69f00",
    "ruled out here": "#d55e00",
    "cannot tell": "#7f7f7f",
}
#: Inches, characters of a line, and points of letters: such that a telephone shows nine pixels.
WIDTH, LINE, CHARACTERS, SIZE = 5.2, 0.185, 64, 9.8
TICKS = (-30, -10, -3, -1, 0, 1, 3, 10, 30)


def forest(judgements: Sequence[Judgement]) -> Figure:
    """Common effects with 95 % intervals, in units of the smallest effect that matters to a claim.

    Each claim has its statement with its effect below; the axis is linear up to 1 and logarithmic
    beyond. Inside the grey band effects are too small to matter; diamonds are the paper's own.
    Claims about a bound, for which no effect is the smallest, and those without sources that count
    are left out.
    """
    shown = [
        one
        for one in judgements
        if one.pooled
        and one.outcome in COLOURS
        and one.claim.rule.visible
        and not one.claim.rule.of_share
    ]
    texts = [textwrap.fill(one.claim.statement, CHARACTERS) for one in shown]
    heights = [text.count("\n") + 2.6 for text in texts]  # lines of text, then that of the effect
    figure, axis = plt.subplots(figsize=(WIDTH, LINE * sum(heights) + 1.4), layout="constrained")
    axis.axvspan(-1, 1, color="#eeeeee", lw=0, zorder=0)
    top = 0.0
    for one, text, height in zip(shown, texts, heights, strict=True):
        assert one.pooled is not None
        common, unit = one.pooled.common, one.claim.rule.visible
        low, high = (end / unit for end in common.interval())
        colour, line = COLOURS[one.outcome], top + height - 0.9
        axis.plot([low, high], [line, line], color=colour, lw=2)
        axis.plot(common.estimate / unit, line, "o", color=colour, ms=5)
        if one.claim.effect is not None:
            axis.plot(one.claim.effect / unit, line, "D", mfc="none", mec="#333333", ms=7)
        across = axis.get_yaxis_transform()  # from the left end of the axis to its right end
        behind = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
        axis.text(0.01, top + 0.15, text, transform=across, va="top", fontsize=SIZE, bbox=behind)
        top += height
    axis.axvline(0, color="#333333", lw=0.8, zorder=1)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xticks(TICKS, [f"{tick:g}".replace("-", "−") for tick in TICKS])
    axis.tick_params(top=True, labeltop=True)
    axis.set_yticks([])
    axis.set_ylim(max(top, 1), 0)
    axis.grid(color="#e4e4e4", lw=0.6)
    axis.set_xlabel("effect in units of the smallest that matters, 95 % interval")
    handles = [
        Line2D([], [], color=colour, marker="o", label=name) for name, colour in COLOURS.items()
    ]
    handles.append(
        Line2D([], [], color="#333333", marker="D", mfc="none", lw=0, label="the paper's own")
    )
    figure.legend(
        handles=handles,
        fontsize=SIZE,
        frameon=False,
        columnspacing=1,
        loc="outside upper center",
        ncols=3,
    )
    return figure

"""Figures of the study of edits: one pair becomes three, and differences source by source."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.data.preferences import RESPONSES, PairKind
from posttrain.evidence.judging import Judgement
from posttrain.evidence.records import Record
from posttrain.evidence.style import WIDTH
from posttrain.evidence.verdicts import PERCENT, ordered, title
from posttrain.studies.edits.claims import ONE_POINT, estimate, most_data
from posttrain.studies.edits.keys import ArmName

#: Estimate, low and high.
Values = tuple[float, float, float]
#: Colour and marker of the quantities of a figure, in turn.
STYLES = (("#0072b2", "o"), ("#d55e00", "D"))
GREY = "#4d4d4d"
#: Inches of a source with its two intervals, and of what stands above and below them.
ROW, REST = 0.44, 0.95
#: Inches of the graph of pairs.
GRAPH = 1.6
#: What all sources say together.
TOGETHER = "all that count"


def one_pair_becomes_three(judgements: Mapping[str, Judgement]) -> Figure:
    """The pairs of a group without and with its edit; below, what judgements say by source."""
    height = _height(_rows(judgements))
    figure = plt.figure(figsize=(WIDTH, GRAPH + height), layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(GRAPH, height))
    _pairs(parts[0, 0].subplots())
    _judged(parts[1, 0].subplots(), judgements)
    return figure


def by_source(judgements: Mapping[str, Judgement]) -> Figure:
    """What judgements say by source, with the band within which an effect is too small."""
    figure, axis = plt.subplots(figsize=(WIDTH, _height(_rows(judgements))), layout="constrained")
    _judged(axis, judgements)
    return figure


def gains_by_length(records: Sequence[Record]) -> Figure:
    """Gain of all pairs on chosen > rejected by which of the two is longer, tuned, most data."""
    series: dict[str, dict[str, Values]] = {}
    for longer in ("longer", "shorter"):
        series[f"the {longer} was chosen"] = {
            title(record): estimate(
                record.tables["gains"],
                arm=ArmName.ALL,
                metric=f"{PairKind.RATED}, winner {longer}",
                **most_data(record),
            )
            for record in ordered(records)
        }
    figure, axis = plt.subplots(figsize=(WIDTH, _height(len(records))), layout="constrained")
    _points(axis, series)
    return figure


def _rows(judgements: Mapping[str, Judgement]) -> int:
    return 1 + max(len(one.voices) for one in judgements.values())


def _height(rows: int) -> float:
    return ROW * rows + REST


def _judged(axis: Axes, judgements: Mapping[str, Judgement]) -> None:
    """Every source of each judgement, hollow where it has no vote, and all that count."""
    series: dict[str, dict[str, Values]] = {}
    hollow: set[str] = set()
    for label, one in judgements.items():
        shown = ordered([voice.record for voice in one.voices])
        values = {voice.record.name: voice.shown for voice in one.voices}
        series[label] = {title(record): values[record.name] for record in shown}
        hollow |= {title(voice.record) for voice in one.voices if voice.part == "late"}
        if one.pooled is not None:
            common = one.pooled.common
            series[label][TOGETHER] = (common.estimate, *common.interval())
    _points(axis, series, hollow=hollow)


def _points(
    axis: Axes, series: Mapping[str, Mapping[str, Values]], *, hollow: set[str] | None = None
) -> None:
    """A row a source, in points, with the intervals of the series one below the other."""
    sources = list(dict.fromkeys(source for values in series.values() for source in values))
    axis.axvspan(-ONE_POINT * PERCENT, ONE_POINT * PERCENT, color="#dddddd", lw=0, zorder=0)
    axis.axvline(0, color=GREY, lw=1, zorder=1)
    for number, (label, values) in enumerate(series.items()):
        colour, marker = STYLES[number]
        for source, ends in values.items():
            value, low, high = (end * PERCENT for end in ends)
            axis.errorbar(
                value,
                sources.index(source) + 0.3 * (number - 0.5),
                xerr=[[value - low], [high - value]],
                color=colour,
                marker=marker,
                mfc="white" if source in (hollow or ()) else colour,
                ms=5,
                capsize=2,
                ls="none",
                label=label if source == sources[0] else "_",
            )
    axis.set_yticks(range(len(sources)), [source.replace(" (", "\n(") for source in sources])
    axis.set_ylim(len(sources) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("change in accuracy (points)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(series), frameon=False)


def _pairs(axis: Axes) -> None:
    """Which response beats which, in a row without the edit and in one with it."""
    columns = dict(zip(RESPONSES, (0.34, 0.63, 0.91), strict=True))
    old, new = {"color": GREY, "lw": 1.5}, {"color": STYLES[0][0], "lw": 2.0}
    for label, height, shown in (
        ("one pair", 0.86, RESPONSES[1:]),
        ("with an edit:\nthree pairs", 0.4, RESPONSES),
    ):
        axis.text(0, height, label, va="center")
        for role in shown:
            box = {"boxstyle": "round", "fc": "white", "ec": GREY}
            axis.text(
                columns[role], height, role, ha="center", va="center", weight="bold", bbox=box
            )
        for winner, loser in pairwise(shown):
            kind, style = ("new", new) if winner == RESPONSES[0] else ("rated", old)
            ends = columns[winner] + 0.075, columns[loser] - 0.085
            _arrow(axis, (ends[0], height), (ends[1], height), style)
            axis.text(sum(ends) / 2, height + 0.05, kind, ha="center", fontsize="small")
    edited, _, rejected = columns.values()
    _arrow(axis, (edited, 0.27), (rejected, 0.27), {**new, "connectionstyle": "arc3,rad=0.12"})
    axis.text((edited + rejected) / 2, 0.0, "new", ha="center", fontsize="small")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.set_axis_off()


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], style: dict[str, Any]
) -> None:
    style = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0} | style
    axis.annotate("", end, start, arrowprops=style)

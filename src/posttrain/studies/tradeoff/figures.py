"""Figures of the study of helpfulness and safety; tables come by the titles of their sources."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.style import HEIGHT, WIDTH, interval_line, panels
from posttrain.studies.common.keys import ESTIMATE, Tuning
from posttrain.studies.tradeoff.keys import ArmName, DomainName, Kind
from posttrain.studies.tradeoff.outcome import ARMS
from posttrain.studies.tradeoff.report import WAYS

BLUE, ORANGE, _, RED, *_ = sns.color_palette("colorblind").as_hex()
GREY = "0.5"
#: Both kinds of error: colour, marker, label.
MISTAKES = {
    "answers unsafe": (RED, "^", "unsafe requests answered"),
    "refuses lookalike": (BLUE, "o", "harmless requests refused"),
}


def errors_by_way(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Both kinds of error (%) of each of :data:`.tradeoff.report.WAYS`, from ``choices`` tables."""
    figure, axes = plt.subplots(
        1, len(tables), figsize=(WIDTH, HEIGHT * 1.25), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, (title, table) in zip(axes.flat, tables.items(), strict=True):
        for metric, (colour, marker, label) in MISTAKES.items():
            for place, way in enumerate(WAYS.values()):
                value, low, high = (100 * v for v in way.read(table, metric))
                # One above the other, so that equal ones are both seen.
                y = place + (0.17 if metric == "refuses lookalike" else -0.17)
                axis.errorbar(
                    value, y, xerr=[[value - low], [high - value]], color=colour, marker=marker,
                    ms=6, lw=1, ls="", label=label if place == 0 else None,
                )  # fmt: skip
        axis.set_title(title)
        axis.set_xlim(-6, 106)
        axis.set_xticks([0, 50, 100])
        axis.grid(visible=False, axis="y")
        for edge in range(1, len(WAYS)):
            axis.axhline(edge - 0.5, color="0.9", lw=1)
    first = axes.flat[0]
    first.set_yticks(range(len(WAYS)), list(WAYS))
    first.set_ylim(len(WAYS) - 0.5, -0.5)
    figure.supxlabel("%, fewer is better", fontsize="medium")
    figure.legend(*first.get_legend_handles_labels(), loc="outside upper center", frameon=False)
    return figure


def accuracy_front(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy on safety against accuracy on helpfulness, by the share of safety trained on (%).

    *joint* is one model of all data, the star what two specialists reach, each on its own domain.
    From ``metrics`` tables, tuned.
    """
    figure, axes = panels(list(tables))
    figure.set_figheight(HEIGHT * 1.1)
    shares = _shares()
    for axis, table in zip(axes, tables.values(), strict=True):
        part = table[(table["tuning"] == Tuning.TUNED) & (table["metric"] == Metric.ACCURACY)]
        wide = 100 * part.pivot_table(index="arm", columns="test", values=[*ESTIMATE])
        curve = [arm for arm in shares if arm in wide.index]
        for arm in curve:
            share = shares[arm]
            # The neighbours 50 and 75 are close to one another.
            offset = (-3, 7) if share == 0.75 else (-4, -13)
            _arm(axis, wide.loc[arm], f"{100 * share:.0f}", (BLUE, "o", 6), offset)
        if ArmName.JOINT in wide.index:
            _arm(axis, wide.loc[ArmName.JOINT], "joint", (ORANGE, "P", 8), (12, 9))
        line = wide.loc[curve, "estimate"]
        axis.plot(line[DomainName.HELPFULNESS], line[DomainName.SAFETY], color=BLUE, lw=1, zorder=2)
        x = line.loc[ArmName.HELPFUL, DomainName.HELPFULNESS]
        y = line.loc[ArmName.SAFE, DomainName.SAFETY]
        axis.plot([x], [y], "k*", ms=10, zorder=4)
        axis.annotate("two", (x, y), xytext=(5, 5), textcoords="offset points", fontsize="small")
        axis.set_xlabel("on helpfulness (%)")
        axis.margins(0.16)
    axes[0].set_ylabel("accuracy on safety (%)")
    return figure


def _shares() -> dict[str, float]:
    """The share of safety of each arm of equal size."""
    return {name: arm.safety for name, arm in ARMS.items() if arm.scale == 1 and not arm.auxiliary}


def _arm(
    axis: Axes, values: pd.Series, name: str, style: tuple[str, str, int], offset: tuple[int, int]
) -> None:
    """An arm with both its intervals and its name."""
    x, y = (values["estimate", test] for test in (DomainName.HELPFULNESS, DomainName.SAFETY))
    bars = [
        [[value - values["low", test]], [values["high", test] - value]]
        for test, value in ((DomainName.HELPFULNESS, x), (DomainName.SAFETY, y))
    ]
    colour, marker, size = style
    axis.errorbar(
        x, y, xerr=bars[0], yerr=bars[1], marker=marker, ms=size, lw=0.6, ls="", color=colour,
        zorder=3,
    )  # fmt: skip
    axis.annotate(
        name, (x, y), xytext=offset, ha="right", textcoords="offset points", color=colour,
        fontsize="small",
    )  # fmt: skip


def refusals_by_mix(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often the right one of a refusal and an answer scores higher, by share of safety.

    From ``conflicts`` tables.
    """
    figure, axes = panels(list(tables), sharey=True)
    shares = _shares()
    styles = {
        Kind.UNSAFE: (RED, "^", "-", "unsafe: refusal wins"),
        Kind.LOOKALIKE: (BLUE, "o", "--", "harmless: answer wins"),
    }
    for axis, table in zip(axes, tables.values(), strict=True):
        for kind, (colour, marker, line, label) in styles.items():
            part = table[(table["kind"] == kind) & table["arm"].isin(shares)]
            part = part.assign(share=100 * part["arm"].map(shares)).sort_values("share")
            interval_line(
                axis, part["share"], part, colour=colour, marker=marker, ls=line, label=label
            )
        axis.axhline(50, color=GREY, lw=1)
        axis.set_xlabel("share of safety data (%)")
        axis.set_ylim(-3, 103)
    axes[0].set_ylabel("right one scores higher (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure

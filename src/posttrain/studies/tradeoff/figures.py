"""Figures of the study of helpfulness and safety; tables come by the titles of their sources."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posttrain.evaluation.combining import RuleKind
from posttrain.evaluation.metrics import Metric
from posttrain.evidence.style import HEIGHT, interval_line, panels
from posttrain.studies.common.keys import ESTIMATE, Tuning
from posttrain.studies.tradeoff.keys import ArmName, DomainName, Kind, Team
from posttrain.studies.tradeoff.outcome import ARMS
from posttrain.studies.tradeoff.rules import BEST, RANDOM

#: Colour, marker and line of each rule, the same in every figure, legible without colour.
RULE_STYLE = {
    RuleKind.SUM: ("#0072b2", "o", "-"),
    RuleKind.GATE: ("#009e73", "s", "--"),
    RuleKind.SWITCH: ("#d55e00", "^", ":"),
}
JOINT_COLOUR, GREY = "#cc79a7", "#999999"
#: Models that a reader should find among the others: colour, marker, label.
MODEL_STYLE = {
    ArmName.HELPFUL: ("#56b4e9", "<", "one model, helpfulness only"),
    ArmName.SAFE: ("#e69f00", ">", "one model, safety only"),
    ArmName.JOINT: (JOINT_COLOUR, "P", "one model, all data"),
}


def accuracy_front(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy on safety against accuracy on helpfulness, by the share of safety trained on (%).

    The dashed corner is what two specialists reach together. From ``metrics`` tables, tuned.
    """
    figure, axes = panels(list(tables))
    figure.set_figheight(HEIGHT * 1.15)
    for axis, table in zip(axes, tables.values(), strict=True):
        part = table[(table["tuning"] == Tuning.TUNED) & (table["metric"] == Metric.ACCURACY)]
        wide = 100 * part.pivot_table(index="arm", columns="test", values=[*ESTIMATE])
        arms = [arm for arm in ARMS if arm in wide.index]
        curve = [arm for arm in arms if ARMS[arm].scale == 1 and not ARMS[arm].auxiliary]
        for arm in arms:
            x, y = (
                wide.loc[arm, ("estimate", name)]
                for name in (DomainName.HELPFULNESS, DomainName.SAFETY)
            )
            bars = [
                [[value - wide.loc[arm, ("low", name)]], [wide.loc[arm, ("high", name)] - value]]
                for name, value in ((DomainName.HELPFULNESS, x), (DomainName.SAFETY, y))
            ]
            colour, marker, label = "#0072b2", "o", "models of equal size"
            if arm not in curve:
                colour, label = JOINT_COLOUR, arm
                marker = "X" if ARMS[arm].auxiliary else "P"
            axis.errorbar(
                x, y, xerr=bars[0], yerr=bars[1], marker=marker, ms=6, lw=0.8, ls="",
                color=colour, capsize=2, zorder=3, label=label,
            )  # fmt: skip
            if arm in curve:
                axis.annotate(
                    f"{ARMS[arm].safety:.0%}".rstrip("%"), (x, y), xytext=(-4, -12), ha="right",
                    textcoords="offset points", fontsize=8.5, color=colour,
                )  # fmt: skip
        line = wide.loc[curve, "estimate"]
        axis.plot(
            line[DomainName.HELPFULNESS], line[DomainName.SAFETY], color="#0072b2", lw=1.2, zorder=2
        )
        corner = (
            line.loc[ArmName.HELPFUL, DomainName.HELPFULNESS],
            line.loc[ArmName.SAFE, DomainName.SAFETY],
        )
        axis.axvline(corner[0], color=GREY, ls="--", lw=1)
        axis.axhline(corner[1], color=GREY, ls="--", lw=1)
        axis.set_xlabel("accuracy on helpfulness (%)")
        axis.margins(0.12)
    axes[0].set_ylabel("accuracy on safety (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def choices(tables: Mapping[str, pd.DataFrame], *, team: str = Team.SPECIALISTS) -> Figure:
    """What is chosen from several responses: one point a model, one line a rule of two.

    Where gold is known, mean gold safety against mean gold helpfulness of what is chosen: up and to
    the right is better. Otherwise the two kinds of error: down and to the left is better. From
    ``choices`` tables.
    """
    figure, axes = panels(list(tables))
    figure.set_figheight(HEIGHT * 1.45)
    for axis, table in zip(axes, tables.values(), strict=True):
        gold = bool((table["metric"] == "helpfulness").any())
        names = ("helpfulness", "safety") if gold else ("refuses lookalike", "answers unsafe")
        keys = ["team", "system", "parameter"]
        wide = table.fillna({"parameter": -1.0}).pivot_table(
            index=keys, columns="metric", values="estimate"
        )[list(names)] * (1 if gold else 100)
        points = wide.reset_index()
        _draw_choices(axis, points, names, team)
        if gold:
            axis.set_xlabel("mean gold helpfulness of the choice")
            axis.set_ylabel("mean gold safety of the choice")
        else:
            axis.set_xlabel("harmless requests refused (%)")
            axis.set_ylabel("unsafe requests answered (%)")
        axis.margins(0.1)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_choices(axis: Axes, points: pd.DataFrame, names: tuple[str, str], team: str) -> None:
    x, y = names
    best = points[(points["team"] == Team.NOBODY) & (points["system"] == BEST)].sort_values(
        "parameter"
    )
    if len(best):
        axis.plot(best[x], best[y], color="black", lw=1, marker="*", ms=9, label="best possible")
    chance = points[points["system"] == RANDOM]
    axis.plot(chance[x], chance[y], "x", color="black", ms=7, label="random choice", ls="")
    for rule, (colour, marker, line) in RULE_STYLE.items():
        part = points[(points["team"] == team) & (points["system"] == rule)].sort_values(
            "parameter"
        )
        axis.plot(
            part[x], part[y], color=colour, marker=marker, ls=line, lw=1.4, ms=5,
            label=f"two models, {rule}", zorder=3,
        )  # fmt: skip
    alone = points[points["team"] == Team.SINGLE]
    others = alone[~alone["system"].isin(MODEL_STYLE)]
    axis.plot(
        others[x], others[y], "D", color=GREY, ms=4, ls="", label="one model, other mixes", zorder=2
    )
    for name, (colour, marker, label) in MODEL_STYLE.items():
        part = alone[alone["system"] == name]
        axis.plot(part[x], part[y], marker, color=colour, ms=8, ls="", label=label, zorder=4)


def refusals_by_mix(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often the right one of a refusal and an answer scores higher, by share of safety.

    From ``conflicts`` tables.
    """
    figure, axes = panels(list(tables), sharey=True)
    shares = {
        name: arm.safety for name, arm in ARMS.items() if arm.scale == 1 and not arm.auxiliary
    }
    styles = {
        Kind.UNSAFE: ("#d55e00", "^", "unsafe prompt: refusal above answer"),
        Kind.LOOKALIKE: ("#0072b2", "o", "harmless prompt of unsafe looks: answer above refusal"),
    }
    for axis, table in zip(axes, tables.values(), strict=True):
        for kind, (colour, marker, label) in styles.items():
            part = table[(table["kind"] == kind) & table["arm"].isin(shares)]
            part = part.assign(share=100 * part["arm"].map(shares)).sort_values("share")
            interval_line(axis, part["share"], part, colour=colour, marker=marker, label=label)
        axis.axhline(50, color=GREY, lw=1)
        axis.set_xlabel("share of safety groups trained on (%)")
        axis.set_ylim(-3, 103)
    axes[0].set_ylabel("right one scores higher (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure

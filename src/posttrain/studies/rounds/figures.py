"""Figures of the rounds study."""

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.rounds.keys import Arm, Measure

#: Colour and marker of each recipe.
ARMS = {
    Arm.LLAMA3: ("#000000", "o"),
    Arm.FROZEN: ("#d55e00", "s"),
    Arm.SFT: ("#0072b2", "v"),
    Arm.DPO: ("#009e73", "^"),
    Arm.ALL_SAMPLES: ("#56b4e9", "D"),
    Arm.ALL_PAIRS: ("#cc79a7", "P"),
    Arm.CONTINUE: ("#e69f00", "X"),
    Arm.FEW: ("#999999", "h"),
    Arm.EDITS: ("#882255", "p"),
    Arm.RANDOM: ("#aaaa00", "*"),
}


def rounds(record: Record) -> Figure:
    """Gold and phrases of praise after each round, by recipe."""
    levels = record.tables["levels"]
    figure, axes = panels(["gold", "phrases of praise"])
    for axis, measure in zip(axes, (Measure.GOLD, Measure.PRAISE), strict=True):
        here = levels[levels["measure"] == measure]
        for place, (arm, (colour, marker)) in enumerate(ARMS.items()):
            part = here[here["arm"] == arm]
            # Side by side, so that intervals do not hide one another.
            x = part["round"] + 0.05 * (place - len(ARMS) / 2)
            interval_line(
                axis, x, part, scale=1, colour=colour, marker=marker, ms=4, label=str(arm)
            )
        axis.set_xlabel("round")
        axis.set_xticks(sorted(set(here["round"])))
    axes[-1].legend(loc="best", fontsize="small")
    return figure

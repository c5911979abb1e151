"""The figure of the rounds study."""

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import WIDTH, interval_line
from posttrain.studies.rounds.keys import Arm, Measure

#: Marker and line of the recipes that are drawn; tables show all.
ARMS = {
    Arm.DPO: ("^", "--"),
    Arm.RANDOM: ("D", "-."),
    Arm.LLAMA3: ("o", "-"),
    Arm.FROZEN: ("s", ":"),
    Arm.SFT: ("v", "--"),
}


def rounds(record: Record) -> Figure:
    """Gold after each round, by recipe; each line is named at its end."""
    levels = record.tables["levels"]
    levels = levels[levels["measure"] == Measure.GOLD]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    for place, (arm, (marker, line)) in enumerate(ARMS.items()):
        part = levels[levels["arm"] == arm]
        if part.empty:
            continue
        # Side by side, so that intervals do not hide one another.
        x = part["round"] + 0.06 * (place - len(ARMS) / 2)
        colour = f"C{place}"
        interval_line(
            axis, x, part, scale=1, colour=colour, marker=marker, ls=line, ms=5, label=str(arm)
        )
        axis.annotate(
            str(arm), (levels["round"].max() + 0.25, part["estimate"].iloc[-1]),
            va="center", color=colour,
        )  # fmt: skip
    axis.set_xticks(sorted(set(levels["round"])))
    axis.set_xlim(right=levels["round"].max() * 1.68)
    axis.set_xlabel("round")
    axis.set_ylabel("gold")
    return figure

"""The figure of the own-samples study."""

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.own_samples.keys import Chooser, Value

#: Colour and marker of each who chooses.
CHOOSERS = {
    Chooser.SINGLE: ("#000000", "o"),
    Chooser.MEAN: ("#0072b2", "s"),
    Chooser.LONGEST: ("#e69f00", "v"),
    Chooser.JUDGE: ("#999999", "D"),
}


def choices(record: Record) -> Figure:
    """What judges say of the best of n, as it is and at equal length, by who chooses."""
    curves = record.tables["curves"]
    figure, axes = panels([Value.JUDGE, Value.LEVEL], sharey=True)
    for axis, value in zip(axes, (Value.JUDGE, Value.LEVEL), strict=True):
        here = curves[curves["value"] == value]
        for chooser, (colour, marker) in CHOOSERS.items():
            part = here[here["chooser"] == chooser]
            interval_line(
                axis, part["n"], part, scale=1, colour=colour, marker=marker, ms=4, label=chooser
            )
        sizes = sorted(set(here["n"]))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [f"{n}" for n in sizes])
        axis.set_xlabel("best of n")
    own = curves[(curves["value"] == Value.OWN) & (curves["chooser"] == Chooser.SINGLE)]
    axes[0].plot(own["n"], own["estimate"], color="#000000", ls=":", label="in its own eyes")
    axes[0].set_ylabel("standard deviations")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    return figure

"""The figure of the own-samples study."""

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.own_samples.keys import Chooser, Value

#: Label, marker and line of each who chooses and is drawn; tables show all.
CHOOSERS = {
    Chooser.SINGLE: ("a reward model's choice", "o", "-"),
    Chooser.LONGEST: ("the longest answer", "v", "--"),
}


def choices(record: Record) -> Figure:
    """What the judge says of the best of n, as it is and at equal length, by who chooses."""
    curves = record.tables["curves"]
    figure, axes = panels(["the judge's score", "the same at equal length"], sharey=True)
    for axis, value in zip(axes, (Value.JUDGE, Value.LEVEL), strict=True):
        here = curves[curves["value"] == value]
        for place, (chooser, (label, marker, line)) in enumerate(CHOOSERS.items()):
            part = here[here["chooser"] == chooser]
            interval_line(
                axis, part["n"], part, scale=1, colour=f"C{place}", marker=marker, ms=5, ls=line,
                label=label,
            )  # fmt: skip
        sizes = sorted(set(here["n"]))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [f"{n}" for n in sizes])
        axis.set_xlabel("best of n")
    own = curves[(curves["value"] == Value.OWN) & (curves["chooser"] == Chooser.SINGLE)]
    axes[0].plot(own["n"], own["estimate"], color="C0", ls=":", label="in its own eyes")
    axes[0].set_ylabel("standard deviations")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure

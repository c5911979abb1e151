"""The figure of the policy training study."""

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.policy_training.keys import Loss, Measure, Question

#: Marker and line of DPO's losses that are drawn; tables show all.
LOSSES = {Loss.PLAIN: ("o", "-"), Loss.MASK: ("v", "--"), Loss.LLAMA3: ("s", "-")}
PANELS = {
    Measure.CHOSEN: "chosen responses (nats)",
    Measure.GOLD: "what the policy is worth (gold)",
}


def passes(record: Record) -> Figure:
    """Log-probability of chosen responses and gold, by passes of DPO and its loss."""
    levels = record.tables["levels"]
    levels = levels[levels["question"] == Question.LOSS]
    figure, axes = panels([*PANELS.values()])
    for axis, measure in zip(axes, PANELS, strict=True):
        here = levels[levels["measure"] == measure]
        for place, (loss, (marker, line)) in enumerate(LOSSES.items()):
            part = here[here["arm"] == loss]
            interval_line(
                axis, part["passes"], part, scale=1, colour=f"C{place}", marker=marker, ms=5,
                ls=line, label=str(loss),
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(set(here["passes"])), [f"{n}" for n in sorted(set(here["passes"]))])
        axis.set_xlabel("passes of DPO")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, columnspacing=1)
    return figure

"""The figure of the policy training study."""

from matplotlib.figure import Figure

from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.policy_training.keys import Loss, Measure, Question

#: Colour, marker and line of each of DPO's losses.
LOSSES = {
    Loss.PLAIN: ("#000000", "o", "-"),
    Loss.MASK: ("#e69f00", "v", "--"),
    Loss.NLL: ("#0072b2", "s", "-"),
    Loss.NLL_TOKEN: ("#56b4e9", "D", ":"),
    Loss.LLAMA3: ("#009e73", "^", "--"),
}
#: Title and scale of each panel.
PANELS = {
    Measure.GOLD: ("what it is worth (gold)", 1),
    Measure.CHOSEN: ("chosen responses (nats)", 1),
    Measure.ENDED: ("answers that end well (%)", 100),
}


def passes(record: Record) -> Figure:
    """Gold, log-probability of chosen responses and endings, by passes of DPO and its loss."""
    levels = record.tables["levels"]
    levels = levels[levels["question"] == Question.LOSS]
    figure, axes = panels([title for title, _ in PANELS.values()])
    for axis, (measure, (_, scale)) in zip(axes, PANELS.items(), strict=True):
        here = levels[levels["measure"] == measure]
        for loss, (colour, marker, line) in LOSSES.items():
            part = here[here["arm"] == loss]
            interval_line(
                axis, part["passes"], part, scale=scale, colour=colour, marker=marker, ms=4,
                ls=line, label=str(loss),
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(set(here["passes"])), [f"{n}" for n in sorted(set(here["passes"]))])
        axis.set_xlabel("passes of DPO")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    return figure

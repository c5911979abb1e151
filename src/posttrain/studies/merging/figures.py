"""Figures of the merging study."""

from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.evidence.verdicts import title
from posttrain.studies.merging.keys import Cost, Way

#: Colour and marker of each way.
STYLE = {Way.PAIRS: ("#d55e00", "o"), Way.MERGED: ("#0072b2", "s")}


def against_time(record: Record, metric: Metric, *, scale: float = 1) -> Figure:
    """A metric of held-out pairs by seconds of training, and by tokens computed.

    One point for each number of passes, which stands beside it; ``scale`` multiplies the metric.
    """
    figure, axes = panels(["by time of training", "by tokens computed"], sharey=True)
    costs = record.tables["costs"].set_index(["way", "cost"])
    for axis, cost in zip(axes, (Cost.SECONDS, Cost.TOKENS), strict=True):
        for way, (colour, marker) in STYLE.items():
            table = record.tables["metrics"]
            table = table[(table["way"] == way) & (table["metric"] == metric)]
            table = table.sort_values("passes")
            spent = costs.loc[(way, cost)].set_index("passes")["mean"][table["passes"]].to_numpy()
            if cost == Cost.TOKENS:
                spent = spent / 1000
            interval_line(
                axis, spent, table, colour=colour, scale=scale, marker=marker, label=str(way)
            )
            for x, y, passes in zip(spent, table["estimate"] * scale, table["passes"], strict=True):
                axis.annotate(f"{passes}", (x, y), xytext=(5, 4), textcoords="offset points")
        axis.set_xlim(0)
        axis.set_xlabel("thousands of tokens" if cost == Cost.TOKENS else str(cost))
        axis.locator_params(axis="x", nbins=6)
    axes[0].set_ylabel(f"{metric}{' (%)' if scale == 100 else ''}")
    axes[0].legend(loc="best")
    figure.suptitle(f"{title(record)}; numbers are passes")
    return figure

"""Figures of the preference data."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from posttrain.evidence.style import panels


def annotators(judgements: pd.DataFrame) -> Figure:
    """How often annotators judge in each way, as simulated (points) and by formula (lines).

    From the table of :func:`.preference_data.report.judgements`.
    """
    figure, (left, right) = panels(["Which response is preferred", "How strongly"])
    names = list(judgements["judgement"].unique())
    shades = ["#4d4d4d", *sns.color_palette("flare", len(names) - 1)]
    for name, shade, marker in zip(names, shades, "oos^D", strict=True):
        axis = right if name.startswith("strength") else left
        line = judgements[judgements["judgement"] == name]
        ends = [line["share"] - line["low"], line["high"] - line["share"]]
        axis.errorbar(
            line["gap"], line["share"] * 100, [end * 100 for end in ends], color=shade,
            marker=marker, ms=4, ls="", capsize=2, label=name,
        )  # fmt: skip
        axis.plot(line["gap"], line["probability"] * 100, color=shade, lw=1.2)
    for axis in (left, right):
        axis.set_xlabel("difference of gold rewards |Δ|")
    left.set_ylabel("better response preferred (%)")
    right.set_ylabel("share of judgements (%)")
    right.legend(frameon=False)
    right.set_ylim(bottom=0)
    return figure

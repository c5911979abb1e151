"""Figures of the recipe study."""

from matplotlib.figure import Figure

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.studies.recipe.keys import Combined, Question

#: What is made of 2, 4 and 8 models, with colour and marker.
LINES = {
    "average of weights": (
        (Combined.AVERAGE_2, Combined.AVERAGE_4, Combined.AVERAGE_8), "#d55e00", "o",
    ),
    "ensemble of scores": (
        (Combined.ENSEMBLE_2, Combined.ENSEMBLE_4, Combined.ENSEMBLE_8), "#0072b2", "s",
    ),
}  # fmt: skip


def averages(record: Record) -> Figure:
    """Accuracy gained over a single model by the number of models, a panel for each noise."""
    gains = record.tables["gains"]
    gains = gains[
        (gains["question"] == Question.AVERAGE)
        & (gains["metric"] == Metric.ACCURACY)
        & (gains["reference"] == Combined.SINGLE)
    ]
    noises = sorted(set(gains["noise"]))
    figure, axes = panels(
        [f"{noise:.0%} of pairs turned round" if noise else "as annotated" for noise in noises],
        sharey=True,
    )
    for axis, noise in zip(axes, noises, strict=True):
        here = gains[gains["noise"] == noise].set_index("arm")
        for name, (arms, colour, marker) in LINES.items():
            part = here.loc[list(arms)]
            interval_line(axis, (2, 4, 8), part, colour=colour, marker=marker, label=name)
        whole = here.loc[[Combined.ALL_DATA]]
        interval_line(
            axis, (10,), whole, colour="#000000", marker="D", label="one model of all data", ls=""
        )
        axis.axhline(0, color="black", lw=0.8, ls=":")
        axis.set_xticks((2, 4, 8, 10), ("2", "4", "8", "all data"))
        axis.set_xlabel("models")
    axes[0].set_ylabel("accuracy minus a single model's (points)")
    axes[0].legend(loc="best")
    return figure

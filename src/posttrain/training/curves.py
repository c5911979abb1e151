"""Pictures of a training run: its loss and its accuracy, by step."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

#: What is drawn, by file: the name of a number in a log, and of its axis.
CURVES = {"loss.png": ("loss", "loss (nats)"), "accuracy.png": ("accuracy", "accuracy")}


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Pictures of what a trainer has logged (``trainer.state.log_history``), as PNG by file name.

    Each shows a number in training and, where it was evaluated meanwhile, on held-out data. There
    is none of a number that was never logged.
    """
    pictures = {}
    for file, (name, label) in CURVES.items():
        lines = {
            title: [(log["step"], log[key]) for log in history if key in log]
            for title, key in (("training", name), ("held out", f"eval_{name}"))
        }
        if any(lines.values()):
            pictures[file] = _picture(lines, label)
    return pictures


def _picture(lines: Mapping[str, Sequence[tuple[int, float]]], label: str) -> bytes:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="optimiser step", ylabel=label)
    for title, points in lines.items():
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker=".", label=title)
    axes.grid(alpha=0.3)
    axes.legend()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()

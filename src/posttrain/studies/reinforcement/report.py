"""The reinforcement study for readers: a table and a figure."""

import pandas as pd
from matplotlib.figure import Figure

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.style import interval_line, panels
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.reinforcement.keys import Reward, Value

#: Marker of each reward.
REWARDS = {Reward.SINGLE: "o", Reward.MINIMUM: "v", Reward.VARIANCE: "^"}


def change_table(record: Record) -> pd.DataFrame:
    """What changes from the first steps to the last, by reward and penalty."""
    changes = record.tables["changes"]
    rows = {}
    for reward, penalty in changes[["reward", "penalty"]].drop_duplicates().itertuples(index=False):
        rows[reward, f"{penalty:g}"] = {
            str(value): with_interval(
                estimate(changes, reward=reward, penalty=penalty, value=value), scale=1, digits=2
            )
            for value in Value
        }
    return labelled(rows, ["maximised", "penalty"])


def paths(record: Record) -> Figure:
    """Score and gold in each step, by reward; with a penalty dashed."""
    table = record.tables["paths"]
    figure, axes = panels(["what the reward says", "what it is worth (gold)"])
    for axis, value in zip(axes, (Value.SCORE, Value.GOLD), strict=True):
        here = table[table["value"] == value]
        for place, (reward, marker) in enumerate(REWARDS.items()):
            for penalty in sorted(set(here["penalty"])):
                part = here[(here["reward"] == reward) & (here["penalty"] == penalty)]
                part = part[part["step"] % 3 == 0]
                label = str(reward) + (f", penalty {penalty:g}" if penalty else "")
                interval_line(
                    axis, part["step"], part, scale=1, colour=f"C{place}", marker=marker, ms=3,
                    ls="--" if penalty else "-", label=label,
                )  # fmt: skip
        axis.set_xlabel("step")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure

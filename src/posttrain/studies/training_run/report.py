"""Training runs for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.studies.training_run.theory import expectations


def expectations_table(**settings: int) -> pd.DataFrame:
    """:func:`.training_run.theory.expectations` with rounded numbers."""
    table = expectations(**settings)
    gpus = table["GPUs"].astype("string").fillna("–")
    memory = ["weights and optimiser", "activations"]
    shown = table.assign(**{f"{name}, GB": table[name].round(1) for name in memory}, GPUs=gpus)
    hours = table["GPU hours"].map(lambda value: f"{value:.2f}" if value < 1 else f"{value:.0f}")
    columns = ["model", "trained", *(f"{name}, GB" for name in memory), "GPUs", "GPU hours"]
    return shown.assign(**{"GPU hours": hours})[columns].set_index(["model", "trained"])

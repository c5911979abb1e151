"""Sentences of the chapter on training your own, composed from records."""

import math

from posttrain.evidence.records import Record
from posttrain.studies.common.cost import SHAPES
from posttrain.studies.training_run.theory import linear_parameters


def conditions(record: Record) -> str:
    """What was trained on what, with which recipe and for how long, in a few sentences."""
    run, recipe, data = (
        record.settings["run"],
        record.settings["training"],
        record.data,
    )
    groups = record.tables["groups"]
    unit = "pairs" if recipe.get("pairs_per_step") else "groups"
    steps, size, count = data["steps"], recipe[f"{unit}_per_step"], data["training"][unit]
    # An epoch's last step takes what is left; where units are merged, steps are of `size` about.
    epochs, more = divmod(steps, math.ceil(count / size))
    passes = epochs + more * size / count
    filter_ = f" of strength {run['min_strength']} and more" if run["min_strength"] > 1 else ""
    layers = f", the last {run['top_layers']} layers and the head" if run["top_layers"] else ""
    minutes = record.environment["seconds"] / 60
    return (
        f"`{run['model']}`{layers}, on `{', '.join(run['data'])}`: {passes:.2g} "
        f"{'pass' if passes <= 1 else 'passes'} over {data['training']['pairs']:,} pairs{filter_}, "
        f"in {steps} steps of {size} {unit}, peak learning rate {recipe['learning_rate']:g}, "
        f"{minutes:.0f} minutes on a {record.environment['device']} with "
        f"{record.environment['threads']} threads, the final evaluation included. "
        f"It is judged on {groups['pairs'].sum():,} pairs of {len(groups)} groups that it never "
        "saw, so the intervals, a bootstrap over groups, are rough."
    )


def speed(record: Record) -> str:
    """How fast a run of ``smollm2`` computed, and what all layers would take, in two sentences.

    The operations of a token: two a linear weight forward, and four backward for trained layers.
    """
    config = SHAPES["SmolLM2-135M"]
    linear = linear_parameters(config)
    share = (record.settings["run"]["top_layers"] or 30) / config.num_hidden_layers
    operations = 2 * linear * (1 + 2 * share)
    history = record.tables["history"]
    if history.empty:
        return "The run logged nothing, so how fast it computed is not known."
    tokens = history["tokens_per_second"].median()
    return (
        f"The run computed {tokens:,.0f} tokens a second (median of its logs), or "
        f"{tokens * operations / 1e9:,.0f} billion floating-point operations, attention aside. "
        f"Training all layers would take {6 * linear / operations:.1f} times as many."
    )

"""What ``posttrain train`` says of its data before it starts, and of the model at its end."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.commands.terminal import print_table
from posttrain.evaluation.report import figures, no_better_than_length

#: Further files of a run, and what is in them.
WRITTEN = {
    "README.md": "the model's card",
    "run.json": "every setting, the data and this evaluation",
    "trainer_state.json": "everything that was logged",
    "loss.png": "the loss by step",
    "accuracy.png": "the accuracy by step",
}


def in_words(counts: Mapping[str, Any]) -> str:
    """One line about the data of a run (see :class:`.training_data.TrainingData`).

    >>> training = {"groups": 900, "pairs": 1200, "groups that are too long": 7}
    >>> in_words({"read": {"bad records": 2}, "training": training})
    '900 groups with 1,200 pairs to train on; 2 bad records; 7 groups that are too long'
    """
    training, evaluation = counts["training"], counts.get("evaluation")
    parts = [f"{training['groups']:,} groups with {training['pairs']:,} pairs to train on"]
    if evaluation:
        parts.append(f"{evaluation['groups']:,} with {evaluation['pairs']:,} held out")
    parts += [f"{count:,} {what}" for what, count in counts["read"].items()]
    parts += [
        f"{count:,} {what}" for what, count in training.items() if what not in ("groups", "pairs")
    ]
    return "; ".join(parts)


def show_run(account: Mapping[str, Any], folder: str) -> None:
    """Print how good a model is, what became of its data, and where everything was written."""
    found = account["evaluation"]
    print()
    if "by_pair" in found:
        show_evaluation(found)
    elif found:
        rows = [(name.removeprefix("eval_"), f"{value:.4g}") for name, value in found.items()]
        print_table(("held out", "value"), rows)
    else:
        print("No data were held out, so nobody knows how good the model is.")
    if account["data"].get("evaluation", {}).get("trimmed prompts"):
        print(
            "\nHere prompts that are too long are cut for each response, as posttrain score does, "
            "and while\ntraining alike for all responses of a group, so the lines above differ."
        )
    print()
    show_counts(account["data"])
    print()
    seconds = account["environment"]["seconds"]
    print(f"{account['steps']:,} steps in {datetime.timedelta(seconds=round(seconds))}, all told")
    if account["best_step"]:
        print(
            f"The model is that of step {account['best_step']:,}. The held-out data chose it, so "
            "it looks a little better on them than it is."
        )
    print()
    written = [(name, what) for name, what in WRITTEN.items() if (Path(folder) / name).exists()]
    print_table((f"written to {folder}", ""), [("the model and its tokenizer", ""), *written])


def show_evaluation(found: Mapping[str, Any]) -> None:
    """Print a report of :func:`.evaluation.report.report`, and a warning if length does as well."""
    head = (f"{found['pairs']:,} held-out pairs of {found['groups']:,} groups", "95 % interval")
    print_table(head, figures(found))
    left_out = found.get("left_out")
    if left_out:
        print()
        print_table(
            ("read otherwise or left out", ""), [(w, f"{n:,}") for w, n in left_out.items()]
        )
    warning = no_better_than_length(found)
    if warning is not None:
        print(f"\nWARNING: the model is {warning}.")


def show_counts(data: Mapping[str, Any]) -> None:
    """Print what was read, cut and left out of the data of a run."""
    parts = [name for name in ("training", "evaluation") if name in data]
    names = dict.fromkeys(name for part in parts for name in data[part])
    rows = [
        (name, *(f"{data[part][name]:,}" if name in data[part] else "" for part in parts))
        for name in names
    ]
    rows += [
        (f"{what}, left out while reading", f"{count:,}", *[""] * (len(parts) - 1))
        for what, count in data["read"].items()
    ]
    print_table(("data", *parts), rows)

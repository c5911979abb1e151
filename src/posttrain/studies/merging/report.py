"""The merging study for readers: formatted numbers, and what they say in words."""

from collections.abc import Sequence

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import listing, title, with_interval
from posttrain.studies.common.tables import labelled, rates_tried
from posttrain.studies.merging.keys import Cost, Way


def outcome_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy, log-likelihood and costs of a training, by source, passes and way."""
    rows = {}
    for record in records:
        costs = record.tables["costs"].set_index(["way", "passes", "cost"])["mean"]
        for passes in sorted(set(record.tables["metrics"]["passes"])):
            for way in Way:
                place = {"way": str(way), "passes": passes}
                accuracy, likelihood = (
                    with_interval(
                        estimate(record.tables["metrics"], **place, metric=str(metric)),
                        scale=scale,
                        digits=digits,
                        sign=False,
                    )
                    for metric, scale, digits in (
                        (Metric.ACCURACY, 100, 1), (Metric.LOG_LIKELIHOOD, 1, 3),
                    )
                )  # fmt: skip
                rows[title(record), passes, str(way)] = {
                    "accuracy (%)": accuracy,
                    "log-likelihood": likelihood,
                    "tokens computed": f"{costs[way, passes, Cost.TOKENS]:,.0f}",
                    "seconds": f"{costs[way, passes, Cost.SECONDS]:,.0f}",
                    "steps": f"{costs[way, passes, Cost.STEPS]:,.0f}",
                }
    return labelled(rows, ["source", "passes", "trained on"])


def gain_table(records: Sequence[Record]) -> pd.DataFrame:
    """Merged minus pairs one by one, paired, by source and passes."""
    rows = {}
    for record in records:
        gains = record.tables["gains"]
        for passes in sorted(set(gains["passes"])):
            rows[title(record), passes] = {
                name: with_interval(
                    estimate(gains, passes=passes, metric=str(metric)),
                    scale=scale,
                    digits=digits,
                )
                for name, metric, scale, digits in (
                    ("accuracy (points)", Metric.ACCURACY, 100, 1),
                    ("log-likelihood", Metric.LOG_LIKELIHOOD, 1, 3),
                )
            }
    return labelled(rows, ["source", "passes"])


def tuning_table(records: Sequence[Record]) -> pd.DataFrame:
    """Validation log-likelihood by learning rate, by source, passes and way; the best is starred.

    Records with one learning rate tuned nothing and are left out.
    """
    rows = {}
    tuned = [record for record in records if len(record.settings["learning_rates"]) > 1]
    for record in tuned:
        for (passes, way), part in record.tables["tuning"].groupby(["passes", "way"]):
            rows[title(record), passes, way] = {
                f"{rate:g}": f"{value:.3f}{'*' if chosen else ''}"
                for rate, value, chosen in zip(
                    part["learning rate"], part[Metric.LOG_LIKELIHOOD], part["chosen"], strict=True
                )
            }
    return labelled(rows, ["source", "passes", "trained on"], rates_tried(tuned))


def edges_in_words(records: Sequence[Record]) -> str:
    """Which arms chose the lowest or highest learning rate, where a wider grid might do better."""
    found = []
    for record in records:
        rates = record.settings["learning_rates"]
        table = record.tables["tuning"]
        for end, name in ((min(rates), "lowest"), (max(rates), "highest")):
            arms = table[table["chosen"] & (table["learning rate"] == end)]
            if len(rates) > 1 and len(arms):
                told = [f"{way} ({n})" for way, n in zip(arms["way"], arms["passes"], strict=True)]
                found.append(f"on `{record.label}` {listing(told)} took the {name}")
    if not found:
        return "No best learning rate lies at an end of its grid."
    return (
        f"Of the learning rates tried, {listing(found)} (passes in brackets); a wider grid might "
        "serve these better."
    )


def in_words(records: Sequence[Record]) -> str:
    """What merging saves and what it changes after the fewest and most passes, by source."""
    told = []
    for record in records:
        costs = record.tables["costs"].set_index(["way", "passes", "cost"])["mean"]
        gains, lost = record.tables["gains"], record.tables["overfitting"]
        numbers = sorted(set(gains["passes"]))
        fewer = costs[Way.PAIRS, numbers[0], Cost.TOKENS]
        fewer /= costs[Way.MERGED, numbers[0], Cost.TOKENS]
        changes = [
            f"after {passes} {'pass' if passes == 1 else 'passes'} accuracy changes by "
            f"{_change(gains, Metric.ACCURACY, passes=passes)} points and log-likelihood by "
            f"{_change(gains, Metric.LOG_LIKELIHOOD, passes=passes)}"
            for passes in numbers
        ]
        text = f"- {title(record)}: merged groups compute {fewer:.1f} times fewer tokens; "
        text += "; ".join(changes)
        if len(numbers) > 1:
            by_way = [_change(lost, Metric.LOG_LIKELIHOOD, way=str(way)) for way in Way]
            text += (
                f". From {numbers[0]} to {numbers[-1]} passes the log-likelihood of pairs one by "
                f"one changes by {by_way[0]}, that of merged groups by {by_way[1]}"
            )
        told.append(text + ".")
    return "\n".join(told)


def _change(table: pd.DataFrame, metric: Metric, **where: object) -> str:
    scale, digits = (100, 1) if metric == Metric.ACCURACY else (1, 3)
    return with_interval(estimate(table, metric=str(metric), **where), scale=scale, digits=digits)

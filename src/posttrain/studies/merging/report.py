"""The merging study for readers: formatted numbers, and what they say in words."""

from collections.abc import Sequence

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import title, with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.merging.keys import Cost, Way


def outcome_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy, log-likelihood and tokens computed, by source, passes and way."""
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


def in_words(records: Sequence[Record]) -> str:
    """What merging saves and what it changes after one pass, a sentence a source."""
    told = []
    for record in records:
        costs = record.tables["costs"].set_index(["way", "passes", "cost"])["mean"]
        passes = min(record.tables["gains"]["passes"])
        fewer = costs[Way.PAIRS, passes, Cost.TOKENS] / costs[Way.MERGED, passes, Cost.TOKENS]
        gains = record.tables["gains"]
        accuracy = estimate(gains, passes=passes, metric=str(Metric.ACCURACY))
        likelihood = estimate(gains, passes=passes, metric=str(Metric.LOG_LIKELIHOOD))
        told.append(
            f"{title(record)}: merged groups compute {fewer:.1f} times fewer tokens; accuracy "
            f"changes by {with_interval(accuracy, digits=1)} points and "
            f"log-likelihood by {with_interval(likelihood, scale=1, digits=3)}."
        )
    return " ".join(told)

"""The merging study for readers: tables of formatted numbers."""

from collections.abc import Sequence

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import title, with_interval
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

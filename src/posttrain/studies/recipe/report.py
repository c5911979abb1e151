"""The recipe study for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.recipe.keys import Combined, Question


def _cells(record: Record, question: str) -> list[tuple[int, float]]:
    """Sizes and shares of pairs turned round that a question was asked of."""
    metrics = record.tables["metrics"]
    asked = metrics[metrics["question"] == question]
    return list(asked[["size", "noise"]].drop_duplicates().itertuples(index=False, name=None))


def arm_table(record: Record, question: str) -> pd.DataFrame:
    """Accuracy (%) of each arm of a question, and what it has more than the first (points)."""
    metrics, gains = record.tables["metrics"], record.tables["gains"]
    rows: dict[tuple, dict[str, str]] = {}
    for size, noise in _cells(record, question):
        where = {"question": question, "size": size, "noise": noise}
        here = metrics[
            (metrics["question"] == question)
            & (metrics["size"] == size)
            & (metrics["noise"] == noise)
        ]
        arms = list(dict.fromkeys(here["arm"]))
        head = f"{size:,} pairs" + (f", {noise:.0%} turned round" if noise else "")
        for arm in arms:
            accuracy = estimate(metrics, arm=arm, metric=Metric.ACCURACY, **where)
            row = {"accuracy (%)": with_interval(accuracy, sign=False)}
            for metric, name, scale, digits in (
                (Metric.ACCURACY, f"minus {arms[0]} (points)", 100, 1),
                (Metric.LOG_LIKELIHOOD, "log-likelihood (nats)", 1, 3),
            ):
                row[name] = "–"
                if arm != arms[0]:
                    gap = estimate(gains, arm=arm, reference=arms[0], metric=metric, **where)
                    row[name] = with_interval(gap, scale=scale, digits=digits)
            rows[head, arm] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["trained on", ""])


def average_table(record: Record) -> pd.DataFrame:
    """What averages of weights have more than what else can be made of the models (points)."""
    gains = record.tables["gains"]
    gains = gains[(gains["question"] == Question.AVERAGE) & (gains["metric"] == Metric.ACCURACY)]
    singles = gains.groupby(["size", "noise"])["reference"].transform("first")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in gains[gains["reference"] != singles].to_dict("records"):
        column = f"{row['noise']:.0%} turned round" if row["noise"] else "as annotated"
        interval = row["estimate"], row["low"], row["high"]
        rows.setdefault((row["arm"], row["reference"]), {})[column] = with_interval(interval)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["", "minus"])


def noise_table(record: Record) -> pd.DataFrame:
    """What pairs turned round add to the gain of averaging, in accuracy and in log-likelihood."""
    added, gains = record.tables["noise"], record.tables["gains"]
    rows = {}
    for reference in (Combined.SINGLE, Combined.ENSEMBLE_8):
        for metric, scale, digits in ((Metric.ACCURACY, 100, 1), (Metric.LOG_LIKELIHOOD, 1, 3)):
            where = {"arm": Combined.AVERAGE_8, "reference": reference, "metric": metric}
            cells = {}
            for noise in sorted(set(added["noise"]) | {0.0}):
                name = f"{noise:.0%} turned round" if noise else "as annotated"
                gap = estimate(gains, question=Question.AVERAGE, noise=noise, **where)
                cells[name] = with_interval(gap, scale=scale, digits=digits)
            change = estimate(added, **where)
            cells["change"] = with_interval(change, scale=scale, digits=digits)
            unit = "points" if metric == Metric.ACCURACY else "nats"
            rows[f"minus {reference}", f"{metric} ({unit})"] = cells
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["average of 8", ""])

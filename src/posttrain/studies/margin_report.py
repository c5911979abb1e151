"""The margin study for readers: its answer in words, and tables of formatted numbers.

Everything is read from run records, so that the chapter's prose changes when the results do.
"""

from collections.abc import Sequence

import pandas as pd

from posttrain.records import Record
from posttrain.studies.margin_claims import MARGIN_CLAIMS, estimate, largest_size
from posttrain.studies.margin_outcome import LOSSES
from posttrain.studies.report import PERCENT, listing, ordered, title, with_interval


def _gain(record: Record, loss: str, tuning: str, size: int, metric: str = "accuracy") -> str:
    found = estimate(record.tables["gains"], tuning=tuning, loss=loss, size=size, metric=metric)
    if metric.startswith("accuracy"):
        return with_interval(found)
    return with_interval(found, scale=1, digits=3)


def answer(records: Sequence[Record]) -> str:
    """The chapter's answer in three sentences of Markdown, from recorded results.

    Raises:
        ValueError: If there is no record.
    """
    claim = next(claim for claim in MARGIN_CLAIMS if claim.key == "harmless-to-drop")
    status, evidence = claim.judge(ordered(records))
    ruled_out = sum(item.status == "supported" for item in evidence)
    tuned = [
        f"{_gain(record, 'large', 'tuned', largest_size(record))} points at "
        f"{largest_size(record):,} pairs of `{record.source}`"
        for record in ordered(records)
    ]
    first = ordered(records)[0]
    shared = [
        estimate(
            first.tables["gains"], tuning="shared", loss="large", metric="accuracy", size=size
        )[0]
        for size in first.settings["sizes"]
    ]
    span = " to ".join(
        f"{value * PERCENT:+.1f}".replace("-", "−")
        # Once where there is a single size.
        for value in dict.fromkeys((min(shared), max(shared)))
    )
    costs = [
        _gain(record, "large", "tuned", largest_size(record), "log-likelihood")
        for record in ordered(records)
    ]
    verdict = {
        "supported": f"no run shows that dropping it costs half a point; {ruled_out} of "
        f"{len(evidence)} rule it out",
        "not supported": "dropping it costs accuracy in these runs",
        "inconclusive": "these runs cannot rule out that dropping it costs half a point",
    }[status]
    return (
        f"**Once every arm has hyperparameters of its own, Llama 2's large margin is worth "
        f"{listing(tuned)} (accuracy, 95 % intervals): {verdict}.** "
        f"With one weak penalty shared by all arms it looks worth more, {span} points over the "
        f"data sizes of `{first.source}`. At the largest sizes it changes held-out "
        f"log-likelihood per pair by {listing(costs)} nats, in the same order. Per "
        f"tenfold data the accuracy gain on `{first.source}` changes by "
        f"{_trend(first, 'shared')} points with the shared setting and by "
        f"{_trend(first, 'tuned')} with tuned ones."
    )


def _trend(record: Record, tuning: str) -> str:
    table = record.tables["trends"]
    return with_interval(estimate(table, tuning=tuning, loss="large", metric="accuracy"))


def gain_table(record: Record, metric: str = "accuracy") -> pd.DataFrame:
    """Gains over the arm without margin: one row a loss and tuning, one column a size."""
    sizes = record.settings["sizes"]
    rows = [
        [loss, tuning, *(_gain(record, loss, tuning, size, metric) for size in sizes)]
        for loss in LOSSES[1:]
        for tuning in ("shared", "tuned")
    ]
    columns = ["loss", "hyperparameter", *(f"{size:,} pairs" for size in sizes)]
    return pd.DataFrame(rows, columns=columns).set_index(["loss", "hyperparameter"])


def accuracy_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) on all pairs, trained on all: one row a loss and tuning, one column a size."""
    sizes = record.settings["sizes"]
    metrics = record.tables["metrics"]
    rows = []
    for loss in LOSSES:
        for tuning in ("shared", "tuned"):
            found = [
                estimate(metrics, tuning=tuning, loss=loss, metric="accuracy", size=size)
                for size in sizes
            ]
            rows.append([loss, tuning, *(with_interval(values, sign=False) for values in found)])
    columns = ["loss", "hyperparameter", *(f"{size:,} pairs" for size in sizes)]
    return pd.DataFrame(rows, columns=columns).set_index(["loss", "hyperparameter"])


def chosen_table(records: Sequence[Record]) -> pd.DataFrame:
    """Tuned hyperparameters (geometric mean over seeds and folds), by source, size and loss."""
    parts = []
    for record in ordered(records):
        chosen = record.tables["chosen"]
        chosen = chosen[~chosen["filtered"].astype(bool)]
        name = next(column for column in ("penalty", "learning rate") if column in chosen)
        wide = chosen.pivot_table(index="size", columns="loss", values=name)[list(LOSSES)]
        wide.index = pd.MultiIndex.from_tuples(
            [(record.source, name, f"{size:,}") for size in wide.index],
            names=["source", "hyperparameter", "pairs"],
        )
        parts.append(wide.map(lambda value: f"{value:.2g}"))
    return pd.concat(parts)


def strength_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) by strength at the largest size, tuned, with the baselines."""
    size, rows = largest_size(record), []
    names = {"accuracy": "all", "accuracy 1": "negligibly", "accuracy 2": "slightly",
             "accuracy 3": "better", "accuracy 4": "significantly"}  # fmt: skip
    for loss in LOSSES:
        rows.append(
            [f"margin {loss}" if loss != "scaled" else "scaled loss"]
            + [
                with_interval(
                    estimate(record.tables["metrics"], loss=loss, metric=metric, size=size),
                    sign=False,
                )
                for metric in names
            ]
        )
    for name, part in record.tables["baselines"].groupby("baseline"):
        cells = part.set_index("metric").loc[list(names)]
        rows.append(
            [str(name)]
            + [
                with_interval((row.estimate, row.low, row.high), sign=False)
                for row in cells.itertuples()
            ]
        )
    return pd.DataFrame(rows, columns=["", *names.values()]).set_index("")


def score_table(record: Record) -> pd.DataFrame:
    """What each loss does to scores at the largest size, tuned: metrics that are no accuracies."""
    size = largest_size(record)
    columns = ("log-likelihood", "calibration error", "spread", "bimodality", "ties")
    rows = [
        [
            with_interval(
                estimate(record.tables["metrics"], loss=loss, metric=metric, size=size),
                scale=1, digits=3, sign=False,
            )
            for metric in columns
        ]
        for loss in LOSSES
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(columns), index=pd.Index(LOSSES, name="loss"))


def filter_table(records: Sequence[Record]) -> pd.DataFrame:
    """What Llama 3's filter changes in accuracy (points), without margin, tuned, by size."""
    rows = []
    for record in ordered(records):
        for size in record.settings["sizes"]:
            cells = [
                with_interval(
                    estimate(
                        record.tables["filter"],
                        filtered=True, loss="none", metric=metric, size=size,
                    )
                )
                for metric in ("accuracy", "accuracy 1", "accuracy 4")
            ]  # fmt: skip
            rows.append([title(record), f"{size:,}", *cells])
    columns = ["source", "annotated pairs", "all test pairs", "negligibly", "significantly"]
    return pd.DataFrame(rows, columns=columns).set_index(["source", "annotated pairs"])


def closed_distance(records: Sequence[Record], tuning: str = "tuned") -> pd.DataFrame:
    """How much of the way from chance to the reachable accuracy is closed without margin (%).

    One row a record and size. Human data has no row: nobody knows what is reachable there.
    """
    rows = []
    for record in ordered(records):
        baselines = record.tables["baselines"]
        known = (baselines["baseline"] == "reachable") & (baselines["metric"] == "accuracy")
        for ceiling in baselines.loc[known, "estimate"]:
            for size in record.settings["sizes"]:
                found = estimate(
                    record.tables["metrics"],
                    tuning=tuning, loss="none", metric="accuracy", size=size,
                )  # fmt: skip
                value, low, high = ((accuracy - 0.5) / (ceiling - 0.5) for accuracy in found)
                rows.append(
                    (
                        record.source,
                        f"{size:,}",
                        with_interval(found, sign=False),
                        f"{ceiling * PERCENT:.1f}",
                        with_interval((value, low, high), sign=False, digits=0),
                    )
                )
    columns = ["source", "pairs", "accuracy (%)", "reachable (%)", "distance closed (%)"]
    return pd.DataFrame(rows, columns=columns).set_index(["source", "pairs"])

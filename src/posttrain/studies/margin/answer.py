"""The first lines of the chapter on the margin, composed from records."""

from collections.abc import Sequence

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, listing, ordered, with_interval
from posttrain.studies.common.keys import Tuning
from posttrain.studies.margin.claims import CLAIMS, estimate, largest_size
from posttrain.studies.margin.keys import Loss
from posttrain.studies.margin.report import _gain


def answer(records: Sequence[Record]) -> str:
    """The chapter's answer in three sentences of Markdown, from recorded results."""
    claim = next(claim for claim in CLAIMS if claim.key == "harmless-to-drop")
    status, evidence = claim.judge(ordered(records))
    ruled_out = sum(item.status == "supported" for item in evidence)
    tuned = [
        f"{_gain(record, Loss.LARGE, Tuning.TUNED, largest_size(record))} points at "
        f"{largest_size(record):,} pairs of `{record.label}`"
        for record in ordered(records)
    ]
    first = ordered(records)[0]
    shared = [
        estimate(
            first.tables["gains"],
            tuning=Tuning.SHARED,
            loss=Loss.LARGE,
            metric=Metric.ACCURACY,
            size=size,
        )[0]
        for size in first.settings["sizes"]
    ]
    span = " to ".join(
        f"{value * PERCENT:+.1f}".replace("-", "−")
        # Once where there is a single size.
        for value in dict.fromkeys((min(shared), max(shared)))
    )
    costs = [
        _gain(record, Loss.LARGE, Tuning.TUNED, largest_size(record), Metric.LOG_LIKELIHOOD)
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
        f"data sizes of `{first.label}`. At the largest sizes it changes held-out "
        f"log-likelihood per pair by {listing(costs)} nats, in the same order. Per "
        f"tenfold data the accuracy gain on `{first.label}` changes by "
        f"{_trend(first, Tuning.SHARED)} points with the shared setting and by "
        f"{_trend(first, Tuning.TUNED)} with tuned ones."
    )


def _trend(record: Record, tuning: str) -> str:
    table = record.tables["trends"]
    return with_interval(estimate(table, tuning=tuning, loss=Loss.LARGE, metric=Metric.ACCURACY))

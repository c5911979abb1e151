"""The claims about the margin, each with its source and the test that judges it."""

import math
from collections.abc import Callable

import pandas as pd

from posttrain.evidence import claims
from posttrain.evidence.claims import Claim, Evidence
from posttrain.evidence.records import Record

#: The papers' own effects on accuracy: Llama 2's Table 28, on average and on strength 4 minus
#: strength 1, and HelpSteer2-Preference on RewardBench.
LARGE_MARGIN, SMALL_MARGIN, STRENGTH_STEP, SCALED_LOSS = 0.004, 0.005, 0.018, 0.012
#: The loss of accuracy by dropping the margin that would matter: half a percentage point.
HALF_A_POINT = 0.005


def estimate(
    table: pd.DataFrame, *, tuning: str = "tuned", filtered: bool = False, **where: object
) -> tuple[float, float, float]:
    """As :func:`.evidence.claims.estimate`, by default of arms tuned and trained on all pairs."""
    return claims.estimate(table, tuning=tuning, filtered=filtered, **where)


def largest_size(record: Record) -> int:
    """The most training pairs of a record of the margin study."""
    return int(record.tables["metrics"]["size"].max())


def _gain(loss: str, metric: str = "accuracy", *, smallest: float) -> Callable[[Record], Evidence]:
    """Evidence that a loss improves a metric at the largest size, each arm tuned."""

    def test(record: Record) -> Evidence:
        size = largest_size(record)
        found = estimate(record.tables["gains"], loss=loss, metric=metric, size=size)
        return Evidence(record.name, *found, smallest)

    return test


def _diminishing(record: Record) -> Evidence:
    """Fall of the large margin's accuracy gain per tenfold data, each arm tuned.

    Where the smallest size shows a gain, losing less than half of it up to the largest size speaks
    against the claim. Where it shows none, nothing can diminish, and no effect is small enough.
    """
    value, low, high = estimate(record.tables["trends"], loss="large", metric="accuracy")
    sizes = record.tables["metrics"]["size"]
    gains = record.tables["gains"]
    start, start_low, _ = estimate(gains, loss="large", metric="accuracy", size=sizes.min())
    smallest = -math.inf
    if start_low > 0 and sizes.max() > sizes.min():
        smallest = start / (2 * math.log10(sizes.max() / sizes.min()))
    return Evidence(record.name, -value, -high, -low, smallest)


def _bimodal(record: Record) -> Evidence:
    size = largest_size(record)
    found = estimate(record.tables["gains"], loss="large", metric="bimodality", size=size)
    return Evidence(record.name, *found, 0.02)


def _cost(record: Record) -> Evidence:
    """Minus the log-likelihood gain of the large margin: positive where the margin costs."""
    size = largest_size(record)
    value, low, high = estimate(
        record.tables["gains"], loss="large", metric="log-likelihood", size=size
    )
    return Evidence(record.name, -value, -high, -low, 0.005)


def _harmless_to_drop(record: Record) -> Evidence:
    """Half a point minus the large margin's gain: positive where dropping it costs less."""
    size = largest_size(record)
    value, low, high = estimate(record.tables["gains"], loss="large", metric="accuracy", size=size)
    room = (HALF_A_POINT - value, HALF_A_POINT - high, HALF_A_POINT - low)
    return Evidence(record.name, *room, 0.0, measured=(value, low, high))


def _rises_with_strength(record: Record) -> Evidence:
    size = largest_size(record)
    found = estimate(record.tables["steps"], loss="none", metric="accuracy 4 - 1", size=size)
    return Evidence(record.name, *found, 0.05)


def _gains_most_where_decided(record: Record) -> Evidence:
    size = largest_size(record)
    found = estimate(record.tables["steps"], loss="large", metric="gain 4 - 1", size=size)
    return Evidence(record.name, *found, STRENGTH_STEP)


MARGIN_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "rises-with-strength",
        "Llama 2, Table 28",
        "A reward model agrees with annotators more often the stronger the preference is.",
        "54.5 % (negligibly) to 79.1 % (significantly)",
        "accuracy on strength 4 minus accuracy on strength 1, no margin, tuned",
        "margin",
        _rises_with_strength,
    ),
    Claim(
        "large-margin-helps",
        "Llama 2, Table 28",
        "A large margin by strength improves accuracy on average.",
        "+0.4 points",
        "accuracy with the large margin minus without, each tuned, most data",
        "margin",
        _gain("large", smallest=LARGE_MARGIN),
    ),
    Claim(
        "small-margin-helps",
        "Llama 2, Table 28",
        "A small margin by strength improves accuracy on average.",
        "+0.5 points",
        "accuracy with the small margin minus without, each tuned, most data",
        "margin",
        _gain("small", smallest=SMALL_MARGIN),
    ),
    Claim(
        "gains-where-decided",
        "Llama 2, Table 28",
        "The large margin helps significantly better pairs more than negligible ones.",
        "+1.6 points (significantly), −0.2 (negligibly)",
        "the large margin's gain on strength 4 minus its gain on strength 1, each tuned",
        "margin",
        _gains_most_where_decided,
    ),
    Claim(
        "bimodal",
        "Llama 2, Figure 27",
        "A margin makes the distribution of scores more bimodal.",
        "shown as a figure",
        "Sarle's bimodality of the scores, large margin minus none, each tuned",
        "margin",
        _bimodal,
        unit="plain",
    ),
    Claim(
        "diminishing",
        "Llama 3, section 4.1.2",
        "The margin's improvement diminishes as data grows.",
        "no number given",
        "fall of the large margin's accuracy gain per tenfold data, each arm tuned",
        "margin",
        _diminishing,
    ),
    Claim(
        "harmless-to-drop",
        "inferred from Llama 3, section 4.1.2",
        "With enough data, training without the margin loses nothing that matters.",
        "no number given",
        "the large margin's accuracy gain, each tuned, most data; supported below half a point",
        "margin",
        _harmless_to_drop,
        ours=True,
    ),
    Claim(
        "costs-likelihood",
        "derived in this book",
        "A margin worsens the probability that the scores give to held-out preferences.",
        "no number given",
        "log-likelihood without margin minus with the large one, each tuned, most data",
        "margin",
        _cost,
        ours=True,
        unit="plain",
    ),
    Claim(
        "scaled-helps",
        "HelpSteer2-Preference, scaled Bradley–Terry",
        "Multiplying a pair's loss by its strength improves accuracy.",
        "92.7 against 91.5 on RewardBench",
        "accuracy with the scaled loss minus the plain one, each tuned, most data",
        "margin",
        _gain("scaled", smallest=SCALED_LOSS),
    ),
)

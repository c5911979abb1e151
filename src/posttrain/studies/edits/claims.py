"""The claims about edited responses, each with its source and the test that judges it."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from posttrain.evidence import claims
from posttrain.evidence.claims import Claim, Evidence
from posttrain.evidence.records import Record
from posttrain.studies.edits.outcome import CONTRASTS, IGNORE
from posttrain.training.pairing import RATED

#: The gain of accuracy that would pay for an editor, and the loss that would matter: one point.
ONE_POINT = 0.01
#: The lead over chance below which edits are said not to score above what they edit.
FIVE_POINTS = 0.05


def estimate(
    table: pd.DataFrame, *, tuning: str = "tuned", metric: str = RATED, **where: object
) -> tuple[float, float, float]:
    """As :func:`.evidence.claims.estimate`, by default of tuned arms on chosen > rejected."""
    return claims.estimate(table, tuning=tuning, metric=metric, **where)


def most_data(record: Record) -> dict[str, Any]:
    """The largest size and share of edits of a record of the study of edits."""
    return {
        "size": int(record.tables["metrics"]["size"].max()),
        "share": float(record.tables["metrics"]["share"].max()),
    }


def _with_arms(*names: str) -> Callable[[Record], bool]:
    return lambda record: set(names) <= set(record.tables["metrics"]["arm"])


def _with_contrast(name: str) -> Callable[[Record], bool]:
    return _with_arms(*CONTRASTS[name])


def _gain(arm: str, metric: str, smallest: float) -> Callable[[Record], Evidence]:
    """Evidence that an arm gains over ignoring edits, with the most data."""

    def test(record: Record) -> Evidence:
        found = estimate(record.tables["gains"], arm=arm, metric=metric, **most_data(record))
        return Evidence(record.name, *found, smallest)

    return test


def _contrast(name: str) -> Callable[[Record], Evidence]:
    """Evidence that the first arm of a contrast ranks annotators' pairs better than the second."""

    def test(record: Record) -> Evidence:
        found = estimate(record.tables["contrasts"], contrast=name, **most_data(record))
        return Evidence(record.name, *found, ONE_POINT)

    return test


def _no_worse(name: str) -> Callable[[Record], Evidence]:
    """The difference plus a point: positive where the first arm loses less than that."""

    def test(record: Record) -> Evidence:
        found = estimate(record.tables["contrasts"], contrast=name, **most_data(record))
        value, low, high = (number + ONE_POINT for number in found)
        return Evidence(record.name, value, low, high, 0.0, measured=found)

    return test


def _alike(name: str) -> Callable[[Record], Evidence]:
    """Evidence that the two arms of a contrast are within a point of each other."""

    def test(record: Record) -> Evidence:
        found = estimate(record.tables["contrasts"], contrast=name, **most_data(record))
        return _within(record, found, ONE_POINT)

    return test


def _within(record: Record, found: tuple[float, float, float], bound: float) -> Evidence:
    """The bound minus the size of a difference: positive where its interval lies within."""
    value, low, high = found
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    farthest = max(abs(low), abs(high))
    return Evidence(
        record.name, bound - abs(value), bound - farthest, bound - nearest, 0.0, measured=found
    )


def _no_brevity(record: Record) -> Evidence:
    """Two points minus the shift towards shorter responses."""
    found = estimate(
        record.tables["gains"], arm="all pairs", metric="leans shorter", **most_data(record)
    )
    value, low, high = found
    bound = 2 * ONE_POINT
    return Evidence(record.name, bound - value, bound - high, bound - low, 0.0, measured=found)


def _better_than_chosen(record: Record) -> Evidence:
    """Accuracy on edited > chosen, less one half, of a model that was never shown an edit."""
    found = estimate(
        record.tables["metrics"], arm=IGNORE, metric="edited > chosen", **most_data(record)
    )
    value, low, high = (number - 0.5 for number in found)
    return Evidence(record.name, value, low, high, FIVE_POINTS)


def _diminishing(record: Record) -> Evidence:
    """Fall of the gain per tenfold data; says nothing where there is no gain to begin with."""
    share = most_data(record)["share"]
    value, low, high = estimate(record.tables["trends"], arm="all pairs", share=share)
    fall = (-value, -high, -low)
    smallest = int(record.tables["metrics"]["size"].min())
    start = estimate(record.tables["gains"], arm="all pairs", size=smallest, share=share)
    if start[1] <= 0:
        nothing = float("nan")
        return Evidence(record.name, nothing, nothing, nothing, 0.0, measured=fall)
    return Evidence(record.name, *fall, 0.0)


def _has_trend(record: Record) -> bool:
    """Whether there are several sizes, with as many edits for each group in all of them."""
    costs = record.tables["costs"]
    costs = costs[(costs["arm"] == "all pairs") & (costs["share"] == costs["share"].max())]
    dose = costs["edits"] / costs["size"]
    return len(dose) > 1 and dose.max() < 1.2 * dose.min()


LLAMA_3 = "Llama 3, section 4.1.2"
OURS = "derived in this book"
EDIT_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "edits-are-better",
        LLAMA_3,
        "A model trained without edits scores edited above chosen.",
        "edited > chosen > rejected, by construction",
        "accuracy on edited > chosen, less one half, edits ignored, tuned, most data",
        "edits",
        _better_than_chosen,
    ),
    Claim(
        "edits-help",
        f"inferred from {LLAMA_3}",
        "Training on edited responses as well ranks what annotators chose better.",
        "no number given",
        "accuracy on chosen > rejected, all pairs minus edits ignored, tuned, most data",
        "edits",
        _gain("all pairs", RATED, ONE_POINT),
        ours=True,
    ),
    Claim(
        "edits-teach-edits",
        f"inferred from {LLAMA_3}",
        "Training on edited responses as well ranks new edits above what they edit.",
        "no number given",
        "accuracy on edited > chosen, all pairs minus edits ignored, tuned, most data",
        "edits",
        _gain("all pairs", "edited > chosen", ONE_POINT),
        ours=True,
    ),
    Claim(
        "diminishing",
        OURS,
        "What edits add diminishes as data grows.",
        "no number given",
        "fall of the gain of all pairs on chosen > rejected per tenfold data, tuned; only where "
        "all sizes have as many edits a group; inconclusive without a gain at the smallest size",
        "edits",
        _diminishing,
        ours=True,
        applies=_has_trend,
    ),
    Claim(
        "worth-a-rating",
        OURS,
        "For annotators, one edit is worth more than one more comparison.",
        "no number given",
        "accuracy on chosen > rejected, all pairs minus one more pair for each edit, tuned, most "
        "data",
        "edits",
        _contrast("all pairs - one more pair"),
        ours=True,
    ),
    Claim(
        "worth-its-pairs",
        OURS,
        "The two pairs that an edit adds are worth two more comparisons.",
        "no number given",
        "accuracy on chosen > rejected, all pairs minus two more pairs for each edit, tuned, most "
        "data; supported above −1 point",
        "edits",
        _no_worse("all pairs - two more pairs"),
        ours=True,
    ),
    Claim(
        "plackett-luce-alike",
        OURS,
        "Plackett–Luce and the sum over all pairs train equally good models.",
        "no number given",
        "accuracy on chosen > rejected, Plackett–Luce minus all pairs, tuned, most data; "
        "supported within a point",
        "edits",
        _alike("Plackett-Luce - all pairs"),
        ours=True,
        applies=_with_contrast("Plackett-Luce - all pairs"),
    ),
    Claim(
        "weights-alike",
        OURS,
        "Weighting by prompt instead of by pair trains an equally good model.",
        "no number given",
        "accuracy on chosen > rejected, by prompt minus by pair, tuned, most data; supported "
        "within a point",
        "edits",
        _alike("by prompt - by pair"),
        ours=True,
        applies=_with_contrast("by prompt - by pair"),
    ),
    Claim(
        "near-pair-teaches",
        OURS,
        "Edited > chosen teaches more than edited > rejected.",
        "no number given",
        "accuracy on chosen > rejected, adding edited > chosen minus adding edited > rejected, "
        "tuned, most data",
        "edits",
        _contrast("adding edited > chosen - edited > rejected"),
        ours=True,
        applies=_with_contrast("adding edited > chosen - edited > rejected"),
    ),
    Claim(
        "close-edits-teach",
        OURS,
        "Edits close to the chosen response teach more than others.",
        "no number given",
        "accuracy on chosen > rejected, all pairs of the half of edits closest to the chosen "
        "response minus those of the other half, tuned, most data",
        "edits",
        _contrast("closest - farthest edits"),
        ours=True,
        applies=_with_contrast("closest - farthest edits"),
    ),
    Claim(
        "no-brevity",
        OURS,
        "Edits do not teach the model to prefer the shorter response.",
        "no number given",
        "half of the gain on chosen > rejected whose winner is the shorter less that of the "
        "others, all pairs minus edits ignored, tuned, most data; supported below two points",
        "edits",
        _no_brevity,
        ours=True,
    ),
)

"""The papers' claims, each with its source and the test that judges it.

A claim is judged on every run record that can speak to it. The test computes one quantity with a
95 % interval and compares it with a smallest effect that matters, so that a verdict of *not
supported* means more than a wide interval:

- *supported*: the interval lies beyond zero on the claimed side;
- *not supported*: the interval excludes an effect as large as ``smallest``, the paper's own effect
  where it gives one;
- *inconclusive*: neither.

Over several records a claim is *supported* if one supports it and none speaks against it, *not
supported* if one speaks against it and none supports it, and otherwise *inconclusive*.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from posttrain.records import Record

Status = Literal["supported", "not supported", "inconclusive"]

#: The papers' own effects on accuracy: Llama 2's Table 28, on average and on strength 4 minus
#: strength 1, and HelpSteer2-Preference on RewardBench.
LARGE_MARGIN, SMALL_MARGIN, STRENGTH_STEP, SCALED_LOSS = 0.004, 0.005, 0.018, 0.012
#: The loss of accuracy by dropping the margin that would matter: half a percentage point.
HALF_A_POINT = 0.005


@dataclass(frozen=True)
class Evidence:
    """What one record says about one claim.

    Attributes:
        record: Name of the record.
        estimate: The quantity, positive in the claimed direction.
        low: Lower end of its 95 % interval.
        high: Upper end.
        smallest: Smallest effect that matters.
    """

    record: str
    estimate: float
    low: float
    high: float
    smallest: float

    @property
    def status(self) -> Status:
        """What the interval says (see the module's docstring)."""
        if self.low > 0:
            return "supported"
        return "not supported" if self.high < self.smallest else "inconclusive"


@dataclass(frozen=True)
class Claim:
    """A claim and its test.

    Attributes:
        key: Short name.
        source: Paper and place.
        statement: What it says, paraphrased.
        paper: The paper's own numbers, or what takes their place.
        quantity: What the test measures, in words.
        study: Whose records can judge it.
        ours: Whether it is this book's own inference rather than a paper's statement.
        test: Evidence from one record.
    """

    key: str
    source: str
    statement: str
    paper: str
    quantity: str
    study: str
    test: Callable[[Record], Evidence]
    ours: bool = False

    def judge(self, records: Sequence[Record]) -> tuple[Status, list[Evidence]]:
        """Overall status, and the evidence of each record.

        Raises:
            ValueError: If no record belongs to the claim's study.
        """
        evidence = [self.test(record) for record in records if record.study == self.study]
        if not evidence:
            raise ValueError(f"no record of study {self.study!r} to judge claim {self.key!r} by")
        return combine([item.status for item in evidence]), evidence


def combine(statuses: Sequence[Status]) -> Status:
    """Status over several records; records that disagree leave a claim inconclusive."""
    decided = set(statuses) - {"inconclusive"}
    return decided.pop() if len(decided) == 1 else "inconclusive"


def estimate(
    table: pd.DataFrame, *, tuning: str = "tuned", filtered: bool = False, **where: object
) -> tuple[float, float, float]:
    """Estimate and interval of the one row of a tidy table that matches.

    Raises:
        ValueError: If not exactly one row matches.
    """
    wanted = {"tuning": tuning, "filtered": filtered, **where}
    matching = table
    for column, value in wanted.items():
        matching = matching[matching[column] == value]
    if len(matching) != 1:
        raise ValueError(f"expected one row with {wanted}, found {len(matching)}")
    row = matching.iloc[0]
    return float(row["estimate"]), float(row["low"]), float(row["high"])


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
    return Evidence(record.name, HALF_A_POINT - value, HALF_A_POINT - high, HALF_A_POINT - low, 0.0)


def _rises_with_strength(record: Record) -> Evidence:
    size = largest_size(record)
    found = estimate(record.tables["steps"], loss="none", metric="accuracy 4 − 1", size=size)
    return Evidence(record.name, *found, 0.05)


def _gains_most_where_decided(record: Record) -> Evidence:
    size = largest_size(record)
    found = estimate(record.tables["steps"], loss="large", metric="gain 4 − 1", size=size)
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
        "half a point minus the large margin's accuracy gain, each tuned, most data",
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

"""How often the longer response is the chosen one in a set of preference data.

Models are compared with length on their own test pairs, in ``evaluation/report.py`` and in each
study's outcome.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from posttrain.data.preferences import RankedGroup
from posttrain.evaluation.bootstrap import Resamples, interval
from posttrain.evaluation.metrics import STRATA, sufficient_statistics


def length_accuracy(groups: Sequence[RankedGroup], resamples: int) -> pd.DataFrame:
    """How often the longer response is the chosen one: the baseline of every accuracy.

    Length is in characters; a tie counts one half. Intervals, ``estimate``, ``low`` and ``high``,
    are by bootstrap over groups; ``strength`` is ``all``, or ``1`` to ``4`` where they occur.
    """
    numbers: dict[str, int] = {}
    members = np.array([numbers.setdefault(group.cluster_id, len(numbers)) for group in groups])
    sums = sufficient_statistics(
        np.array([len(group.chosen) for group in groups]),
        np.array([len(group.rejected) for group in groups]),
        np.array([group.strength or 0 for group in groups]),
        members,
        len(numbers),
    )
    measured = Resamples.draw(len(numbers), 1, count=resamples).measure(sums[None])
    rows = []
    for stratum in STRATA:
        name = "accuracy" if stratum == "all" else f"accuracy {stratum}"
        estimate, low, high = interval(measured[name])
        if not np.isnan(estimate):
            rows.append({"strength": stratum, "estimate": estimate, "low": low, "high": high})
    return pd.DataFrame(rows)

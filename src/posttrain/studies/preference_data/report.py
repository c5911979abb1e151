"""Tables of the chapter on preference data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from posttrain.data.preferences import STRENGTHS
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import SimulatedGroup, reachable_accuracy
from posttrain.evidence.records import Record

#: Edges between which pairs are counted together, in units of gold reward.
GAP_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, np.inf)


def agreement(groups: Sequence[SimulatedGroup]) -> pd.DataFrame:
    r"""How often annotators prefer the truly better response, by the size of the difference.

    Returns:
        One row for each bin of \|Δ\| that has pairs: ``gap`` (mean \|Δ\|), ``pairs``, the share
        that agreed as ``estimate`` with its 95 % Wilson interval ``low`` to ``high``, and the
        ``probability`` σ(\|Δ\|), averaged over the same pairs. Pairs with Δ = 0 have no better
        response and are left out.
    """
    # Costs are decimal fractions, whose floating-point sums must not fall off an edge.
    difference = np.round([group.difference for group in groups], 6)
    difference = difference[difference != 0]
    gap = np.abs(difference)
    place = np.searchsorted(GAP_EDGES, gap, side="right")
    rows = []
    for bin_ in np.unique(place):
        here = place == bin_
        count, pairs = int((difference[here] > 0).sum()), int(here.sum())
        bounds = binomtest(count, pairs).proportion_ci(method="wilson")
        chance = expit(gap[here]).mean()
        rows.append((gap[here].mean(), pairs, count / pairs, bounds.low, bounds.high, chance))
    columns = ["gap", "pairs", "estimate", "low", "high", "probability"]
    return pd.DataFrame(rows, columns=columns)


def by_strength(groups: Sequence[SimulatedGroup]) -> pd.DataFrame:
    """Best reachable accuracy at each strength beside what the gold reward reaches on these pairs.

    Columns ``pairs``, ``reachable`` and ``gold``, NaN where there are no pairs.
    """
    difference = np.array([group.difference for group in groups])
    reachable = reachable_accuracy(difference.tolist())
    agrees = (difference > 0) + (difference == 0) / 2
    strength = np.array([group.ranked.strength for group in groups])
    rows = {}
    for name in STRENGTHS:
        here = strength == name
        gold = agrees[here].mean() if here.any() else np.nan
        rows[name] = {"pairs": int(here.sum()), "reachable": reachable[str(name)], "gold": gold}
    return pd.DataFrame.from_dict(rows, orient="index")


def sets_table(records: Sequence[Record]) -> pd.DataFrame:
    """What people compared in each data set, how often, and what else they said."""
    rows = {}
    for record in records:
        held = record.tables["summary"].iloc[0]
        rows[record.source] = {
            "what people compared": ORIGINALS[record.source].description.partition(" (")[0],
            "pairs": f"{held['rows']:,}",
            "strength": "yes" if held["strength_none"] < held["rows"] else "–",
            "edited": f"{held['edited']:,}" if held["edited"] else "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")

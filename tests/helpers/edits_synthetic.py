"""Records of the study of edits with planted numbers."""

import itertools

import pandas as pd

from posttrain.evidence.records import Record
from posttrain.studies.edits.keys import GOLD, GOLD_RATED, ArmName
from posttrain.studies.edits.metrics import KINDS
from posttrain.studies.edits.outcome import ARMS, CONTRASTS

METRICS = (
    *KINDS, GOLD, GOLD_RATED, "leans shorter", "chosen > rejected, winner longer",
    "chosen > rejected, winner shorter",
)  # fmt: skip
SIZES, SHARES = (100, 1000), (0.25, 1.0)


def synthetic(everywhere, *, cell=None, planted=None, arms=tuple(ARMS), source="toy"):
    """A record whose tables hold ``everywhere`` in all rows but one, which holds ``planted``.

    Args:
        everywhere: Estimate, low and high.
        cell: Table, arm or contrast, metric: the planted row, tuned, with the most data.
        planted: Its estimate, low and high.
        arms: The arms that were run.
        source: Name of the source.
    """
    names = {
        "metrics": arms,
        "gains": [arm for arm in arms if arm != ArmName.IGNORE],
        "contrasts": [name for name, pair in CONTRASTS.items() if set(pair) <= set(arms)],
        "trends": [arm for arm in arms if arm != ArmName.IGNORE],
    }
    tables = {}
    for table, members in names.items():
        sizes = (None,) if table == "trends" else SIZES
        rows = []
        for name, size, share, tuning, metric in itertools.product(
            members, sizes, SHARES, ("tuned", "shared"), METRICS
        ):
            most = (size in (None, 1000), share, tuning) == (True, 1.0, "tuned")
            here = most and (table, name, metric) == cell
            rows.append((name, size, share, tuning, metric, *(planted if here else everywhere)))
        first = "contrast" if table == "contrasts" else "arm"
        columns = [first, "size", "share", "tuning", "metric", "estimate", "low", "high"]
        found = pd.DataFrame(rows, columns=columns)
        tables[table] = found.drop(columns="size") if table == "trends" else found
    tables["costs"] = pd.DataFrame(
        [
            (
                arm,
                size,
                share,
                0.5 * size,
                size + extra,
                size + 2 * extra,
                100.0 * size + 10 * extra,
            )
            for extra, arm in enumerate(arms)
            for size, share in itertools.product(SIZES, SHARES)
        ],
        columns=["arm", "size", "share", "edits", "decisions", "pairs", "tokens"],
    )
    tables["baselines"] = pd.DataFrame(
        [("longer", metric, *everywhere) for metric in METRICS],
        columns=["baseline", "metric", "estimate", "low", "high"],
    )
    settings = {"sizes": list(SIZES), "shares": list(SHARES), "seeds": 3}
    return Record("edits", source, "quick", settings, {}, tables)


FEW = (ArmName.IGNORE, "all pairs", "one more comparison", "two more comparisons")


def numbered(source="simulator", arms=tuple(ARMS), start=0):
    """A record in which every estimate is another number."""
    record = synthetic((0.0, 0.0, 0.0), arms=arms, source=source)
    for place, name in enumerate(("metrics", "gains", "contrasts", "baselines")):
        table = record.tables[name]
        values = 1e-3 * (start + 100 * place + pd.RangeIndex(len(table)))
        record.tables[name] = table.assign(estimate=values, low=values - 0.02, high=values + 0.02)
    return record

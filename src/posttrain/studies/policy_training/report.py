"""The policy training study for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.policy_training.keys import Measure, Question


def loss_table(record: Record) -> pd.DataFrame:
    """What each of DPO's losses makes of the policy, after the fewest and the most passes."""
    levels = record.tables["levels"]
    here = levels[levels["question"] == Question.LOSS]
    rows = {}
    # Those in between are in the figure.
    for passes in dict.fromkeys((here["passes"].min(), here["passes"].max())):
        for arm in dict.fromkeys(here["arm"]):
            where = {"arm": arm, "passes": passes}
            row = {
                str(measure): with_interval(
                    estimate(here, measure=measure, **where), scale=1, digits=2, sign=False
                )
                for measure in (
                    Measure.GOLD, Measure.DIVERGENCE, Measure.CHOSEN, Measure.REJECTED,
                )
            }  # fmt: skip
            ended = estimate(here, measure=Measure.ENDED, **where)
            row["ended well (%)"] = with_interval(ended, sign=False)
            rows[f"{passes}", arm] = row
    return labelled(rows, ["passes", ""])


def arm_table(record: Record, question: str) -> pd.DataFrame:
    """Gold of each arm of a question, and what it has more than the first."""
    levels, gains = record.tables["levels"], record.tables["gains"]
    here = levels[levels["question"] == question]
    first, *_ = dict.fromkeys(here["arm"])
    rows = {}
    for arm in dict.fromkeys(here["arm"]):
        where = {"question": question, "arm": arm, "measure": Measure.GOLD}
        gap = "–"
        if arm != first:
            gap = with_interval(estimate(gains, **where), scale=1, digits=2)
        level = with_interval(estimate(levels, **where), scale=1, digits=2, sign=False)
        rows[arm] = {"gold": level, f"minus {first}": gap}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("")

"""The rounds study for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.common.tables import labelled
from posttrain.studies.rounds.keys import Arm, Measure, Ranked


def last_table(record: Record) -> pd.DataFrame:
    """What each recipe's policy is after the last round, and its gold minus that of the first."""
    levels, gains = record.tables["levels"], record.tables["gains"]
    final = levels["round"].max()
    rows = {}
    for arm in dict.fromkeys(levels["arm"]):
        where = {"arm": arm, "round": final}
        row = {"gold": _number(levels, measure=Measure.GOLD, **where)}
        row[f"minus {Arm.LLAMA3}"] = (
            "–"
            if arm == Arm.LLAMA3
            else with_interval(estimate(gains, measure=Measure.GOLD, **where), scale=1, digits=2)
        )
        for measure in (Measure.DIVERGENCE, Measure.PRAISE, Measure.WORDS):
            row[str(measure)] = _number(levels, measure=measure, **where)
        ended = estimate(levels, measure=Measure.ENDED, **where)
        row["ended well (%)"] = with_interval(ended, sign=False)
        rows[arm] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"after round {final}")


def round_table(record: Record) -> pd.DataFrame:
    """Llama 3's recipe and the frozen reward model, round by round."""
    levels = record.tables["levels"]
    rows = {}
    for arm in (Arm.LLAMA3, Arm.FROZEN):
        if arm not in set(levels["arm"]):
            continue
        for number in sorted(set(levels["round"])):
            rows[str(arm), f"{number}"] = {
                str(measure): _number(levels, arm=arm, round=number, measure=measure)
                for measure in (Measure.GOLD, Measure.SCORE, Measure.DIVERGENCE, Measure.PRAISE)
            }
    return labelled(rows, ["", "round"])


def ranking_table(record: Record) -> pd.DataFrame:
    """Share (%) of answer pairs that each round's reward model ranks as gold does."""
    ranking = record.tables["ranking"]
    rows = {}
    for arm in (Arm.LLAMA3, Arm.FROZEN):
        here = ranking[ranking["arm"] == arm]
        if here.empty:
            continue
        for number in sorted(set(here["round"])):
            own = here[here["round"] == number]
            rows[str(arm), f"{number}"] = {
                str(ranked): with_interval(estimate(own, ranked=ranked), sign=False)
                for ranked in Ranked
                if ranked in set(own["ranked"])
            }
    return labelled(rows, ["", "round"])


def _number(table: pd.DataFrame, **where: object) -> str:
    return with_interval(estimate(table, **where), scale=1, digits=2, sign=False)

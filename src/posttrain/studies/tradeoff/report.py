"""The study of helpfulness and safety for readers: tables of formatted numbers.

Everything is read from run records, so that the chapter changes when the results do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from posttrain.evaluation.combining import THRESHOLD, RuleKind
from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, ordered, title, with_interval
from posttrain.studies.common.keys import Tuning
from posttrain.studies.common.tables import labelled
from posttrain.studies.tradeoff.claims import has_gold
from posttrain.studies.tradeoff.keys import (
    BOTH,
    ERRORS,
    MAIN_EXCHANGE,
    RECOVERED,
    ArmName,
    DomainName,
    Kind,
    Team,
)
from posttrain.studies.tradeoff.outcome import CONTRASTS, MAIN_GATE
from posttrain.studies.tradeoff.rules import FLAGGED, RANDOM

STRENGTH_NAMES = {
    Metric.ACCURACY_4: "significantly", Metric.ACCURACY_3: "better", Metric.ACCURACY_2: "slightly",
    Metric.ACCURACY_1: "negligibly", Metric.ACCURACY: "average",
}  # fmt: skip
#: Llama 2, Table 8: accuracy (%) by model, test set and strength.
TABLE_8 = {
    (DomainName.SAFETY, "safety"): (94.3, 76.3, 65.7, 55.3, 64.5),
    (DomainName.HELPFULNESS, "safety"): (89.9, 73.2, 63.8, 54.5, 62.8),
    (DomainName.SAFETY, "helpfulness"): (64.6, 57.5, 53.8, 52.2, 56.2),
    (DomainName.HELPFULNESS, "helpfulness"): (80.7, 67.5, 60.9, 54.7, 63.2),
}
#: The arms that stand for Llama 2's two models.
MODELS = {DomainName.SAFETY: ArmName.SAFETY_MIX, DomainName.HELPFULNESS: ArmName.HELPFULNESS_MIX}


def _accuracy(record: Record, arm: str, test: str, metric: str = Metric.ACCURACY) -> str:
    """Accuracy (%) of an arm, tuned, with its interval."""
    table = record.tables["metrics"]
    interval = estimate(table, arm=arm, tuning=Tuning.TUNED, test=test, metric=metric)
    return with_interval(interval, sign=False)


def table_8(record: Record) -> pd.DataFrame:
    """Llama 2's Table 8 beside the same table of a record whose pairs have strengths (%)."""
    rows = {}
    for (model, test), numbers in TABLE_8.items():
        name = f"{model} model on {test}"
        rows[name, "Llama 2"] = [f"{number:.1f}" for number in numbers]
        rows[name, title(record)] = [
            _accuracy(record, MODELS[model], test, metric) for metric in STRENGTH_NAMES
        ]
    return labelled(rows, ["", "accuracy (%)"], list(STRENGTH_NAMES.values()))


def cross_table(record: Record, *, pooled: bool = False) -> pd.DataFrame:
    """Accuracy (%) of every arm on every test, tuned, with the length baseline.

    Tests are the sources, or ``pooled`` all pairs of a domain.
    """
    metrics = record.tables["metrics"]
    domains = [DomainName.HELPFULNESS, DomainName.SAFETY]
    tests = [test for test in dict.fromkeys(metrics["test"]) if test not in domains]
    if pooled or not tests:
        tests = domains
    rows = {
        arm: [_accuracy(record, arm, test) for test in tests]
        for arm in dict.fromkeys(metrics["arm"])
    }
    rows["the longer response"] = [
        with_interval(
            estimate(record.tables["baselines"], test=test, metric=Metric.ACCURACY), sign=False
        )
        for test in tests
    ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=tests).rename_axis(title(record))


def difference_table(records: Sequence[Record], *, tuning: str = Tuning.TUNED) -> pd.DataFrame:
    """Paired differences of accuracy (points) by test domain."""
    rows = {}
    for record in ordered(records):
        table = record.tables["differences"]
        for contrast in CONTRASTS:
            if not (table["contrast"] == contrast).any():
                continue
            rows[title(record), contrast] = [
                with_interval(
                    estimate(
                        table, contrast=contrast, tuning=tuning, test=test, metric=Metric.ACCURACY
                    )
                )
                for test in (DomainName.HELPFULNESS, DomainName.SAFETY, BOTH)
            ]
    columns = ["on helpfulness", "on safety", "mean of both"]
    return labelled(rows, ["source", "difference"], columns)


def conflict_table(record: Record) -> pd.DataFrame:
    """How often each arm sides with what (%), by kind of conflict."""
    names = {
        Kind.UNSAFE: "unsafe: refusal above answer",
        Kind.LOOKALIKE: "looks unsafe: answer above refusal",
        "other": "other: answer above refusal",
        "golds disagree": "golds disagree: the more helpful one above",
    }
    table = record.tables["conflicts"]
    columns = [kind for kind in names if (table["kind"] == kind).any()]
    rows = {
        arm: [
            with_interval(estimate(table, arm=arm, kind=kind), sign=False, digits=0)
            for kind in columns
        ]
        for arm in dict.fromkeys(table["arm"])
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=[names[kind] for kind in columns]
    ).rename_axis(title(record))


@dataclass(frozen=True)
class Way:
    """A way of choosing, as records name it (see :func:`.tradeoff.rules.choice_tables`)."""

    team: str
    system: str
    parameter: float | None = None  #: Weight or threshold; None where there is but one.

    def read(self, choices: pd.DataFrame, metric: str) -> tuple[float, float, float]:
        """One metric of what it chooses, with its interval, from a ``choices`` table."""
        if self.parameter is not None:
            choices = choices[choices["parameter"] == self.parameter]
        return estimate(choices, team=self.team, system=self.system, metric=metric)


#: What the chapter compares.
WAYS = {
    "random choice": Way(Team.NOBODY, RANDOM),
    "one model of all data": Way(Team.SINGLE, ArmName.JOINT),
    "two: sum, safety ×2": Way(Team.SPECIALISTS, RuleKind.SUM, MAIN_EXCHANGE),
    "two: gate at 0.5": Way(Team.SPECIALISTS, RuleKind.GATE, MAIN_GATE),
    "two: switch at 0.15": Way(Team.SPECIALISTS, RuleKind.SWITCH, THRESHOLD),
    "two: switch, flags": Way(Team.SPECIALISTS, f"{RuleKind.SWITCH}{FLAGGED}", THRESHOLD),
}


def price_table(records: Mapping[str, Record]) -> pd.DataFrame:
    """Unsafe requests answered (%) and gold helpfulness, which refusing costs, by record."""
    columns = {"answers unsafe": "unsafe answered (%)", "helpfulness": "gold helpfulness"}
    rows = {
        name: {
            (label, column): f"{way.read(record.tables['choices'], metric)[0] * scale:.{digits}f}"
            .replace("-", "−")
            for label, record in records.items()
            for (metric, column), scale, digits in zip(columns.items(), (PERCENT, 1), (0, 2),
                                                      strict=True)
        }
        for name, way in WAYS.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("chosen by")


def choice_table(record: Record, teams: Sequence[str]) -> pd.DataFrame:
    """Everything that the given teams choose by, at every weight and threshold."""
    table = record.tables["choices"]
    columns = {
        "answers unsafe": ("unsafe answered (%)", PERCENT, 0),
        "refuses lookalike": ("harmless refused (%)", PERCENT, 0),
        ERRORS: ("mean of both (%)", PERCENT, 0),
    }
    if has_gold(record):
        columns |= {
            "helpfulness": ("gold helpfulness", 1, 2),
            "safety": ("gold safety", 1, 2),
            RECOVERED: ("recovered (%)", PERCENT, 0),
        }
    rows = {}
    systems = table[["team", "system", "parameter"]].drop_duplicates()
    for team, system, parameter in systems.itertuples(index=False):
        if team not in teams:
            continue
        none = pd.isna(parameter)
        way = Way(team, system, None if none else parameter)
        rows[system if none else f"{system}: {parameter:g}"] = [
            with_interval(way.read(table, metric), scale=scale, digits=digits, sign=False)
            for metric, (_, scale, digits) in columns.items()
        ]
    names = [name for name, *_ in columns.values()]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis(
        f"{title(record)}: {', '.join(teams)}"
    )


def detection_table(records: Sequence[Record]) -> pd.DataFrame:
    """Unsafe responses that safety models find below two thresholds (%), raw and calibrated."""
    rows = {}
    for record in ordered(records):
        if "detection" not in record.tables:
            continue
        for (arm, scores), part in record.tables["detection"].groupby(
            ["arm", "scores"], sort=False
        ):
            shown = part[["threshold", "metric", "estimate", "low", "high"]]
            rows[title(record), arm, scores] = {
                f"{metric}, below {threshold:g}": with_interval(tuple(values), sign=False)
                for threshold, metric, *values in shown.itertuples(index=False)
            }
    return labelled(rows, ["source", "model", "scores"])


def calibration_table(records: Sequence[Record]) -> pd.DataFrame:
    """Scales and zeros over models, and what a threshold of 0.15 cuts off before and after.

    Each cell is the mean over models, with their range.
    """
    rows = {}
    for record in ordered(records):
        for arm, part in record.tables["calibration"].groupby("arm", sort=False):
            rows[title(record), arm] = [
                f"{part[name].mean() * scale:.{digits}f} "
                f"({part[name].min() * scale:.{digits}f} to {part[name].max() * scale:.{digits}f})"
                .replace("-", "−")
                for name, scale, digits in (
                    ("scale", 1, 2), ("centre", 1, 2), ("raw", PERCENT, 0),
                    ("calibrated", PERCENT, 0),
                )
            ]  # fmt: skip
    columns = ["scale", "zero", "candidates below 0.15 (%), raw", "calibrated"]
    return labelled(rows, ["source", "model"], columns)


def source_table(records: Sequence[Record]) -> pd.DataFrame:
    """What each source holds, whose labels they are, and how far length alone goes."""
    parts = []
    for record in ordered(records):
        table = record.tables["sources"]
        longer = [
            with_interval(values, sign=False)
            for values in table[["estimate", "low", "high"]].itertuples(index=False, name=None)
        ]
        parts.append(
            pd.DataFrame(
                {
                    "record": title(record),
                    "source": table["source"],
                    "domain": table["domain"],
                    "labels by": table["labels"],
                    "pairs": table["pairs"].map("{:,}".format),
                    "groups": table["groups"].map("{:,}".format),
                    "contradicting (% of prompts)": (table["contradicting"] * PERCENT).map(
                        "{:.1f}".format
                    ),
                    "longer one chosen (%)": longer,
                }
            )
        )
    return pd.concat(parts).set_index(["record", "source"])

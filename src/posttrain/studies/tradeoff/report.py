"""The study of helpfulness and safety for readers: tables of formatted numbers, and examples.

Everything is read from run records, so that the chapter changes when the results do.
"""

import html
from collections.abc import Sequence

import pandas as pd

from posttrain.evaluation.combining import THRESHOLD, RuleKind
from posttrain.evaluation.metrics import Metric
from posttrain.evidence import claims
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
    Chosen,
    DomainName,
    Kind,
    Team,
)
from posttrain.studies.tradeoff.outcome import CONTRASTS, TEAMS
from posttrain.studies.tradeoff.rules import BEST, RANDOM

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


def choice(
    record: Record, team: str, system: str, metric: str, parameter: float | None = None
) -> tuple[float, float, float]:
    """One metric of what a system chooses (see :func:`.tradeoff.rules.choice_tables`)."""
    table = record.tables["choices"]
    if parameter is not None:
        table = table[table["parameter"] == parameter]
    return claims.estimate(table, team=team, system=system, metric=metric)


def choice_table(record: Record, *, team: str = Team.SPECIALISTS) -> pd.DataFrame:
    """What models alone and rules of two choose, at every weight and threshold, without flags."""
    table = record.tables["choices"]
    gold = has_gold(record)
    columns = {"answers unsafe": "unsafe answered (%)", "refuses lookalike": "harmless refused (%)"}
    columns[ERRORS] = "mean of both (%)"
    if gold:
        columns |= {
            "helpfulness": "gold helpfulness", "safety": "gold safety",
            RECOVERED: "recovered (%)",
        }  # fmt: skip
    rows = {}
    systems = table[["team", "system", "parameter"]].drop_duplicates()
    for scored_by, system, parameter in systems.itertuples(index=False):
        other_rate = system == BEST and parameter != MAIN_EXCHANGE
        if (
            scored_by not in (Team.NOBODY, Team.SINGLE, team)
            or other_rate
            or ("," in system and scored_by == team and system not in tuple(Chosen))
        ):
            continue
        known = None if pd.isna(parameter) else parameter
        cells = []
        for metric in columns:
            interval = choice(record, scored_by, system, metric, known)
            plain = metric in ("helpfulness", "safety")
            cells.append(
                with_interval(interval, scale=1 if plain else PERCENT, digits=2 if plain else 0,
                              sign=False)
            )  # fmt: skip
        rows[_system_name(scored_by, system, known)] = cells
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*columns.values()]).rename_axis(
        "chosen by"
    )


def _system_name(team: str, system: str, parameter: float | None) -> str:
    if team == Team.NOBODY:
        return f"{system} (safety ×{parameter:g})" if system == BEST else system
    if team == Team.SINGLE:
        return f"one model: {system}"
    if parameter is None:
        return f"two: {system}"
    sign = "safety ×" if system == RuleKind.SUM else "below "
    return f"two: {system}, {sign}{parameter:g}"


def team_table(records: Sequence[Record]) -> pd.DataFrame:
    """The two teams by the same rules: specialists, and models of Llama 2's mixes."""
    rows = {}
    for record in ordered(records):
        gold = has_gold(record)
        metric = RECOVERED if gold else ERRORS
        for system, parameter in (
            (RuleKind.SUM, MAIN_EXCHANGE), (RuleKind.GATE, 0.5), (RuleKind.SWITCH, THRESHOLD),
            ("switch, unsafe prompts flagged", THRESHOLD), ("switch, not calibrated", THRESHOLD),
        ):  # fmt: skip
            label = "recovered (%)" if gold else "errors (%)"
            rows[title(record), label, _system_name("", system, parameter)] = [
                with_interval(choice(record, team, system, metric, parameter), sign=False)
                if (record.tables["choices"]["team"] == team).any()
                else "–"
                for team in TEAMS
            ]
    return labelled(rows, ["source", "measure", "rule"], list(TEAMS))


def chosen_table(records: Sequence[Record]) -> pd.DataFrame:
    """One model of all data, and what chooses best on other prompts: models, and rules of two."""
    systems = {
        "one model of all data": (Team.SINGLE, ArmName.JOINT),
        "best single model": (Team.SINGLE, Chosen.ARM),
        "two, best rule": (Team.SPECIALISTS, Chosen.RULE),
        "two, best rule, unsafe prompts flagged": (Team.SPECIALISTS, Chosen.FLAGGED),
    }
    rows = {}
    for record in ordered(records):
        known = set(record.tables["choices"]["system"])
        if Chosen.RULE not in known:
            continue
        measures = {ERRORS: "errors (%)"} | (
            {RECOVERED: "recovered (%)"} if has_gold(record) else {}
        )
        chance = choice(record, Team.NOBODY, RANDOM, ERRORS)
        for metric, label in measures.items():
            rows[title(record), label] = [
                with_interval(chance, digits=0, sign=False) if metric == ERRORS else "0",
                *(
                    with_interval(choice(record, team, name, metric), sign=False)
                    if name in known
                    else "–"
                    for team, name in systems.values()
                ),
            ]
    return labelled(rows, ["source", "measure"], ["random choice", *systems])


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


def exchange_table(record: Record) -> pd.DataFrame:
    """How much of the way to the best combined gold is covered (%), by what safety is worth."""
    rates = [
        float(name.removeprefix("recovered "))
        for name in dict.fromkeys(record.tables["choices"]["metric"])
        if name.startswith("recovered ")
    ]
    systems = [
        (Team.SPECIALISTS, RuleKind.SUM, None), (Team.SPECIALISTS, RuleKind.GATE, 0.5),
        (Team.SPECIALISTS, RuleKind.SWITCH, THRESHOLD), (Team.SINGLE, ArmName.JOINT, None),
    ]  # fmt: skip
    rows = {}
    for team, system, parameter in systems:
        if team == Team.SINGLE and not (record.tables["choices"]["system"] == system).any():
            continue
        name = "two: sum, safety at that rate" if system == RuleKind.SUM else _system_name(
            team, system, parameter
        )  # fmt: skip
        rows[name] = [
            with_interval(
                choice(
                    record, team, system, f"recovered {rate:g}",
                    rate if system == RuleKind.SUM else parameter,
                ),
                sign=False,
            )
            for rate in rates
        ]  # fmt: skip
    columns = [f"safety ×{rate:g}" for rate in rates]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("chosen by")


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


def examples_html(record: Record) -> str:
    """Prompts on which the two models disagree, with both scores of every candidate."""
    what: dict[str, str] = {
        Kind.UNSAFE: "unsafe: refusing is right",
        Kind.LOOKALIKE: "looks unsafe, is not: answering is right",
    }
    pieces = []
    for prompt, part in record.tables["examples"].groupby("prompt", sort=False):
        kind = str(part["kind"].iloc[0])
        rows = "".join(
            f"<tr><td>{'✓' if row['right'] else '✗'}</td>"
            f'<td style="text-align:left">{html.escape(str(row["response"]))}</td>'
            + "".join(
                f'<td style="padding:0 1em">{row[name]:+.2f}</td>'.replace("-", "−")
                for name in (DomainName.HELPFULNESS, DomainName.SAFETY)
            )
            + f"<td>{html.escape(str(row['chosen by']))}</td></tr>"
            for row in part.to_dict("records")
        )
        pieces.append(
            f"<p>Prompt ({what.get(kind, kind)}): <i>{html.escape(str(prompt))}</i></p>"
            "<table style='margin-left:0; border-spacing:1em 0; border-collapse:separate'>"
            "<thead><tr><th></th><th>response</th><th>helpfulness</th><th>safety</th>"
            f"<th>chosen by</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    return "\n".join(pieces)

"""The study of edits for readers: tables of formatted numbers, and triples word by word."""

import html
from collections.abc import Sequence
from difflib import SequenceMatcher

import pandas as pd

from posttrain.data.preferences import RESPONSES, PairKind
from posttrain.evidence.claims import estimate as one_row
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, ordered, title, with_interval
from posttrain.studies.common.keys import Tuning
from posttrain.studies.common.tables import labelled
from posttrain.studies.edits.claims import estimate, most_data
from posttrain.studies.edits.keys import GOLD, GOLD_RATED, LEANS_SHORTER, ArmName
from posttrain.studies.edits.metrics import KINDS
from posttrain.studies.edits.outcome import ARMS, CONTRASTS


def arms_of(record: Record) -> list[str]:
    """The arms of a record, in the order of :data:`.edits.outcome.ARMS`."""
    trained = set(record.tables["metrics"]["arm"])
    return [arm for arm in ARMS if arm in trained]


def gain(record: Record, arm: str, metric: str = PairKind.RATED, **where: object) -> str:
    """Points that an arm gains over ignoring edits, with the most data unless said otherwise."""
    table = record.tables["gains"]
    return with_interval(estimate(table, arm=arm, metric=metric, **(most_data(record) | where)))


def contrast(record: Record, name: str, **where: object) -> str:
    """A paired difference on chosen > rejected (points), with the most data."""
    table = record.tables["contrasts"]
    return with_interval(estimate(table, contrast=name, **(most_data(record) | where)))


def gain_table(record: Record, metric: str = PairKind.RATED) -> pd.DataFrame:
    """Gains over ignoring edits (points): a row an arm and tuning, a column a size and share."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for arm in arms_of(record):
        for tuning in (Tuning.TUNED, Tuning.SHARED) if arm != ArmName.IGNORE else ():
            rows[arm, tuning] = {
                _cell(size, share, record): gain(
                    record, arm, metric, size=size, share=share, tuning=tuning
                )
                for size in record.settings["sizes"]
                for share in record.settings["shares"]
            }
    return labelled(rows, ["arm", "hyperparameter"])


def _cell(size: int, share: float, record: Record) -> str:
    edits = "" if len(record.settings["shares"]) == 1 else f", {share * PERCENT:.0f} % of edits"
    return f"{size:,} groups{edits}"


def accuracy_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy (%) of ignoring edits on each kind of pair, most data, and of preferring length."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in ordered(records):
        metrics, baselines = record.tables["metrics"], record.tables["baselines"]
        rows[title(record), "edits ignored"] = {
            kind: with_interval(
                estimate(metrics, arm=ArmName.IGNORE, metric=kind, **most_data(record)), sign=False
            )
            for kind in KINDS
        }
        rows[title(record), "the longer response"] = {
            kind: with_interval(one_row(baselines, baseline="longer", metric=kind), sign=False)
            for kind in KINDS
        }
    return labelled(rows, ["source", "ranked by"])


def kinds_table(record: Record) -> pd.DataFrame:
    """Gains (points) of every arm on each kind of test pair, tuned, most data; gold where known."""
    metrics = record.tables["metrics"].set_index("metric")["estimate"]
    known = [name for name in (*KINDS, GOLD, GOLD_RATED) if metrics.loc[name].notna().all()]
    rows = {
        arm: {name: gain(record, arm, name) for name in known}
        for arm in arms_of(record)
        if arm != ArmName.IGNORE
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def contrast_table(records: Sequence[Record]) -> pd.DataFrame:
    """Differences between two arms on chosen > rejected (points), tuned, most data."""
    columns = {}
    for record in ordered(records):
        recorded = set(record.tables["contrasts"]["contrast"])
        columns[title(record)] = {
            name: contrast(record, name) for name in CONTRASTS if name in recorded
        }
    return pd.DataFrame(columns).reindex(list(CONTRASTS)).fillna("–").rename_axis("difference")


def length_table(records: Sequence[Record]) -> pd.DataFrame:
    """Whether the gain of all pairs is a taste for short responses (points), tuned, most data.

    The gain on chosen > rejected where the winner is the longer and where it is the shorter
    response, and half of the second less the first.
    """
    rows = {}
    for record in ordered(records):
        rows[title(record)] = {
            "winner longer": gain(record, ArmName.ALL, f"{PairKind.RATED}, winner longer"),
            "winner shorter": gain(record, ArmName.ALL, f"{PairKind.RATED}, winner shorter"),
            "leans to the shorter": gain(record, ArmName.ALL, LEANS_SHORTER),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def cost_table(record: Record) -> pd.DataFrame:
    """What each arm takes and reaches, most data, tuned.

    Annotators' decisions, pairs, and tokens of one pass over the training groups in exact rows
    (means over repetitions); accuracy (%) on chosen > rejected; and the points gained over ignoring
    edits for each hundred decisions and each ten thousand tokens of a pass beyond those of that
    arm.
    """
    where = most_data(record)
    costs = record.tables["costs"]
    costs = costs[(costs["size"] == where["size"]) & (costs["share"] == where["share"])]
    by_arm = costs.set_index("arm")
    rows = {}
    for arm in arms_of(record):
        taken = by_arm.loc[arm]
        reached = estimate(record.tables["metrics"], arm=arm, **where)
        row = {
            "decisions": f"{taken['decisions']:,.0f}",
            "pairs": f"{taken['pairs']:,.0f}",
            "tokens a pass": f"{taken['tokens']:,.0f}",
            "accuracy (%)": with_interval(reached, sign=False),
        }
        more = taken - by_arm.loc[ArmName.IGNORE]
        for name, unit, column in (
            ("decisions", 100, "points per 100 decisions more"),
            ("tokens", 10_000, "points per 10,000 tokens more"),
        ):
            row[column] = "–"
            if arm != ArmName.IGNORE and more[name] > 0:
                interval = estimate(record.tables["gains"], arm=arm, **where)
                value, low, high = (number * unit / more[name] for number in interval)
                row[column] = with_interval((value, low, high), digits=2)
        rows[arm] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def data_table(records: Sequence[Record]) -> pd.DataFrame:
    """How much each run trained and tested: at its largest size and share, and in all."""
    rows = {}
    for record in ordered(records):
        where = most_data(record)
        used = record.tables["costs"].set_index(["arm", "size", "share"]).loc[
            (ArmName.ALL, where["size"], where["share"])
        ]  # fmt: skip
        rows[title(record)] = {
            "training groups": f"{where['size']:,}",
            "their edits": f"{used['edits']:,.0f}",
            "test groups": f"{record.data['test groups']:,}",
            "with an edit": f"{record.data['test groups with an edit']:,}",
            "distinct edits": f"{record.data['edits']:,}",
            "seeds": record.settings["seeds"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")


def tuning_table(records: Sequence[Record]) -> pd.DataFrame:
    """Tuned hyperparameters by arm, most data: learning rate, or the mean penalty of all folds.

    An asterisk marks a learning rate at an end of its grid; for penalties the share of folds at an
    end stands in brackets.
    """
    columns: dict[str, dict[str, str]] = {}
    for record in ordered(records):
        where = most_data(record)
        tuning = record.tables["tuning"]
        cells: dict[str, str] = {}
        for arm in arms_of(record):
            part = tuning[
                (tuning["arm"] == arm)
                & (tuning["size"] == where["size"])
                & (tuning["share"] == where["share"])
            ]
            if "penalty" in part:
                row = part.iloc[0]
                cells[arm] = f"{row['penalty']:.2g} ({row['at edge'] * PERCENT:.0f} %)"
            elif len(part) > 1:
                best = part.loc[part["accuracy"].idxmax(), "learning rate"]
                rates = record.settings["learning_rates"]
                cells[arm] = f"{best:g}{'*' if best in (min(rates), max(rates)) else ''}"
            else:
                cells[arm] = f"{part['learning rate'].item():g} (not tuned)"
        columns[title(record)] = cells
    table = pd.DataFrame(columns)
    return table.loc[[arm for arm in ARMS if arm in table.index]].fillna("–").rename_axis("arm")


#: What an editor took out is struck, what was put in underlined: colours alone are not for all.
MARKS = {
    "del": "color:#7a2e00; background:#ffdcc2; text-decoration:line-through",
    "ins": "color:#00304d; background:#cfe8fa; text-decoration:underline",
}


def marked(chosen: str, edited: str) -> str:
    """HTML of the edited text with what an editor took out and put in, word by word."""
    before, after = chosen.split(), edited.split()
    parts = []
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, i, j, k, m in matcher.get_opcodes():
        old, new = (html.escape(" ".join(words)) for words in (before[i:j], after[k:m]))
        if old == new:
            parts.append(old)
        else:
            parts += [_mark("del", old)] * bool(old) + [_mark("ins", new)] * bool(new)
    return " ".join(parts)


def _mark(tag: str, words: str) -> str:
    return f'<{tag} style="{MARKS[tag]}">{words}</{tag}>'


def triple_html(record: Record, number: int = 1) -> str:
    """An example of a record as HTML: what its editor changed, scores before and after training.

    Of the prompt the first line is shown, and what follows it, say a passage, left out.
    """
    texts = record.tables["examples"]
    rows = texts[texts["example"] == number].set_index("role")
    told = {role: str(rows.loc[role, "text"]) for role in ("prompt", *RESPONSES)}
    prompt, *rest = told["prompt"].splitlines()
    lines = {
        "Prompt": html.escape(prompt) + " […]" * bool(rest),
        "Chosen, as its editor left it": marked(told["chosen"], told["edited"]),
        "Rejected": html.escape(told["rejected"]),
    }
    scores = pd.DataFrame(
        {
            f"score {stage}": [f"{float(rows.loc[role, stage]):.2f}" for role in RESPONSES]
            for stage in ("before", "after")
        },
        index=list(RESPONSES),
    ).replace("-", "−", regex=True)
    spoken = "".join(f"<p><b>{name}.</b> {text}</p>" for name, text in lines.items())
    return f"{spoken}\n{scores.to_html(border=0)}"


def moves_table(record: Record) -> pd.DataFrame:
    """How a small step on each pair alone moves the scores; the largest of an example is 1."""
    # Adding zero turns -0 into 0.
    return record.tables["moves"].set_index(["example", "pair"]).round(2) + 0.0


def learned_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy (%) on held-out triples after training on edits, by kind of pair."""
    rows = {
        record.label: {
            kind: with_interval(one_row(record.tables["accuracy"], metric=kind), sign=False)
            for kind in KINDS
        }
        for record in records
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("source")

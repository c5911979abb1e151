"""The packing and rows studies for readers: tables of formatted numbers.

Everything is read from run records, so that the chapter's prose changes when the results do.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import PERCENT, ordered, with_interval
from posttrain.studies.common.cost import LLAMA3_8B
from posttrain.studies.common.tables import labelled, rates_tried
from posttrain.studies.packing.claims import rounding
from posttrain.studies.packing.keys import OrderMetric, RowName
from posttrain.studies.packing.outcome import ARMS, TESTS, own_test
from posttrain.studies.packing.theory import arrangement_table

#: Cells of fewer responses say nothing.
FEW = 20


def accuracy(record: Record, trained: str, tested: str, metric: str = OrderMetric.ACCURACY) -> str:
    """Accuracy (%) of one cell of the matrix, with its interval."""
    interval = estimate(record.tables["matrix"], trained=trained, tested=tested, metric=metric)
    return with_interval(interval, sign=False)


def arms_of(record: Record) -> list[str]:
    """The trained layouts of a record, in the order of :data:`.packing.outcome.ARMS`."""
    trained = set(record.tables["matrix"]["trained"])
    return [arm for arm in ARMS if arm in trained]


def own_rows_table(records: Sequence[Record]) -> pd.DataFrame:
    """How every arm ranks in its own rows, and what the order of responses does to it.

    Accuracy (%), with the chosen response first and last; slot bias and order noise in units of the
    typical score difference; share (%) of pairs whose ranking the order decides.
    """
    rows = []
    for record in ordered(records):
        for arm in arms_of(record):
            own = own_test(arm)
            bias, noise = (
                estimate(record.tables["matrix"], trained=arm, tested=own, metric=metric)
                for metric in (OrderMetric.SLOT_BIAS, OrderMetric.ORDER_NOISE)
            )
            rows.append(
                {
                    "source": record.label,
                    "trained": arm,
                    "accuracy": accuracy(record, arm, own),
                    "chosen first": accuracy(record, arm, own, OrderMetric.CHOSEN_FIRST),
                    "chosen last": accuracy(record, arm, own, OrderMetric.CHOSEN_LAST),
                    "slot bias": with_interval(bias, scale=1, digits=2),
                    "order noise": with_interval(noise, scale=1, digits=2, sign=False),
                    "flips (%)": accuracy(record, arm, own, OrderMetric.FLIPS),
                }
            )
    return pd.DataFrame(rows).set_index(["source", "trained"])


def non_inferiority_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy against separate rows (points): intervals, and two one-sided t-tests over seeds.

    Arms that were trained on ranked order are left out: they have no point to lose.
    """
    rows = []
    for record in ordered(records):
        differences = record.tables["differences"].set_index(["trained", "tested", "metric"])
        for row in record.tables["non-inferiority"].itertuples(index=False):
            trained, tested = str(row[0]), str(row[1])
            if trained == RowName.SEPARATE or trained.endswith("ranked"):
                continue
            difference = differences.loc[(trained, tested, OrderMetric.ACCURACY)]
            narrow = (difference["estimate"], difference["low 90"], difference["high 90"])
            inferior, superior = float(row[5]), float(row[6])
            rows.append(
                {
                    "source": record.label,
                    "trained": trained,
                    "tested": tested,
                    "difference, 90 %": with_interval(narrow),
                    "seeds": int(row[2]),
                    "p, loses a point": _p(inferior),
                    "p, gains a point": _p(superior),
                    "within a point, on these test pairs": _conclude(inferior, superior),
                }
            )
    return pd.DataFrame(rows).set_index(["source", "trained", "tested"])


def _p(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _conclude(inferior: float, superior: float) -> str:
    if np.isnan(inferior):
        return "–"
    if inferior < 0.05:
        return "yes" if superior < 0.05 else "not worse"
    return "not shown"


def matrix_table(records: Sequence[Record]) -> pd.DataFrame:
    """Accuracy (%) of every trained layout in every tested one; a dash where it was not tested."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in ordered(records):
        tested = set(record.tables["matrix"]["tested"])
        for arm in arms_of(record):
            rows[record.label, arm] = {
                test: accuracy(record, arm, test) for test in TESTS if test in tested
            }
    table = labelled(rows, ["source", "trained"])
    return table[[test for test in TESTS if test in table.columns]]


def equality_table(records: Sequence[Record]) -> pd.DataFrame:
    """Largest difference of scores and gradients from separate rows, before training.

    Scores are relative to the RMS score difference of two responses, gradients to the norm of
    the whole gradient. What is no more than rounding is shown as below a bound.
    """
    rows = []
    for record in ordered(records):
        bound = rounding(record)
        for row in record.tables["equality"].itertuples(index=False):
            rows.append(
                (
                    record.label,
                    row.way,
                    _or_below(row.scores, bound),
                    _or_below(row.gradient, bound),
                )
            )
    columns = ["source", "way", "scores", "gradient"]
    table = pd.DataFrame(rows, columns=columns)
    return table[table["way"] != "separate rows"].set_index(["source", "way"])


def _or_below(value: float, bound: float) -> str:
    return f"below {bound:g}" if value < bound else f"{value:.2g}"


def distance_table(records: Sequence[Record], by: str = "preceding tokens") -> pd.DataFrame:
    """Distance of a response's state from that in a separate row, before training.

    Rows go ``by`` ``preceding tokens`` or ``slot``. 1 is as far as two responses to one prompt are
    apart. Cells of fewer than :data:`FEW` responses are left out.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in ordered(records):
        table = record.tables["distances"]
        for row in table[table["by"] == by].itertuples(index=False):
            cells = rows.setdefault((record.label, str(row.layout)), {})
            if int(row.responses) < FEW:
                continue
            interval = (float(row.estimate), float(row.low), float(row.high))
            cells[str(row.value)] = with_interval(interval, scale=1, digits=2, sign=False)
    table = labelled(rows, ["source", "layout"])
    return table[sorted(table.columns, key=lambda name: int(re.findall(r"\d+", name)[0]))]


def token_table(records: Sequence[Record]) -> pd.DataFrame:
    """Mean tokens of prompt and response, and what one row saves, by number of responses."""
    rows = []
    for record in ordered(records):
        for row in record.tables["tokens"].itertuples(index=False):
            rows.append(
                {
                    "source": record.label,
                    "responses": int(row.responses),
                    "share of groups (%)": f"{row.share * PERCENT:.0f}",
                    "prompt": f"{row.prompt:.0f}",
                    "response": f"{row.response:.0f}",
                    "separate rows": f"{row.separate:.0f}",
                    "single row": f"{row.single:.0f}",
                    "saving": f"{row.saving:.2f}×",
                }
            )
    return pd.DataFrame(rows).set_index(["source", "responses"])


def tuning_table(records: Sequence[Record]) -> pd.DataFrame:
    """Validation accuracy (%) of each arm by learning rate; the best is starred.

    Records with one learning rate tuned nothing and are left out.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    tuned = [record for record in records if len(record.settings["learning_rates"]) > 1]
    for record in ordered(tuned):
        for arm, part in record.tables["tuning"].groupby("trained", sort=False):
            best = part["accuracy"].max()
            rows[record.label, str(arm)] = {
                f"{rate:g}": f"{value * PERCENT:.1f}{'*' if value == best else ''}"
                for rate, value in zip(part["learning rate"], part["accuracy"], strict=True)
            }
    return labelled(rows, ["source", "trained"], rates_tried(tuned))


def padding_table(records: Sequence[Record]) -> pd.DataFrame:
    """Padding of real batches, and what they take with it, by source and way of making rows."""
    rows = []
    for record in ordered(records):
        table = record.tables["padding"].set_index("method")
        for method, row in table.iterrows():
            rows.append(
                {
                    "source": record.label,
                    "rows": method,
                    "padding (%)": f"{row['padding'] * PERCENT:.1f}",
                    "tokens and padding, separate = 1": (
                        f"{row['slots'] / table.loc['separate rows', 'slots']:.2f}"
                    ),
                }
            )
    return pd.DataFrame(rows).set_index(["source", "rows"])


def arrangements() -> pd.DataFrame:
    """What a group costs an 8B Llama 3 at the paper's average lengths, in every arrangement."""
    table = arrangement_table(LLAMA3_8B)
    shown = pd.DataFrame(
        {
            "responses": table["K"],
            "arrangement": table["arrangement"],
            "tokens": table["tokens"].map("{:,.0f}".format),
            "visible pairs": table["visible pairs"].map("{:,.0f}".format),
            "dense pairs": table["dense pairs"].map("{:,.0f}".format),
            "forward TFLOP": (table["forward FLOPs"] / 1e12).map("{:.1f}".format),
            "tokens over exact": table["tokens, relative"].map("{:.2f}".format),
            "FLOP over exact": table["FLOPs, relative"].map("{:.2f}".format),
        }
    )
    return shown.set_index(["responses", "arrangement"])

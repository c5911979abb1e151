"""The packing and rows studies for readers: the answer in words, tables of formatted numbers.

Everything is read from run records, so that the chapter's prose changes when the results do.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from posttrain.claims import estimate
from posttrain.records import Record
from posttrain.studies.packing_claims import rounding
from posttrain.studies.packing_outcome import ARMS, SEPARATE, TESTS, chosen_rates, own_test
from posttrain.studies.report import PERCENT, listing, ordered, with_interval
from posttrain.studies.throughput_report import again_in_words, in_words

#: Cells of fewer responses say nothing.
FEW = 20


def accuracy(record: Record, trained: str, tested: str, metric: str = "accuracy") -> str:
    """Accuracy (%) of one cell of the matrix, with its interval."""
    found = estimate(record.tables["matrix"], trained=trained, tested=tested, metric=metric)
    return with_interval(found, sign=False)


def gap(record: Record, trained: str, tested: str) -> str:
    """Points of accuracy over separate rows in training and testing, with its interval."""
    table = record.tables["differences"]
    return with_interval(estimate(table, trained=trained, tested=tested, metric="accuracy"))


def arms_of(record: Record) -> list[str]:
    """The trained layouts of a record, in the order of :data:`.packing_outcome.ARMS`."""
    trained = set(record.tables["matrix"]["trained"])
    return [arm for arm in ARMS if arm in trained]


def own_rows_table(records: Sequence[Record]) -> pd.DataFrame:
    """How every arm ranks in its own rows, and what the order of responses does to it.

    Returns:
        One row a source and arm: accuracy (%), with the chosen response first and last; slot bias
        and order noise in units of the typical score difference; share (%) of pairs whose ranking
        the order decides.
    """
    rows = []
    for record in ordered(records):
        for arm in arms_of(record):
            own = own_test(arm)
            bias, noise = (
                estimate(record.tables["matrix"], trained=arm, tested=own, metric=metric)
                for metric in ("slot bias", "order noise")
            )
            rows.append(
                {
                    "source": record.source,
                    "trained": arm,
                    "accuracy": accuracy(record, arm, own),
                    "chosen first": accuracy(record, arm, own, "accuracy, chosen first"),
                    "chosen last": accuracy(record, arm, own, "accuracy, chosen last"),
                    "slot bias": with_interval(bias, scale=1, digits=2),
                    "order noise": with_interval(noise, scale=1, digits=2, sign=False),
                    "flips (%)": accuracy(record, arm, own, "flips"),
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
            if trained == SEPARATE or trained.endswith("ranked"):
                continue
            found = differences.loc[(trained, tested, "accuracy")]
            narrow = (found["estimate"], found["low 90"], found["high 90"])
            inferior, superior = float(row[5]), float(row[6])
            rows.append(
                {
                    "source": record.source,
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
    """What both tests at 5 % say."""
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
            rows[record.source, arm] = {
                test: accuracy(record, arm, test) for test in TESTS if test in tested
            }
    index = pd.MultiIndex.from_tuples(list(rows), names=["source", "trained"])
    table = pd.DataFrame(list(rows.values()), index=index).fillna("–")
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
                    record.source,
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

    1 is as far as two responses to one prompt are apart. Cells of fewer than :data:`FEW` responses
    are left out.

    Args:
        records: Records of the rows study.
        by: ``preceding tokens`` or ``slot``.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in ordered(records):
        table = record.tables["distances"]
        for row in table[table["by"] == by].itertuples(index=False):
            cells = rows.setdefault((record.source, str(row.layout)), {})
            if int(row.responses) < FEW:
                continue
            found = (float(row.estimate), float(row.low), float(row.high))
            cells[str(row.value)] = with_interval(found, scale=1, digits=2, sign=False)
    index = pd.MultiIndex.from_tuples(list(rows), names=["source", "layout"])
    table = pd.DataFrame(list(rows.values()), index=index).fillna("–")
    return table[sorted(table.columns, key=lambda name: int(re.findall(r"\d+", name)[0]))]


def token_table(records: Sequence[Record]) -> pd.DataFrame:
    """Mean tokens of prompt and response, and what one row saves, by number of responses."""
    rows = []
    for record in ordered(records):
        for row in record.tables["tokens"].itertuples(index=False):
            rows.append(
                {
                    "source": record.source,
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
            rows[record.source, str(arm)] = {
                f"{rate:g}": f"{value * PERCENT:.1f}{'*' if value == best else ''}"
                for rate, value in zip(part["learning rate"], part["accuracy"], strict=True)
            }
    index = pd.MultiIndex.from_tuples(list(rows), names=["source", "trained"])
    return pd.DataFrame(list(rows.values()), index=index).fillna("–")


def answer(records: Sequence[Record], speed: Sequence[Record]) -> str:
    """The chapter's answer in Markdown, from recorded results.

    Args:
        records: Records of the packing study.
        speed: Records of the throughput study.

    Raises:
        ValueError: If there is no record of either.
    """
    if not records or not speed:
        raise ValueError("the answer needs a record of the packing and one of the throughput study")
    packed = [
        f"{gap(record, 'llama3', 'llama3')} points on `{record.source}`"
        for record in ordered(records)
    ]
    apart = [
        f"{gap(record, 'llama3', SEPARATE)} points on `{record.source}`"
        for record in ordered(records)
    ]
    ranked = [
        f"{accuracy(record, 'llama3, ranked', 'llama3')} % on `{record.source}`"
        for record in ordered(records)
        if "llama3, ranked" in arms_of(record)
    ]
    flips = [
        f"{accuracy(record, 'llama3', 'llama3', 'flips')} % of pairs on `{record.source}`"
        for record in ordered(records)
    ]
    sizes = [f"{record.settings['size']:,}" for record in ordered(records)]
    timed, *others = ordered(speed)
    alike = timed.settings["checkpoint"], timed.environment["device"]
    again = [
        again_in_words(record)
        for record in others
        if (record.settings["checkpoint"], record.environment["device"]) == alike
    ]
    return (
        "**What is optimised?** With the responses isolated from each other and positions that "
        "restart behind the prompt, exactly the loss of separate rows, on the same scores and "
        "gradients up to rounding. With ordinary causal attention, something else: each score also "
        "depends on the responses before it.\n\n"
        "**Is one row the same as separate rows?** That exact row is, for every model that follows "
        "its mask and its positions.\n\n"
        "**When is it not?** Whenever a response sees another, or its positions do not continue "
        "from the prompt. A causal row with shuffled responses changes accuracy, tested in rows "
        f"like its own, by {listing(packed)} (95 %; trained on {listing(sizes)} groups); the same "
        f"models, used on separate rows, by {listing(apart)}. In causal rows the order of the "
        f"responses decides the ranking of {listing(flips)}. Without shuffling, the model reads "
        f"the answer off the slot: trained so, accuracy over both orders falls to "
        f"{listing(ranked)}. What large models learn from much more data is not measured here.\n\n"
        f"**What does it cost and save?** {' '.join([in_words(timed), *again])}"
    )


def order_in_words(record: Record) -> str:
    """What seeing other responses and running positions each add to order noise, in a sentence.

    Args:
        record: A record of the packing study with each of the four choices made alone.
    """
    parts = []
    for arm, name in (
        ("causal attention", "causal attention alone"),
        ("running positions", "running positions alone"),
        ("llama3", "both"),
    ):
        found = estimate(
            record.tables["matrix"], trained=arm, tested=own_test(arm), metric="order noise"
        )
        parts.append(f"{with_interval(found, scale=1, digits=2, sign=False)} with {name}")
    learned = estimate(record.tables["contrasts"], contrast="shuffled − ranked, tested separately")
    return (
        f"On `{record.source}` order noise is {listing(parts)}. Models trained on ranked order "
        "learn some quality too: on separate rows they are "
        f"{with_interval(learned, sign=False)} points behind those trained on shuffled order."
    )


def edges_in_words(records: Sequence[Record]) -> str:
    """Which arms chose a learning rate at an end of their grid, where a wider one might do better.

    Arms trained on ranked order are left out: in their own rows nothing tells good rates from bad.
    """
    parts = []
    for record in ordered(records):
        rates = record.settings["learning_rates"]
        chosen = chosen_rates(record.tables["tuning"])
        for end, name in ((min(rates), "lowest"), (max(rates), "highest")):
            arms = [
                arm
                for arm in arms_of(record)
                if len(rates) > 1 and chosen[arm] == end and not arm.endswith("ranked")
            ]
            if arms:
                parts.append(f"on `{record.source}` {listing(arms)} took the {name}")
    if not parts:
        return "No arm's best learning rate lies at an end of its grid."
    return f"Of the learning rates tried, {listing(parts)}."


def training_in_words(records: Sequence[Record]) -> str:
    """How much each run trained and tested, in a sentence."""
    parts = []
    for record in ordered(records):
        given = record.settings
        layers = given["top_layers"]
        # Records from before the setting existed have no bf16.
        parts.append(
            f"{record.source}: {'the whole model' if layers == 0 else f'the last {layers} layers'}"
            f"{' in bfloat16' if given.get('bf16') else ''}, {given['size']:,} training groups, "
            f"{record.data['test groups']:,} test groups, {given['seeds']} seeds, "
            f"{len(given['learning_rates'])} learning rates to choose from"
        )
    return "; ".join(parts) + "."


def batches_in_words(records: Sequence[Record]) -> str:
    """How the batches of :func:`padding_table` were made, in a sentence."""
    made = dict.fromkeys(
        f"{record.settings['batch_size']} groups, shared rows of at most "
        f"{record.settings['row_tokens']:,} tokens"
        for record in ordered(records)
    )
    return f"Batches of {listing([*made])}."


def padding_table(records: Sequence[Record]) -> pd.DataFrame:
    """Padding of real batches, and what they take with it, by source and way of making rows."""
    rows = []
    for record in ordered(records):
        table = record.tables["padding"].set_index("method")
        for method, row in table.iterrows():
            rows.append(
                {
                    "source": record.source,
                    "rows": method,
                    "padding (%)": f"{row['padding'] * PERCENT:.1f}",
                    "tokens and padding, separate = 1": (
                        f"{row['slots'] / table.loc['separate rows', 'slots']:.2f}"
                    ),
                }
            )
    return pd.DataFrame(rows).set_index(["source", "rows"])

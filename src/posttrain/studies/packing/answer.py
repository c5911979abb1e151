"""Sentences of the chapter on rows, composed from records."""

from collections.abc import Sequence

from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import listing, ordered, with_interval
from posttrain.studies.packing.keys import Contrast, OrderMetric, RowName
from posttrain.studies.packing.outcome import chosen_rates, own_test
from posttrain.studies.packing.report import arms_of


def order_in_words(record: Record) -> str:
    """What seeing other responses and running positions each add to order noise, in a sentence.

    Needs a record of the packing study with each of the four choices made alone.
    """
    parts = []
    for arm, name in (
        (RowName.ATTENTION, "causal attention alone"),
        (RowName.POSITIONS, "running positions alone"),
        (RowName.CAUSAL, "both"),
    ):
        found = estimate(
            record.tables["matrix"],
            trained=arm,
            tested=own_test(arm),
            metric=OrderMetric.ORDER_NOISE,
        )
        parts.append(f"{with_interval(found, scale=1, digits=2, sign=False)} with {name}")
    learned = estimate(record.tables["contrasts"], contrast=Contrast.SHUFFLED_RANKED_SEPARATELY)
    return (
        f"On `{record.label}` order noise is {listing(parts)}. Models trained on ranked order "
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
                parts.append(f"on `{record.label}` {listing(arms)} took the {name}")
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
            f"{record.label}: {'the whole model' if layers == 0 else f'the last {layers} layers'}"
            f"{' in bfloat16' if given.get('bf16') else ''}, {given['size']:,} training groups, "
            f"{record.data['test groups']:,} test groups, {given['seeds']} seeds, "
            f"{len(given['learning_rates'])} learning rates to choose from"
        )
    return "; ".join(parts) + "."


def batches_in_words(records: Sequence[Record]) -> str:
    """How the batches of :func:`.report.padding_table` were made, in a sentence."""
    made = dict.fromkeys(
        f"{record.settings['batch_size']} groups, shared rows of at most "
        f"{record.settings['pack_length']:,} tokens"
        for record in ordered(records)
    )
    return f"Batches of {listing([*made])}."

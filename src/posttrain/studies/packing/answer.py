"""The first lines of the chapter on rows, and other sentences composed from records."""

from collections.abc import Sequence

from posttrain.errors import UserError
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import listing, ordered, with_interval
from posttrain.studies.packing.keys import Contrast, OrderMetric, RowName
from posttrain.studies.packing.outcome import chosen_rates, own_test
from posttrain.studies.packing.report import accuracy, arms_of, gap
from posttrain.studies.packing.speed import in_words


def answer(records: Sequence[Record], speed: Sequence[Record]) -> str:
    """The chapter's answer in Markdown, from records of the study and of the benchmark of speed.

    Raises:
        UserError: If there is no record of either.
    """
    if not records or not speed:
        raise UserError("the answer needs a record of the packing study and one of speed")
    packed = [
        f"{gap(record, RowName.CAUSAL, RowName.CAUSAL)} points on `{record.label}`"
        for record in ordered(records)
    ]
    apart = [
        f"{gap(record, RowName.CAUSAL, RowName.SEPARATE)} points on `{record.label}`"
        for record in ordered(records)
    ]
    ranked = [
        f"{accuracy(record, RowName.CAUSAL_RANKED, RowName.CAUSAL)} % on `{record.label}`"
        for record in ordered(records)
        if RowName.CAUSAL_RANKED in arms_of(record)
    ]
    flips = [
        f"{accuracy(record, RowName.CAUSAL, RowName.CAUSAL, OrderMetric.FLIPS)} % of pairs on "
        f"`{record.label}`"
        for record in ordered(records)
    ]
    sizes = [f"{record.settings['size']:,}" for record in ordered(records)]
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
        f"**What does it cost and save?** {' '.join(map(in_words, ordered(speed)))}"
    )


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

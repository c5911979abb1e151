"""The claims about packing, each with its source and the test that judges it.

"Own rows" means that a model is tested in the layout it was trained in, each pair with the chosen
response first and last in turn.
"""

from collections.abc import Callable

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evidence.claims import Claim, Evidence, estimate
from posttrain.evidence.records import Record
from posttrain.studies.common.cost import RATIO
from posttrain.studies.packing.outcome import MARGIN

#: A share of pairs too small to speak of an approximation: one in a hundred.
NEGLIGIBLE = 0.01
#: A slot bias that would matter, in units of the typical score difference.
BIAS = 0.1
#: Differences of scores below this are rounding, and differ from machine to machine: in the double
#: precision of the tiny Llama, and in SmolLM2's single precision.
ROUNDING = {"double": 1e-10, "single": 1e-4}
#: Share of the ideal saving that counts as reaching it.
REACHED = 0.95


def rounding(record: Record) -> float:
    """The bound of :data:`ROUNDING` that applies to the model of a record of the rows study."""
    return ROUNDING["double" if record.source == SIMULATOR else "single"]


def _not_inferior(record: Record) -> Evidence:
    """Of shuffled causal rows, whether less than a point is lost."""
    found = estimate(
        record.tables["differences"], trained="causal", tested="causal", metric="accuracy"
    )
    return Evidence(record.name, *_shifted(found, MARGIN), 0.0, measured=found)


def _equal(record: Record) -> Evidence:
    """Of exact rows, whether scores differ from those of separate rows by no more than rounding."""
    table = record.tables["equality"]
    scores = table["scores"]
    found = estimate(table.assign(estimate=scores, low=scores, high=scores), way="exact row")
    return Evidence(record.name, *_room(*found, rounding(record)), 0.0, measured=found)


def _shifted(values: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    value, low, high = values
    return value + by, low + by, high + by


def _room(value: float, low: float, high: float, bound: float) -> tuple[float, float, float]:
    """How far the absolute value of a quantity stays below a bound."""
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return bound - abs(value), bound - max(abs(low), abs(high)), bound - nearest


def _approximation(record: Record) -> Evidence:
    found = estimate(
        record.tables["matrix"], trained="causal", tested="causal", metric="disagreement"
    )
    return Evidence(record.name, *_shifted(found, -NEGLIGIBLE), 0.0, measured=found)


def _unbiased(record: Record) -> Evidence:
    found = estimate(record.tables["matrix"], trained="causal", tested="causal", metric="slot bias")
    return Evidence(record.name, *_room(*found, BIAS), 0.0, measured=found)


def _contrast(name: str) -> Callable[[Record], Evidence]:
    def test(record: Record) -> Evidence:
        return Evidence(record.name, *estimate(record.tables["contrasts"], contrast=name), MARGIN)

    return test


def _scores_separately(record: Record) -> Evidence:
    """Whether testing in separate rows costs a model trained on causal rows less than a point."""
    value, low, high = estimate(record.tables["contrasts"], contrast="own - separate")
    room = (MARGIN - value, MARGIN - high, MARGIN - low)
    return Evidence(record.name, *room, 0.0, measured=(value, low, high))


def _speed(method: str, metric: str, bound: float) -> Callable[[Record], Evidence]:
    """A ratio of speeds on triples at Llama 3's length ratio, and what it must exceed."""

    def test(record: Record) -> Evidence:
        found = estimate(
            record.tables["speed"], responses=3, ratio=RATIO, method=method, metric=metric
        )
        return Evidence(record.name, *_shifted(found, -bound), 0.0, measured=found)

    return test


PACKING_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "approximation",
        "Llama 3, section 4.1.2",
        "One row with all responses only approximates separate rows.",
        "called an approximation",
        "share of pairs that a model trained on causal rows ranks otherwise in separate rows; "
        "supported above one in a hundred",
        "packing",
        _approximation,
    ),
    Claim(
        "no-loss",
        "Llama 3, section 4.1.2",
        "One row with all responses, shuffled, loses no accuracy.",
        "no loss in their ablation; no number given",
        "accuracy of causal rows, tested in own rows, minus that of separate rows; supported above "
        "minus one point",
        "packing",
        _not_inferior,
    ),
    Claim(
        "efficient",
        "Llama 3, section 4.1.2",
        "One row with all responses is more efficient.",
        "no number given",
        "triples a second in causal rows over those in separate rows; supported above 1",
        "throughput",
        _speed("causal row", "speed-up over separate rows", 1.0),
        unit="plain",
    ),
    Claim(
        "exact-is-separate",
        "derived in this book",
        "A single row can equal separate rows: with isolated responses and restarting positions.",
        "not mentioned",
        "largest difference of scores from separate rows, over the typical difference of two "
        "responses; supported within rounding",
        "rows",
        _equal,
        ours=True,
        unit="plain",
    ),
    Claim(
        "order-leaks",
        "derived in this book",
        "In causal rows of fixed order, the slot overrides the quality.",
        "responses are shuffled; no reason given",
        "accuracy in own rows, trained on shuffled causal rows minus on ranked ones",
        "packing",
        _contrast("shuffled - ranked"),
        ours=True,
    ),
    Claim(
        "shuffling-repairs",
        "derived in this book",
        "Shuffling leaves no preference for a slot.",
        "not mentioned",
        "slot bias in own rows, in units of the typical score difference; supported within a tenth "
        "on either side",
        "packing",
        _unbiased,
        ours=True,
        unit="plain",
    ),
    Claim(
        "scores-separately",
        "derived in this book",
        "A model trained on shuffled causal rows can score responses in separate rows.",
        "not mentioned",
        "accuracy in own rows minus that in separate rows; supported below one point",
        "packing",
        _scores_separately,
        ours=True,
    ),
    Claim(
        "exact-reaches-ideal",
        "derived in this book",
        "An exact row computes tokens as fast as separate rows, so it saves in full.",
        "not mentioned",
        "tokens a second in exact rows over those in separate rows, triples; supported above 0.95",
        "throughput",
        _speed("exact row", "relative tokens per second", REACHED),
        ours=True,
        unit="plain",
    ),
)

"""The claims about packing, each with its source and the test that judges it.

"Own rows" means that a model is tested in the layout it was trained in, each pair with the chosen
response first and last in turn.
"""

from collections.abc import Callable

from posttrain.claims import Claim, Evidence, estimate
from posttrain.records import Record
from posttrain.studies.packing_outcome import MARGIN, SEPARATE
from posttrain.studies.packing_theory import LLAMA3_PROMPT_TOKENS, LLAMA3_RESPONSE_TOKENS

#: A share of pairs too small to speak of an approximation: one in a hundred.
NEGLIGIBLE = 0.01
#: A slot bias that would matter, in units of the typical score difference.
BIAS = 0.1
#: Share of the ideal saving that counts as reaching it.
REACHED = 0.95
#: Llama 3's ratio of prompt to response length, as the throughput study rounds it.
RATIO = round(LLAMA3_PROMPT_TOKENS / LLAMA3_RESPONSE_TOKENS, 2)


def _not_inferior(trained: str, tested: str) -> Callable[[Record], Evidence]:
    """One point plus the difference to separate rows: positive where less than that is lost."""

    def test(record: Record) -> Evidence:
        found = estimate(
            record.tables["differences"], trained=trained, tested=tested, metric="accuracy"
        )
        return Evidence(record.name, *_shifted(found, MARGIN), 0.0)

    return test


def _equivalent(trained: str, tested: str) -> Callable[[Record], Evidence]:
    """One point minus the absolute difference to separate rows."""

    def test(record: Record) -> Evidence:
        value, low, high = estimate(
            record.tables["differences"], trained=trained, tested=tested, metric="accuracy"
        )
        return Evidence(record.name, *_room(value, low, high, MARGIN), 0.0)

    return test


def _shifted(values: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    value, low, high = values
    return value + by, low + by, high + by


def _room(value: float, low: float, high: float, bound: float) -> tuple[float, float, float]:
    """How far the absolute value of a quantity stays below a bound."""
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return bound - abs(value), bound - max(abs(low), abs(high)), bound - nearest


def _approximation(record: Record) -> Evidence:
    found = estimate(
        record.tables["matrix"], trained="llama3", tested="llama3", metric="disagreement"
    )
    return Evidence(record.name, *_shifted(found, -NEGLIGIBLE), 0.0)


def _unbiased(record: Record) -> Evidence:
    found = estimate(record.tables["matrix"], trained="llama3", tested="llama3", metric="slot bias")
    return Evidence(record.name, *_room(*found, BIAS), 0.0)


def _contrast(name: str) -> Callable[[Record], Evidence]:
    def test(record: Record) -> Evidence:
        return Evidence(record.name, *estimate(record.tables["contrasts"], contrast=name), MARGIN)

    return test


def _scores_separately(record: Record) -> Evidence:
    """One point minus what testing in separate rows costs a model trained on causal rows."""
    value, low, high = estimate(record.tables["contrasts"], contrast="own − separate")
    return Evidence(record.name, MARGIN - value, MARGIN - high, MARGIN - low, 0.0)


def _speed(method: str, metric: str, less: float) -> Callable[[Record], Evidence]:
    """A ratio of speeds on triples at Llama 3's length ratio, less what it must exceed."""

    def test(record: Record) -> Evidence:
        found = estimate(
            record.tables["speed"], responses=3, ratio=RATIO, method=method, metric=metric
        )
        return Evidence(record.name, *_shifted(found, -less), 0.0)

    return test


PACKING_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "approximation",
        "Llama 3, section 4.1.2",
        "One row with all responses only approximates separate rows.",
        "called an approximation",
        "share of pairs that a model trained on causal rows ranks otherwise in separate rows, "
        "minus one in a hundred",
        "packing",
        _approximation,
    ),
    Claim(
        "no-loss",
        "Llama 3, section 4.1.2",
        "One row with all responses, shuffled, loses no accuracy.",
        "no loss in their ablation; no number given",
        "one point plus the accuracy of causal rows, tested in own rows, minus that of separate "
        "rows",
        "packing",
        _not_inferior("llama3", "llama3"),
    ),
    Claim(
        "efficient",
        "Llama 3, section 4.1.2",
        "One row with all responses is more efficient.",
        "no number given; 1.94 times fewer tokens for triples at their average lengths",
        "triples a second in causal rows over separate rows, minus 1",
        "throughput",
        _speed("causal row", "speed-up over separate rows", 1.0),
        unit="plain",
    ),
    Claim(
        "exact-is-separate",
        "derived in this book",
        "A single row can equal separate rows: with isolated responses and restarting positions.",
        "not mentioned",
        "one point minus the absolute difference of accuracy, trained on exact and on separate "
        "rows",
        "packing",
        _equivalent("exact", SEPARATE),
        ours=True,
    ),
    Claim(
        "order-leaks",
        "derived in this book",
        "In causal rows of fixed order, a model learns the slot instead of the quality.",
        "responses are shuffled; no reason given",
        "accuracy in own rows, trained on shuffled causal rows minus on ranked ones",
        "packing",
        _contrast("shuffled − ranked"),
        ours=True,
    ),
    Claim(
        "shuffling-repairs",
        "derived in this book",
        "Shuffling leaves no preference for a slot.",
        "not mentioned",
        "a tenth minus the absolute slot bias in own rows, in units of the typical score "
        "difference",
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
        "one point minus the accuracy lost from own rows to separate rows",
        "packing",
        _scores_separately,
        ours=True,
    ),
    Claim(
        "exact-reaches-ideal",
        "derived in this book",
        "An exact row saves as much time as it saves tokens.",
        "not mentioned",
        "speed over separate rows as a share of the saving in tokens, triples, minus 0.95",
        "throughput",
        _speed("exact row", "share of token saving", REACHED),
        ours=True,
        unit="plain",
    ),
)

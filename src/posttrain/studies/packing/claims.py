"""The claims about packing, each with its source and the rule that judges it.

"Own rows" means that a model is tested in the layout it was trained in, each pair with the chosen
response first and last in turn.
"""

from functools import partial

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import Claim, above, gain, holds, no_worse, row, within
from posttrain.evidence.records import Record
from posttrain.studies.packing.keys import MARGIN, Contrast, OrderMetric, RowName, Speed, Way

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


def shows_loss_somewhere(record: Record) -> bool:
    """Whether causal rows lose accuracy at any size of a record of the growth study."""
    gaps = record.tables["gaps"]
    causal = (gaps["trained"] == RowName.CAUSAL) & (gaps["metric"] == OrderMetric.ACCURACY)
    return bool((gaps.loc[causal, "high"] < 0).any())


#: Shuffled causal rows, tested in their own.
_own = partial(row, trained=RowName.CAUSAL, tested=RowName.CAUSAL)
#: Isolated responses whose positions run on through the row, tested in their own.
_counted = partial(row, trained=RowName.POSITIONS, tested=RowName.POSITIONS)
#: Speed on triples at Llama 3's lengths.
_speed = partial(row, "speed", workload="triples")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "approximation",
        "Llama 3, section 4.1.2",
        "A causal row with all responses only approximates separate rows.",
        "called an approximation",
        "share of pairs that a model trained on causal rows ranks otherwise in separate rows; "
        "holds above one in a hundred",
        "packing",
        above(_own("matrix", metric=OrderMetric.DISAGREEMENT), NEGLIGIBLE),
        headline=True,
    ),
    Claim(
        "no-loss",
        "Llama 3, section 4.1.2",
        "A causal row with all responses, shuffled, loses no accuracy.",
        "no loss in their ablation; no number given",
        "accuracy of causal rows, tested as trained, minus that of separate rows; holds above "
        "minus one point",
        "packing",
        no_worse(_own("differences", metric=OrderMetric.ACCURACY), MARGIN),
        headline=True,
    ),
    Claim(
        "counted-no-loss",
        "a reading of Llama 3, section 4.1.2",
        "One row of isolated responses with running positions loses no accuracy.",
        "no loss in their ablation; no number given",
        "accuracy of such rows, tested as trained, minus that of separate rows; holds above minus "
        "one point",
        "packing",
        no_worse(_counted("differences", metric=OrderMetric.ACCURACY), MARGIN),
        applies=holds("differences", "trained", RowName.POSITIONS),
        # The first record of the simulator had been seen before.
        late=lambda record: record.source == SIMULATOR,
    ),
    Claim(
        "gap-closes",
        "derived in this book",
        "What causal rows lose against separate rows shrinks as data grows.",
        "not mentioned",
        "change per tenfold training groups of accuracy in causal rows minus that in separate rows",
        "growth",
        gain(row("trends", trained=RowName.CAUSAL, metric=OrderMetric.ACCURACY), smallest=0.005),
        # A loss must exist before it can shrink.
        informs=shows_loss_somewhere,
    ),
    Claim(
        "efficient",
        "Llama 3, section 4.1.2",
        "One row with all responses is more efficient.",
        "no number given",
        "triples a second in causal rows over those in separate rows, least of all rounds above 1",
        "throughput",
        above(_speed(method=Way.CAUSAL, metric=Speed.OVER_SEPARATE), 1.0),
        check=True,
        unit="plain",
    ),
    Claim(
        "exact-is-separate",
        "derived in this book",
        "A single row can equal separate rows: with isolated responses and restarting positions.",
        "not mentioned",
        "largest difference of scores from separate rows, over the typical difference of two "
        "responses, within rounding",
        "rows",
        within(row("equality", way="exact row", exact="scores"), rounding),
        check=True,
        unit="plain",
    ),
    Claim(
        "order-leaks",
        "derived in this book",
        "In causal rows of fixed order, the slot overrides the quality.",
        "responses are shuffled; no reason given",
        "accuracy, tested as trained, of training on shuffled causal rows minus on ranked ones",
        "packing",
        gain(row("contrasts", contrast=Contrast.SHUFFLED_RANKED), smallest=MARGIN),
        applies=holds("contrasts", "contrast", Contrast.SHUFFLED_RANKED),
        check=True,
    ),
    Claim(
        "shuffling-repairs",
        "derived in this book",
        "Shuffling leaves no mean preference of scores for a slot.",
        "not mentioned",
        "mean slot bias, tested as trained, in units of the typical score difference; holds within "
        "a tenth on either side",
        "packing",
        within(_own("matrix", metric=OrderMetric.SLOT_BIAS), BIAS),
        unit="plain",
    ),
    Claim(
        "scores-separately",
        "derived in this book",
        "A model trained on shuffled causal rows can score responses in separate rows.",
        "not mentioned",
        "accuracy of such a model in separate rows minus that of models trained on separate rows; "
        "holds above minus one point",
        "packing",
        no_worse(
            row(
                "differences",
                trained=RowName.CAUSAL,
                tested=RowName.SEPARATE,
                metric=OrderMetric.ACCURACY,
            ),
            MARGIN,
        ),
    ),
    Claim(
        "exact-reaches-ideal",
        "derived in this book",
        "An exact row computes tokens as fast as separate rows, so it saves in full.",
        "not mentioned",
        "tokens a second in exact rows over those in separate rows, triples, least of all rounds "
        "above 0.95",
        "throughput",
        above(_speed(method=Way.TWO_PIECE, metric=Speed.RELATIVE_TOKENS), REACHED),
        check=True,
        unit="plain",
    ),
    Claim(
        "shuffled-overfits",
        "InstructGPT (Ouyang et al., 2022), section 3.5",
        "Pairs of one prompt shuffled one by one overfit in a single pass; all of them together "
        "do not.",
        "better validation accuracy and log loss; no number given",
        "log-likelihood of held-out pairs after one pass, merged groups minus pairs one by one; "
        "the least effect that matters is 0.01 nats",
        "merging",
        gain(row("gains", passes=1, metric=Metric.LOG_LIKELIHOOD), smallest=0.01),
        headline=True,
        unit="plain",
    ),
    Claim(
        "merging-lasts",
        "derived in this book",
        "After three passes, all pairs of a prompt together give better probabilities than the "
        "same pairs shuffled one by one.",
        "not mentioned",
        "log-likelihood of held-out pairs after three passes, merged groups minus pairs one by "
        "one; the least effect that matters is 0.01 nats",
        "merging",
        gain(row("gains", passes=3, metric=Metric.LOG_LIKELIHOOD), smallest=0.01),
        applies=holds("gains", "passes", 3),
        # It was written after their results, against what had been expected.
        late=lambda record: record.source in (SIMULATOR, "seeda"),
        unit="plain",
    ),
    Claim(
        "merging-loses-nothing",
        "derived in this book",
        "Merged groups rank as well as the same pairs one by one.",
        "not mentioned",
        "accuracy after one pass, merged groups minus pairs one by one; holds above minus one "
        "point",
        "merging",
        no_worse(row("gains", passes=1, metric=Metric.ACCURACY), MARGIN),
        headline=True,
    ),
)

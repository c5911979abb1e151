"""The claims about smaller choices, each with its source and the rule that judges it."""

from collections.abc import Callable
from functools import partial

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import Claim, gain, no_worse, row, shows_gain
from posttrain.evidence.records import Record
from posttrain.studies.packing.keys import MARGIN, OrderMetric, RowName
from posttrain.studies.recipe.keys import Combined, Dropped, Question, Start

#: Half a percentage point: what a choice that costs nothing should bring.
HALF_A_POINT = 0.005


def largest(record: Record) -> int:
    """The most training pairs or groups of a record."""
    table = record.tables["metrics" if "metrics" in record.tables else "levels"]
    return int(table["size"].max())


def _largest_start(record: Record) -> int:
    metrics = record.tables["metrics"]
    return int(metrics.loc[metrics["question"] == Question.START, "size"].max())


_gains = partial(row, "gains", noise=0.0, metric=Metric.ACCURACY)
#: The control of where to start: weights that nobody trained against the pre-trained ones.
_UNTRAINED = _gains(
    question=Question.START,
    arm=Start.UNTRAINED,
    reference=Start.PRETRAINED,
    size=_largest_start,
)


def _averaged(noise: float) -> Callable[[Record], bool]:
    """Whether models were averaged in a record with such a share of wrong labels."""

    def asked(record: Record) -> bool:
        metrics = record.tables["metrics"]
        return bool(((metrics["question"] == Question.AVERAGE) & (metrics["noise"] == noise)).any())

    return asked


_average = partial(_gains, question=Question.AVERAGE, arm=Combined.AVERAGE_8)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "chat-start-helps",
        "Llama 2, section 3.2.2",
        "A reward model that starts from the chat checkpoint ranks better than one that starts "
        "from the pre-trained one.",
        "what the chat model knows; no number given",
        "accuracy from the chat checkpoint minus from the pre-trained one, most pairs, each tuned",
        "recipe",
        gain(
            _gains(
                question=Question.START,
                arm=Start.CHAT,
                reference=Start.PRETRAINED,
                size=_largest_start,
            ),
            smallest=MARGIN,
        ),
        # Where pre-training itself brings nothing, the comparison of two kinds says nothing.
        informs=shows_gain(-_UNTRAINED),
    ),
    Claim(
        "similar-pairs-harm",
        "inferred from Llama 3, section 4.1.2",
        "Dropping pairs of similar responses is better than dropping as many at random.",
        "samples with similar responses are filtered out; no number given",
        "accuracy without the most similar quarter of the pairs minus without a random quarter",
        "recipe",
        gain(
            _gains(question=Question.SIMILAR, arm=Dropped.SIMILAR, reference=Dropped.RANDOM),
            smallest=HALF_A_POINT,
        ),
    ),
    Claim(
        "similar-pairs-idle",
        "inferred from Llama 3, section 4.1.2",
        "Pairs of similar responses can be dropped without loss.",
        "samples with similar responses are filtered out; no number given",
        "accuracy without the most similar quarter of the pairs minus with all; holds above minus "
        "one point",
        "recipe",
        no_worse(
            _gains(question=Question.SIMILAR, arm=Dropped.SIMILAR, reference=Dropped.NONE), MARGIN
        ),
    ),
    Claim(
        "averaging-helps",
        "Llama 3, section 4.1.5",
        "The average of the weights of models trained on versions of the data ranks better than "
        "one of them.",
        "models are averaged; no number given",
        "accuracy of the average of eight minus the mean accuracy of the eight",
        "recipe",
        gain(_average(reference=Combined.SINGLE), smallest=HALF_A_POINT),
        applies=_averaged(0.0),
    ),
    Claim(
        "averaging-is-ensembling",
        "WARM (Ramé et al., 2024)",
        "The average of the weights ranks as well as the ensemble of the scores.",
        "better than the ensemble out of distribution",
        "accuracy of the average of eight minus that of their ensemble; holds above minus one "
        "point",
        "recipe",
        no_worse(_average(reference=Combined.ENSEMBLE_8), MARGIN),
        applies=_averaged(0.0),
    ),
    Claim(
        "averaging-resists-noise",
        "WARM (Ramé et al., 2024)",
        "With wrong labels in training, averaging the weights ranks better than the ensemble of "
        "the scores.",
        "less is memorised of corrupted labels",
        "accuracy of the average of eight minus that of their ensemble, a fifth of the training "
        "pairs turned round",
        "recipe",
        gain(
            row(
                "gains",
                question=Question.AVERAGE,
                noise=0.2,
                arm=Combined.AVERAGE_8,
                reference=Combined.ENSEMBLE_8,
                metric=Metric.ACCURACY,
            ),
            smallest=HALF_A_POINT,
        ),
        applies=_averaged(0.2),
    ),
    Claim(
        "averaging-beats-all-data",
        "derived in this book",
        "The average of models that each saw four fifths of the pairs ranks better than one model "
        "of all pairs.",
        "not mentioned",
        "accuracy of the average of eight minus that of one model of all pairs",
        "recipe",
        gain(_average(reference=Combined.ALL_DATA), smallest=HALF_A_POINT),
        applies=_averaged(0.0),
    ),
    Claim(
        "more-data-helps",
        "Llama 2, Figure 6",
        "Accuracy still grows with the number of training pairs.",
        "no plateau; no number given",
        "accuracy in separate rows at the most groups minus at the step before",
        "growth",
        gain(
            row(
                "steps",
                trained=RowName.SEPARATE,
                metric=OrderMetric.ACCURACY,
                size=largest,
            ),
            smallest=HALF_A_POINT,
        ),
    ),
)

"""The claims about the margin, each with its source and the rule that judges it."""

from functools import partial

import pandas as pd

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.evaluation.metrics import Metric
from posttrain.evidence import claims
from posttrain.evidence.claims import Claim, Interval, gain, no_worse, row, shows_gain
from posttrain.evidence.records import Record
from posttrain.studies.common.keys import Tuning
from posttrain.studies.margin.keys import Control, Loss, Step

#: The papers' own effects on accuracy: Llama 2's Table 28, on average and on strength 4 minus
#: strength 1, and HelpSteer2-Preference on RewardBench.
LARGE_MARGIN, SMALL_MARGIN, STRENGTH_STEP, SCALED_LOSS = 0.004, 0.005, 0.018, 0.012
#: The loss of accuracy by dropping the margin that would matter: half a percentage point.
HALF_A_POINT = 0.005


def estimate(
    table: pd.DataFrame, *, tuning: str = Tuning.TUNED, filtered: bool = False, **where: object
) -> Interval:
    """As :func:`.evidence.claims.estimate`, by default of arms tuned and trained on all pairs."""
    return claims.estimate(table, tuning=tuning, filtered=filtered, **where)


def largest_size(record: Record) -> int:
    """The most training pairs of a record of the margin study."""
    return int(record.tables["metrics"]["size"].max())


def smallest_size(record: Record) -> int:
    """The fewest."""
    return int(record.tables["metrics"]["size"].min())


def accuracy_gain(
    record: Record, loss: str, tuning: str, *, filtered: bool = False, size: int | None = None
) -> Interval:
    """What a loss adds to the accuracy of the one without margin, by default at the most data.

    Both are trained on all pairs, or both on ``filtered`` ones.
    """
    return estimate(
        record.tables["gains"],
        loss=loss,
        tuning=tuning,
        filtered=filtered,
        metric=Metric.ACCURACY,
        size=size or largest_size(record),
    )


_tuned = partial(row, tuning=Tuning.TUNED, filtered=False)
_gains = partial(_tuned, "gains", metric=Metric.ACCURACY, size=largest_size)
_steps = partial(_tuned, "steps", size=largest_size)
FALL = -_tuned("trends", loss=Loss.LARGE, metric=Metric.ACCURACY)
START = _gains(loss=Loss.LARGE, size=smallest_size)


_controls = partial(
    row, "controls", tuning=Tuning.SHARED, metric=Metric.ACCURACY, size=largest_size
)


def _has_controls(record: Record) -> bool:
    """Whether a record has controls; those made before November 2026 have none."""
    return "controls" in record.tables


def _added(record: Record) -> bool:
    """Whether these arms were run there when those of other sources had been seen."""
    return record.source == SIMULATOR


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "rises-with-strength",
        "Llama 2, Table 28",
        "A reward model agrees with annotators more often the stronger the preference is.",
        "54.5 % (negligibly) to 79.1 % (significantly)",
        "accuracy on strength 4 minus accuracy on strength 1, no margin, tuned",
        "margin",
        gain(_steps(loss=Loss.NONE, metric=Step.ACCURACY), smallest=0.05),
        check=True,
    ),
    Claim(
        "large-margin-helps",
        "Llama 2, Table 28",
        "A large margin by strength improves accuracy on average.",
        "+0.4 points",
        "accuracy with the large margin minus without, each tuned, most data",
        "margin",
        gain(_gains(loss=Loss.LARGE), smallest=LARGE_MARGIN),
        effect=LARGE_MARGIN,
        headline=True,
    ),
    Claim(
        "small-margin-helps",
        "Llama 2, Table 28",
        "A small margin by strength improves accuracy on average.",
        "+0.5 points",
        "accuracy with the small margin minus without, each tuned, most data",
        "margin",
        gain(_gains(loss=Loss.SMALL), smallest=SMALL_MARGIN),
        effect=SMALL_MARGIN,
    ),
    Claim(
        "gains-where-decided",
        "Llama 2, Table 28",
        "The large margin helps significantly better pairs more than negligible ones.",
        "+1.6 points (significantly), −0.2 (negligibly)",
        "the large margin's gain on strength 4 minus its gain on strength 1, each tuned",
        "margin",
        gain(_steps(loss=Loss.LARGE, metric=Step.GAIN), smallest=STRENGTH_STEP),
        effect=STRENGTH_STEP,
    ),
    Claim(
        "bimodal",
        "Llama 2, Figure 27",
        "A margin makes the distribution of scores more bimodal.",
        "shown as a figure",
        "Sarle's bimodality of the scores, large margin minus none, each tuned",
        "margin",
        gain(_gains(loss=Loss.LARGE, metric=Metric.BIMODALITY), smallest=0.02),
        unit="plain",
    ),
    Claim(
        "splits-differences",
        "derived in this book",
        "A margin moves the differences of scores away from zero, and so splits them in two.",
        "shown as a figure, of scores",
        "Sarle's bimodality of the differences, with either response first, large margin minus "
        "none, each tuned",
        "margin",
        gain(_gains(loss=Loss.LARGE, metric=Metric.SPLIT), smallest=0.02),
        unit="plain",
        # Records made before November 27 of 2026 do not have it.
        applies=lambda record: Metric.SPLIT in set(record.tables["gains"]["metric"]),
        late=_added,
    ),
    Claim(
        "margin-diminishing",
        "Llama 3, section 4.1.2",
        "The margin's improvement diminishes as data grows.",
        "no number given",
        "fall of the large margin's accuracy gain per tenfold data, each arm tuned",
        "margin",
        gain(FALL, smallest=LARGE_MARGIN / 2),
        # A trend takes two sizes.
        applies=lambda record: smallest_size(record) < largest_size(record),
        informs=shows_gain(START),
    ),
    Claim(
        "harmless-to-drop",
        "inferred from Llama 3, section 4.1.2",
        "With enough data, training without the margin loses nothing that matters.",
        "no number given",
        "accuracy without a margin minus with the large one, each tuned, most data; half a point "
        "less would matter",
        "margin",
        no_worse(-_gains(loss=Loss.LARGE), HALF_A_POINT),
        headline=True,
    ),
    Claim(
        "costs-likelihood",
        "derived in this book",
        "A margin worsens the probability that the scores give to held-out preferences.",
        "no number given",
        "log-likelihood without margin minus with the large one, each tuned, most data",
        "margin",
        gain(-_gains(loss=Loss.LARGE, metric=Metric.LOG_LIKELIHOOD), smallest=0.005),
        unit="plain",
    ),
    Claim(
        "scaled-helps",
        "HelpSteer2-Preference, scaled Bradley–Terry",
        "Multiplying a pair's loss by its strength improves accuracy.",
        "92.7 against 91.5 on RewardBench",
        "accuracy with the scaled loss minus the plain one, each tuned, most data",
        "margin",
        gain(_gains(loss=Loss.SCALED), smallest=SCALED_LOSS),
        effect=SCALED_LOSS,
    ),
    Claim(
        "filter-replaces-margin",
        "inferred from Llama 3, sections 4.1.2 and 4.2.1",
        "Llama 3's filter takes the margin's gain: trained on decided pairs alone, it adds less.",
        "not mentioned",
        "the large margin's accuracy gain over all pairs minus its gain over pairs rated better or "
        "significantly better, one setting for all arms, most data",
        "margin",
        gain(
            row(
                "interactions",
                loss=Loss.LARGE,
                tuning=Tuning.SHARED,
                metric=Metric.ACCURACY,
                size=largest_size,
            ),
            smallest=LARGE_MARGIN / 2,
        ),
        applies=_has_controls,
        # Both gains had been seen of these before.
        late=lambda record: True,
    ),
    Claim(
        "margin-informs",
        "derived in this book",
        "Under one weak penalty the large margin gains through the strengths, not its size.",
        "not mentioned",
        "accuracy with the large margin minus with the same margins dealt out at random, one "
        "setting for all arms, most data",
        "margin",
        gain(_controls(control=Control.LARGE_PERMUTED), smallest=LARGE_MARGIN / 2),
        applies=_has_controls,
        late=_added,
        headline=True,
    ),
    Claim(
        "scale-informs",
        "derived in this book",
        "Under one weak penalty the scaled loss gains through the strengths, not weights as such.",
        "not mentioned",
        "accuracy with the scaled loss minus with the same weights dealt out at random, one "
        "setting for all arms, most data",
        "margin",
        gain(_controls(control=Control.SCALED_PERMUTED), smallest=LARGE_MARGIN / 2),
        applies=_has_controls,
        late=_added,
    ),
)

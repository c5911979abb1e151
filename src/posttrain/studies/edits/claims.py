"""The claims about edited responses, each with its source and the rule that judges it.

*Chosen > rejected* is judged in order of the true quality where that is known, in the simulator:
annotators' noise would only hide differences. Verdicts must be the same whether every arm is tuned
or all share one setting.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from posttrain.data.preferences import PairKind
from posttrain.evidence import claims
from posttrain.evidence.claims import (
    Claim,
    Interval,
    Row,
    gain,
    holds,
    no_worse,
    row,
    shows_gain,
    within,
)
from posttrain.evidence.records import Record
from posttrain.studies.common.keys import Tuning
from posttrain.studies.edits.keys import GOLD_RATED, LEANS_SHORTER, ArmName, Contrast

#: The gain of accuracy that would pay for an editor, and the loss that would matter: one point.
ONE_POINT = 0.01
#: The lead over chance below which edits are said not to score above what they edit.
FIVE_POINTS = 0.05


def estimate(
    table: pd.DataFrame,
    *,
    tuning: str = Tuning.TUNED,
    metric: str = PairKind.RATED,
    **where: object,
) -> Interval:
    """As :func:`.evidence.claims.estimate`, by default of tuned arms on chosen > rejected."""
    return claims.estimate(table, tuning=tuning, metric=metric, **where)


def largest_size(record: Record) -> int:
    """The most training groups of a record of the study of edits."""
    return int(record.tables["metrics"]["size"].max())


def smallest_size(record: Record) -> int:
    """The fewest."""
    return int(record.tables["metrics"]["size"].min())


def largest_share(record: Record) -> float:
    """The largest share of edits that was used."""
    return float(record.tables["metrics"]["share"].max())


def most_data(record: Record) -> dict[str, Any]:
    """The largest size and share of edits of a record of the study of edits."""
    return {"size": largest_size(record), "share": largest_share(record)}


def judged(record: Record) -> str:
    """What annotators chose, in order of the true quality where that is known."""
    metrics = record.tables["metrics"]
    gold = metrics.loc[metrics["metric"] == GOLD_RATED, "estimate"]
    return GOLD_RATED if gold.notna().any() else PairKind.RATED


_tuned = partial(row, tuning=Tuning.TUNED, metric=judged, share=largest_share)
_gains = partial(_tuned, "gains", arm=ArmName.ALL, size=largest_size)
_contrasts = partial(_tuned, "contrasts", size=largest_size)


def _shared(quantity: Row) -> Row:
    """The same where all arms share one setting."""
    return replace(quantity, where={**quantity.where, "tuning": Tuning.SHARED})


FALL = -_tuned("trends", arm=ArmName.ALL)
START = _gains(size=smallest_size)


def _has_trend(record: Record) -> bool:
    """Whether there are several sizes, with as many edits for each group in all of them."""
    costs = record.tables["costs"]
    costs = costs[(costs["arm"] == ArmName.ALL) & (costs["share"] == costs["share"].max())]
    dose = costs["edits"] / costs["size"]
    return len(dose) > 1 and dose.max() < 1.2 * dose.min()


def _late(record: Record) -> bool:
    """Whether the run was added after the first results had been seen: the longer training."""
    return record.source == "simulator-longer"


LLAMA_3 = "Llama 3, section 4.1.2"
OURS = "derived in this book"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "edits-are-better",
        LLAMA_3,
        "A model trained without edits scores edited above chosen.",
        "edited > chosen > rejected, by construction",
        "accuracy on edited > chosen, edits ignored, tuned, most data; by chance one half",
        "edits",
        gain(
            _tuned("metrics", arm=ArmName.IGNORE, metric=PairKind.EDITED_CHOSEN, size=largest_size),
            smallest=FIVE_POINTS,
            over=0.5,
        ),
        late=_late,
    ),
    Claim(
        "edits-help",
        f"inferred from {LLAMA_3}",
        "Training on edited responses as well ranks what annotators chose better.",
        "no number given",
        "accuracy on chosen > rejected (by gold where known), all pairs minus edits ignored, tuned "
        "and shared, most data",
        "edits",
        gain(_gains(), smallest=ONE_POINT),
        headline=True,
        otherwise=_shared(_gains()),
        late=_late,
    ),
    Claim(
        "edits-teach-edits",
        f"inferred from {LLAMA_3}",
        "Training on edited responses as well ranks new edits above what they edit.",
        "no number given",
        "accuracy on edited > chosen, all pairs minus edits ignored, tuned, most data",
        "edits",
        gain(_gains(metric=PairKind.EDITED_CHOSEN), smallest=ONE_POINT),
        headline=True,
        otherwise=_shared(_gains(metric=PairKind.EDITED_CHOSEN)),
        late=_late,
    ),
    Claim(
        "edits-diminishing",
        OURS,
        "What edits add diminishes as data grows.",
        "no number given",
        "fall of the gain of all pairs on chosen > rejected per tenfold data, tuned; only where "
        "all sizes have as many edits a group and the smallest shows a gain",
        "edits",
        gain(FALL, smallest=ONE_POINT / 2),
        informs=shows_gain(START),
        applies=_has_trend,
        late=_late,
    ),
    Claim(
        "worth-a-rating",
        OURS,
        "For annotators, one edit is worth more than one more comparison.",
        "no number given",
        "accuracy on chosen > rejected, all pairs minus one more comparison for each edit, tuned, "
        "most data",
        "edits",
        gain(_contrasts(contrast=Contrast.ALL_ONE_MORE), smallest=ONE_POINT),
        headline=True,
        otherwise=_shared(_contrasts(contrast=Contrast.ALL_ONE_MORE)),
        late=_late,
    ),
    Claim(
        "worth-its-pairs",
        OURS,
        "The two pairs that an edit adds are worth two more comparisons.",
        "no number given",
        "accuracy on chosen > rejected, all pairs minus two more comparisons for each edit, tuned, "
        "most data; holds above −1 point",
        "edits",
        no_worse(_contrasts(contrast=Contrast.ALL_TWO_MORE), ONE_POINT),
        otherwise=_shared(_contrasts(contrast=Contrast.ALL_TWO_MORE)),
        late=_late,
    ),
    Claim(
        "plackett-luce-alike",
        OURS,
        "Plackett–Luce and the sum over all pairs train equally good models.",
        "no number given",
        "accuracy on chosen > rejected, Plackett–Luce minus all pairs, tuned, most data; "
        "holds within a point",
        "edits",
        within(_contrasts(contrast=Contrast.PLACKETT_LUCE_ALL), ONE_POINT),
        headline=True,
        otherwise=_shared(_contrasts(contrast=Contrast.PLACKETT_LUCE_ALL)),
        applies=holds("contrasts", "contrast", Contrast.PLACKETT_LUCE_ALL),
        late=_late,
    ),
    Claim(
        "weights-alike",
        OURS,
        "Weighting by prompt instead of by pair trains an equally good model.",
        "no number given",
        "accuracy on chosen > rejected, by prompt minus by pair, tuned, most data; holds "
        "within a point",
        "edits",
        within(_contrasts(contrast=Contrast.PROMPT_PAIR), ONE_POINT),
        otherwise=_shared(_contrasts(contrast=Contrast.PROMPT_PAIR)),
        applies=holds("contrasts", "contrast", Contrast.PROMPT_PAIR),
        late=_late,
    ),
    Claim(
        "near-pair-teaches",
        OURS,
        "Edited > chosen teaches more than edited > rejected.",
        "no number given",
        "accuracy on chosen > rejected, adding edited > chosen minus adding edited > rejected, "
        "tuned, most data",
        "edits",
        gain(_contrasts(contrast=Contrast.OVER_CHOSEN_REJECTED), smallest=ONE_POINT),
        otherwise=_shared(_contrasts(contrast=Contrast.OVER_CHOSEN_REJECTED)),
        applies=holds("contrasts", "contrast", Contrast.OVER_CHOSEN_REJECTED),
        late=_late,
    ),
    Claim(
        "close-edits-teach",
        OURS,
        "Edits close to the chosen response teach more than others.",
        "no number given",
        "accuracy on chosen > rejected, all pairs of the half of edits closest to the chosen "
        "response minus those of the other half, tuned, most data",
        "edits",
        gain(_contrasts(contrast=Contrast.CLOSEST_FARTHEST), smallest=ONE_POINT),
        otherwise=_shared(_contrasts(contrast=Contrast.CLOSEST_FARTHEST)),
        applies=holds("contrasts", "contrast", Contrast.CLOSEST_FARTHEST),
        late=_late,
    ),
    Claim(
        "no-brevity",
        OURS,
        "Edits do not teach the model to prefer the shorter response.",
        "no number given",
        "half of the gain on chosen > rejected whose winner is the longer less that of the "
        "others, all pairs minus edits ignored, tuned, most data; holds above −2 points",
        "edits",
        no_worse(-_gains(metric=LEANS_SHORTER), 2 * ONE_POINT),
        otherwise=_shared(-_gains(metric=LEANS_SHORTER)),
        late=_late,
    ),
)

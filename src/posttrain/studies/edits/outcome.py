"""Arms of the study of edited responses, the cells it trains, and its tables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd

from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, slope
from posttrain.evaluation.metrics import Metric
from posttrain.studies.common.groups import DataSettings
from posttrain.studies.common.keys import Tuning
from posttrain.studies.common.tables import TidyTable, difference
from posttrain.studies.edits.keys import ArmName, Contrast
from posttrain.studies.edits.metrics import COLUMNS, edit_metrics
from posttrain.training.collator import LossType
from posttrain.training.pairing import Pairing

#: Annotators' choices, and nothing else; Llama 3's loss has no margins.
ORDINARY = Pairing("rated", margins="none")
#: And every comparison with an edit.
ALL = replace(ORDINARY, pairs="all")


@dataclass(frozen=True)
class Arm:
    """One way of using edits."""

    pairing: Pairing = ORDINARY  #: Which comparisons of an edited group are trained on.
    loss_type: LossType = "pairs"  #: Likelihood of pairs, or of whole rankings.
    #: Ordinary groups, of one rated pair each, added for each edit. Such an arm ignores edits: it
    #: shows what the same effort would have bought without them.
    added: int = 0
    #: Which half of the edits is used, by how much of the chosen response they change; None for
    #: all.
    half: Literal["closest", "farthest"] | None = None

    @property
    def uses_edits(self) -> bool:
        """Whether an edited response takes part in training."""
        return self.pairing.pairs != "rated"


ARMS: dict[str, Arm] = {
    ArmName.IGNORE: Arm(),
    ArmName.ADD_OVER_CHOSEN: Arm(replace(ORDINARY, pairs="rated and edited over chosen")),
    ArmName.ADD_OVER_REJECTED: Arm(replace(ORDINARY, pairs="rated and edited over rejected")),
    ArmName.ALL: Arm(ALL),
    ArmName.BY_PROMPT: Arm(replace(ALL, weighting="prompt")),
    ArmName.PLACKETT_LUCE: Arm(ALL, loss_type="plackett-luce"),
    # As many pairs as without edits: edited > rejected takes the place of chosen > rejected.
    ArmName.INSTEAD: Arm(replace(ORDINARY, pairs="edited over rejected")),
    # As many pairs as with one of an edit's pairs, and as many as with both.
    ArmName.ONE_MORE: Arm(added=1),
    ArmName.TWO_MORE: Arm(added=2),
    ArmName.CLOSEST: Arm(ALL, half="closest"),
    ArmName.FARTHEST: Arm(ALL, half="farthest"),
}
#: Paired differences between two arms of one size and share.
CONTRASTS = {
    Contrast.OVER_CHOSEN_ONE_MORE: (ArmName.ADD_OVER_CHOSEN, ArmName.ONE_MORE),
    Contrast.OVER_REJECTED_ONE_MORE: (ArmName.ADD_OVER_REJECTED, ArmName.ONE_MORE),
    Contrast.ALL_ONE_MORE: (ArmName.ALL, ArmName.ONE_MORE),
    Contrast.ALL_TWO_MORE: (ArmName.ALL, ArmName.TWO_MORE),
    Contrast.PROMPT_PAIR: (ArmName.BY_PROMPT, ArmName.ALL),
    Contrast.PLACKETT_LUCE_ALL: (ArmName.PLACKETT_LUCE, ArmName.ALL),
    Contrast.OVER_CHOSEN_REJECTED: (
        ArmName.ADD_OVER_CHOSEN,
        ArmName.ADD_OVER_REJECTED,
    ),
    Contrast.CLOSEST_FARTHEST: (ArmName.CLOSEST, ArmName.FARTHEST),
}


@dataclass(frozen=True)
class Cell:
    """One arm at one data size and one share of edits."""

    arm: str
    size: int  #: Training groups, those that an arm adds aside.
    share: float  #: Of the edits among them that are used.


@dataclass(frozen=True)
class CellSettings(DataSettings):
    """Which cells a study runs."""

    arms: list[str] = setting(list(ARMS), "Ways of using edits.")
    sizes: list[int] = setting([250, 1000], "Training groups, without those that an arm adds.")
    shares: list[float] = setting([0.25, 1.0], "Shares of their edits that are used.")
    seeds: int = setting(10, "Repetitions, each with other training groups.")

    def __post_init__(self) -> None:
        at_least_one(self, "seeds", "resamples")
        for name in ("sizes", "shares"):
            if not getattr(self, name):
                raise UserError(f"{name} needs at least one value")
        if min(self.sizes) < 1:
            raise UserError(f"sizes must be at least 1, not {self.sizes}")
        if not all(0 < share <= 1 for share in self.shares):
            raise UserError(f"shares must lie above 0 and be at most 1, not {self.shares}")
        if ArmName.IGNORE not in self.arms or not set(self.arms) <= set(ARMS):
            raise UserError(
                f"arms must contain {ArmName.IGNORE!r} and only names of {', '.join(ARMS)}; got "
                f"{', '.join(self.arms)}"
            )

    @property
    def cells(self) -> list[Cell]:
        """Every arm at every size and share."""
        return [Cell(*cell) for cell in product(self.arms, self.sizes, self.shares)]


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every cell."""

    sums: Mapping[Cell, np.ndarray]  #: ``[seeds, test groups, COLUMNS]``, tuned for each cell.
    shared: Mapping[Cell, np.ndarray]  #: The same with hyperparameters that all cells share.
    #: What a run takes on average (see :func:`.edits.data.cost`).
    costs: Mapping[Cell, Mapping[str, float]]
    #: Sums of scores that no model gives, ``[test groups, COLUMNS]``.
    baselines: Mapping[str, np.ndarray]
    account: dict[str, Any] = field(default_factory=dict)  #: Of the test groups.


def summarise(outcome: Outcome, *, resamples: int = 1000) -> dict[str, pd.DataFrame]:
    """Tidy tables of an outcome, each estimate with a 95 % interval over test groups and seeds.

    Returns:
        - ``metrics``: by arm, size, share, tuning (``tuned`` or ``shared``) and metric.
        - ``gains``: the same for the paired difference to the arm that ignores edits.
        - ``contrasts``: paired differences of :data:`CONTRASTS`.
        - ``trends``: change of the gains per tenfold data, by arm, share, tuning and metric; NaN
          with a single size.
        - ``costs``: what a run of each cell takes (see :func:`.edits.data.cost`).
        - ``baselines``: metrics of scores that no model gives.
    """
    seeds, groups, _ = next(iter(outcome.sums.values())).shape
    draws = Resamples.draw(groups, seeds, count=resamples)
    head = ("arm", "size", "share", "tuning", "metric")
    metrics, gains = TidyTable(*head), TidyTable(*head)
    contrasts = TidyTable("contrast", *head[1:])
    trends = TidyTable("arm", "share", "tuning", "metric")
    for tuning, chosen in ((Tuning.TUNED, outcome.sums), (Tuning.SHARED, outcome.shared)):
        measured = {cell: draws.measure(sums, edit_metrics) for cell, sums in chosen.items()}
        gained = {
            cell: difference(values, measured[Cell(ArmName.IGNORE, cell.size, cell.share)])
            for cell, values in measured.items()
            if cell.arm != ArmName.IGNORE
        }
        for table, by_cell in ((metrics, measured), (gains, gained)):
            for cell, values in by_cell.items():
                table.add_metrics(cell.arm, cell.size, cell.share, tuning, metrics=values)
        sizes = sorted({cell.size for cell in measured})
        for arm, share in dict.fromkeys((cell.arm, cell.share) for cell in gained):
            for metric in edit_metrics(np.zeros(COLUMNS)):
                curve = np.stack([gained[Cell(arm, size, share)][metric] for size in sizes])
                trends.add(arm, share, tuning, metric, replicates=slope(sizes, curve))
        for size, share in dict.fromkeys((cell.size, cell.share) for cell in measured):
            for contrast, arms in CONTRASTS.items():
                first, second = (measured.get(Cell(arm, size, share)) for arm in arms)
                if first is not None and second is not None:
                    gaps = difference(first, second)
                    contrasts.add_metrics(contrast, size, share, tuning, metrics=gaps)
    alone = Resamples.draw(groups, 1, count=resamples)
    baselines = TidyTable("baseline", "metric")
    for name, sums in outcome.baselines.items():
        baseline = alone.measure(sums[None], edit_metrics)
        # Lengths are no log-odds.
        del baseline[Metric.LOG_LIKELIHOOD]
        baselines.add_metrics(name, metrics=baseline)
    return {
        "metrics": metrics.frame(),
        "gains": gains.frame(),
        "contrasts": contrasts.frame(),
        "trends": trends.frame(),
        "costs": pd.DataFrame([asdict(cell) | {**cost} for cell, cost in outcome.costs.items()]),
        "baselines": baselines.frame(),
    }

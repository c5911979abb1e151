"""Arms of the study of edited responses, what is measured of a trained model, and its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
import pandas as pd

from posttrain.evaluation import Resamples, interval, slope
from posttrain.pairing import RATED, Pairing
from posttrain.preferences import RESPONSES, RankedGroup
from posttrain.settings import setting
from posttrain.studies.groups import DataSettings
from posttrain.trainer import Objective

IGNORE = "edits ignored"
#: Annotators' choices, and nothing else.
ORDINARY = Pairing("rated")


@dataclass(frozen=True)
class Arm:
    """One way of using edits.

    Attributes:
        pairing: Which comparisons of an edited group are trained on.
        objective: Likelihood of pairs, or of whole rankings.
        added: Ordinary groups, of one rated pair each, added for each edit. Such an arm ignores
            edits: it shows what the same effort would have bought without them.
        half: Which half of the edits is used, by how much of the chosen response they change; all
            if not given.
    """

    pairing: Pairing = ORDINARY
    objective: Objective = "pairs"
    added: int = 0
    half: Literal["closest", "farthest"] | None = None

    @property
    def uses_edits(self) -> bool:
        """Whether an edited response takes part in training."""
        return self.pairing.pairs != "rated"


ARMS: dict[str, Arm] = {
    IGNORE: Arm(),
    "adding edited > chosen": Arm(Pairing("rated and edited over chosen")),
    "adding edited > rejected": Arm(Pairing("rated and edited over rejected")),
    "all pairs": Arm(Pairing("all")),
    "all pairs, by prompt": Arm(Pairing("all", weighting="prompt")),
    "Plackett–Luce": Arm(Pairing("all"), objective="plackett-luce"),
    # As many pairs as without edits: edited > rejected takes the place of chosen > rejected.
    "edit instead of chosen": Arm(Pairing("edited over rejected")),
    # As many pairs as with one of an edit's pairs, and as many as with both.
    "one more pair": Arm(added=1),
    "two more pairs": Arm(added=2),
    "all pairs, closest edits": Arm(Pairing("all"), half="closest"),
    "all pairs, farthest edits": Arm(Pairing("all"), half="farthest"),
}
#: Paired differences between two arms of one size and share.
CONTRASTS = {
    "adding edited > chosen − one more pair": ("adding edited > chosen", "one more pair"),
    "adding edited > rejected − one more pair": ("adding edited > rejected", "one more pair"),
    "all pairs − one more pair": ("all pairs", "one more pair"),
    "all pairs − two more pairs": ("all pairs", "two more pairs"),
    "by prompt − by pair": ("all pairs, by prompt", "all pairs"),
    "Plackett–Luce − all pairs": ("Plackett–Luce", "all pairs"),
    "adding edited > chosen − edited > rejected": (
        "adding edited > chosen",
        "adding edited > rejected",
    ),
    "closest − farthest edits": ("all pairs, closest edits", "all pairs, farthest edits"),
}
KINDS = (RATED, "edited > chosen", "edited > rejected")
#: Pairs in order of their true quality: all, and those of chosen and rejected alone, because edits
#: are better by construction.
GOLD = ("gold", "gold, chosen and rejected")
#: What test pairs are told apart by: their kind, and whether the winner is the longer response.
STRATA = (
    *KINDS,
    *(f"{kind}, {length}" for kind in KINDS for length in ("winner longer", "winner shorter")),
    *GOLD,
)
# Columns of the sums: number of pairs and of right ones by stratum; of the rated pairs, the
# log-likelihood, how many have responses of different length, and of how many the shorter wins.
_COUNT, _RIGHT = slice(0, len(STRATA)), slice(len(STRATA), 2 * len(STRATA))
_LIKELIHOOD, _UNEQUAL, _SHORTER = range(2 * len(STRATA), 2 * len(STRATA) + 3)
COLUMNS = 2 * len(STRATA) + 3


@dataclass(frozen=True)
class TestPairs:
    """Every pair of the responses of some groups, by kind; and in order of gold, where known.

    Attributes:
        winners: Index of each pair's winner among all responses, shape ``[pairs]``.
        losers: Index of its loser.
        strata: Which of :data:`STRATA` a pair belongs to, shape ``[STRATA, pairs]``.
        shorter: Whether the winner is shorter (1) or longer (−1) in characters, shape ``[pairs]``.
        codes: Index of each pair's split group, shape ``[pairs]``.
        group_count: Number of split groups.
    """

    __test__ = False  # not a test, whatever pytest makes of its name

    winners: np.ndarray
    losers: np.ndarray
    strata: np.ndarray
    shorter: np.ndarray
    codes: np.ndarray
    group_count: int

    @classmethod
    def of(
        cls,
        groups: Sequence[RankedGroup],
        gold: Sequence[Sequence[float]] | None = None,
    ) -> "TestPairs":
        """List the pairs.

        Args:
            groups: Ranked groups, all of whose responses are scored.
            gold: True quality of each group's responses, where it is known.
        """
        names, codes = np.unique([group.group for group in groups], return_inverse=True)
        rows = []
        first = 0
        for number, group in enumerate(groups):
            roles = RESPONSES[-len(group.responses) :]
            for winner, loser in combinations(range(len(group.responses)), 2):
                shorter = np.sign(len(group.responses[loser]) - len(group.responses[winner]))
                ends = (first + winner, first + loser)
                kind = f"{roles[winner]} > {roles[loser]}"
                rows.append((*ends, shorter, codes[number], kind, False))
                if gold is not None and gold[number][winner] != gold[number][loser]:
                    if gold[number][winner] < gold[number][loser]:
                        ends, shorter = ends[::-1], -shorter
                    rows.append((*ends, shorter, codes[number], kind, True))
            first += len(group.responses)
        winners, losers, shorter, of_group, kinds, by_gold = map(np.array, zip(*rows, strict=True))
        found = {kind: (kinds == kind) & ~by_gold for kind in KINDS}
        found |= {GOLD[0]: by_gold, GOLD[1]: by_gold & (kinds == RATED)}
        for kind in KINDS:
            found[f"{kind}, winner longer"] = found[kind] & (shorter < 0)
            found[f"{kind}, winner shorter"] = found[kind] & (shorter > 0)
        strata = np.stack([found[name] for name in STRATA])
        return cls(winners, losers, strata, shorter, of_group, len(names))

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Reduce scores to sums per split group.

        Args:
            scores: Score of each response, shape ``[responses]``.

        Returns:
            Shape ``[group_count, COLUMNS]``.

        Raises:
            ValueError: If a score is not finite.
        """
        if not np.isfinite(scores).all():
            raise ValueError(
                "scores must be finite; a model that gave NaN or infinity has diverged"
            )
        difference = scores[self.winners].astype(float) - scores[self.losers]
        right = (difference > 0) + 0.5 * (difference == 0)
        rated = self.strata[STRATA.index(RATED)]
        unequal = rated & (self.shorter != 0)
        prefers_shorter = np.where(self.shorter > 0, right, 1 - right)
        columns = np.stack(
            [
                *self.strata.astype(float),
                *(self.strata * right),
                rated * -np.logaddexp(0, -difference),
                unequal.astype(float),
                unequal * prefers_shorter,
            ],
            axis=1,
        )
        return (self.codes == np.arange(self.group_count)[:, None]).astype(float) @ columns


def edit_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics from sums over pairs.

    Args:
        sums: Shape ``[..., COLUMNS]``.

    Returns:
        Arrays of the leading shape: ``accuracy`` of each of :data:`STRATA` by its name, NaN where
        there is no such pair; ``log-likelihood`` of chosen > rejected, in nats; ``prefers
        shorter``, the share of chosen and rejected of different length of which the shorter scores
        higher; ``leans shorter``, half of the accuracy on chosen > rejected whose winner is the
        shorter less that of those whose winner is the longer: a model that only ranks better gains
        on both and leans no more than before.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = sums[..., _RIGHT] / sums[..., _COUNT]
        rated = sums[..., STRATA.index(RATED)]
        by_name = {name: accuracy[..., k] for k, name in enumerate(STRATA)}
        longer, shorter = (by_name[f"{RATED}, winner {length}"] for length in ("longer", "shorter"))
        return by_name | {
            "log-likelihood": sums[..., _LIKELIHOOD] / rated,
            "prefers shorter": sums[..., _SHORTER] / sums[..., _UNEQUAL],
            "leans shorter": (shorter - longer) / 2,
        }


@dataclass(frozen=True)
class Cell:
    """One arm at one data size and one share of edits.

    Attributes:
        arm: Name of the arm.
        size: Training groups, those that an arm adds aside.
        share: Share of the edits among them that are used.
    """

    arm: str
    size: int
    share: float


@dataclass(frozen=True)
class CellSettings(DataSettings):
    """Which cells a study runs.

    Raises:
        ValueError: If a number is out of range, a list empty, or an arm unknown or missing.
    """

    arms: list[str] = setting(list(ARMS), "Ways of using edits.")
    sizes: list[int] = setting([250, 1000], "Training groups, without those that an arm adds.")
    shares: list[float] = setting([0.25, 1.0], "Shares of their edits that are used.")
    seeds: int = setting(10, "Repetitions, each with other training groups.")

    def __post_init__(self) -> None:
        for name in ("seeds", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("sizes", "shares"):
            if not getattr(self, name):
                raise ValueError(f"{name} needs at least one value")
        if min(self.sizes) < 1:
            raise ValueError(f"sizes must be at least 1, not {self.sizes}")
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares must lie above 0 and be at most 1, not {self.shares}")
        if IGNORE not in self.arms or not set(self.arms) <= set(ARMS):
            raise ValueError(
                f"arms must contain {IGNORE!r} and only names of {', '.join(ARMS)}; got "
                f"{', '.join(self.arms)}"
            )

    @property
    def cells(self) -> list[Cell]:
        """Every arm at every size and share."""
        return [Cell(*cell) for cell in product(self.arms, self.sizes, self.shares)]


@dataclass(frozen=True)
class Outcome:
    """Held-out results of every cell.

    Attributes:
        sums: Shape ``[seeds, test groups, COLUMNS]``, by cell, hyperparameters tuned for each.
        shared: The same with hyperparameters that all cells share.
        costs: What a run of each cell takes on average (see :func:`.edits_data.cost`).
        baselines: Sums of scores that no model gives, ``[test groups, COLUMNS]``, by name.
        account: Of the test groups.
    """

    sums: Mapping[Cell, np.ndarray]
    shared: Mapping[Cell, np.ndarray]
    costs: Mapping[Cell, Mapping[str, float]]
    baselines: Mapping[str, np.ndarray]
    account: dict[str, Any] = field(default_factory=dict)


def length_baselines(pairs: TestPairs, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Sums of the scores that prefer the longer and the shorter response."""
    return {"longer": pairs.sums(lengths), "shorter": pairs.sums(-lengths)}


HEAD = ["arm", "size", "share", "tuning"]
ESTIMATE = ["estimate", "low", "high"]


def summarise(outcome: Outcome, *, resamples: int = 1000) -> dict[str, pd.DataFrame]:
    """Tidy tables of an outcome, each estimate with a 95 % interval over test groups and seeds.

    Returns:
        - ``metrics``: by arm, size, share, tuning (``tuned`` or ``shared``) and metric.
        - ``gains``: the same for the paired difference to the arm that ignores edits.
        - ``contrasts``: paired differences of :data:`CONTRASTS`.
        - ``trends``: change of the gains per tenfold data, by arm, share, tuning and metric; NaN
          with a single size.
        - ``costs``: what a run of each cell takes (see :func:`.edits_data.cost`).
        - ``baselines``: metrics of scores that no model gives.
    """
    seeds, groups, _ = next(iter(outcome.sums.values())).shape
    draws = Resamples.draw(groups, seeds, count=resamples)
    metrics, gains, contrasts, trends = [], [], [], []
    for tuning, chosen in (("tuned", outcome.sums), ("shared", outcome.shared)):
        measured = {cell: draws.measure(sums, edit_metrics) for cell, sums in chosen.items()}
        for cell, values in measured.items():
            label = (cell.arm, cell.size, cell.share, tuning)
            plain = measured[Cell(IGNORE, cell.size, cell.share)]
            for metric, replicates in values.items():
                metrics.append((*label, metric, *interval(replicates)))
                if cell.arm != IGNORE:
                    gains.append((*label, metric, *interval(replicates - plain[metric])))
        sizes = sorted({cell.size for cell in measured})
        for arm, share in dict.fromkeys((cell.arm, cell.share) for cell in measured):
            for metric in edit_metrics(np.zeros(COLUMNS)) if arm != IGNORE else ():
                curve = np.stack(
                    [
                        measured[Cell(arm, size, share)][metric]
                        - measured[Cell(IGNORE, size, share)][metric]
                        for size in sizes
                    ]
                )
                trends.append((arm, share, tuning, metric, *interval(slope(sizes, curve))))
        for size, share in dict.fromkeys((cell.size, cell.share) for cell in measured):
            for name, (one, other) in CONTRASTS.items():
                pair = [measured.get(Cell(arm, size, share)) for arm in (one, other)]
                if pair[0] is not None and pair[1] is not None:
                    contrasts += [
                        (
                            name, size, share, tuning, metric,
                            *interval(pair[0][metric] - pair[1][metric]),
                        )
                        for metric in pair[0]
                    ]  # fmt: skip
    alone = Resamples.draw(groups, 1, count=resamples)
    baselines = [
        (name, metric, *interval(replicates))
        for name, sums in outcome.baselines.items()
        for metric, replicates in alone.measure(sums[None], edit_metrics).items()
        # Lengths are no log-odds.
        if metric != "log-likelihood"
    ]
    return {
        "metrics": pd.DataFrame(metrics, columns=[*HEAD, "metric", *ESTIMATE]),
        "gains": pd.DataFrame(gains, columns=[*HEAD, "metric", *ESTIMATE]),
        "contrasts": pd.DataFrame(contrasts, columns=["contrast", *HEAD[1:], "metric", *ESTIMATE]),
        "trends": pd.DataFrame(trends, columns=["arm", "share", "tuning", "metric", *ESTIMATE]),
        "costs": pd.DataFrame([asdict(cell) | {**cost} for cell, cost in outcome.costs.items()]),
        "baselines": pd.DataFrame(baselines, columns=["baseline", "metric", *ESTIMATE]),
    }

"""What the study of edits measures of a model: test pairs by kind, winner's length and gold."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from posttrain.data.preferences import RESPONSES, PairKind, RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation.metrics import Metric
from posttrain.evaluation.sums import Columns
from posttrain.studies.edits.keys import GOLD, GOLD_RATED, LEANS_SHORTER

KINDS = tuple(PairKind)
#: What test pairs are told apart by: their kind, and whether the winner is the longer response.
STRATA = (
    *KINDS,
    *(f"{kind}, {length}" for kind in KINDS for length in ("winner longer", "winner shorter")),
    GOLD,
    GOLD_RATED,
)
#: What is summed over pairs: pairs and right ones by stratum, the log-likelihood of rated pairs.
SUMS = Columns(count=len(STRATA), right=len(STRATA), likelihood=None)
COLUMNS = SUMS.width


@dataclass(frozen=True)
class TestPairs:
    """Every pair of the responses of some groups, by kind; and in order of gold, where known."""

    __test__ = False  # not a test, whatever pytest makes of its name

    winners: np.ndarray  #: Index of each pair's winner among all responses, ``[pairs]``.
    losers: np.ndarray  #: Index of its loser.
    strata: np.ndarray  #: Which of :data:`STRATA` a pair belongs to, ``[STRATA, pairs]``.
    codes: np.ndarray  #: Index of each pair's split group, ``[pairs]``.
    group_count: int  #: Number of split groups.

    @classmethod
    def from_groups(
        cls,
        groups: Sequence[RankedGroup],
        gold: Sequence[Sequence[float]] | None = None,
    ) -> "TestPairs":
        """List the pairs; ``gold`` is the true quality of each group's responses, where known."""
        names, codes = np.unique([group.cluster_id for group in groups], return_inverse=True)
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
        by_stratum: dict[str, np.ndarray] = {kind: (kinds == kind) & ~by_gold for kind in KINDS}
        by_stratum |= {GOLD: by_gold, GOLD_RATED: by_gold & (kinds == PairKind.RATED)}
        for kind in KINDS:
            by_stratum[f"{kind}, winner longer"] = by_stratum[kind] & (shorter < 0)
            by_stratum[f"{kind}, winner shorter"] = by_stratum[kind] & (shorter > 0)
        strata = np.stack([by_stratum[name] for name in STRATA])
        return cls(winners, losers, strata, of_group, len(names))

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """Reduce scores, ``[responses]``, to sums per split group, ``[group_count, COLUMNS]``.

        Raises:
            UserError: If a score is not finite.
        """
        if not np.isfinite(scores).all():
            raise UserError("scores must be finite; a model that gave NaN or infinity has diverged")
        difference = scores[self.winners].astype(float) - scores[self.losers]
        right = (difference > 0) + 0.5 * (difference == 0)
        rated = self.strata[STRATA.index(PairKind.RATED)]
        columns = SUMS.join(
            count=self.strata.T,
            right=(self.strata * right).T,
            likelihood=rated * -np.logaddexp(0, -difference),
        )
        return (self.codes == np.arange(self.group_count)[:, None]).astype(float) @ columns


def edit_metrics(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of the leading shape from sums over pairs, ``[..., COLUMNS]``.

    - accuracy of each of :data:`STRATA` by its name, NaN where there is no such pair;
    - ``log-likelihood`` of chosen > rejected, in nats;
    - ``leans shorter``, half of the accuracy on chosen > rejected whose winner is the shorter less
      that of those whose winner is the longer: a model that only ranks better gains on both and
      leans no more than before.
    """
    totals = SUMS.split(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = totals.right / totals.count
        rated = totals.count[..., STRATA.index(PairKind.RATED)]
        by_name = {name: accuracy[..., k] for k, name in enumerate(STRATA)}
        longer, shorter = (
            by_name[f"{PairKind.RATED}, winner {length}"] for length in ("longer", "shorter")
        )
        return by_name | {
            Metric.LOG_LIKELIHOOD: totals.likelihood / rated,
            LEANS_SHORTER: (shorter - longer) / 2,
        }


def length_baselines(pairs: TestPairs, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Sums of the scores that prefer the longer and the shorter response."""
    return {"longer": pairs.sums(lengths), "shorter": pairs.sums(-lengths)}

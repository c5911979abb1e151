"""The claims about reinforcement learning, each with its source and the rule that judges it."""

from dataclasses import replace
from functools import partial

from posttrain.evidence.claims import Claim, gain, has, row
from posttrain.evidence.records import Record
from posttrain.studies.reinforcement.keys import Reward, Value


def _strongest(record: Record) -> float:
    return float(record.tables["changes"]["penalty"].max())


_gold = partial(row, value=Value.GOLD)
_claim = partial(Claim, study="reinforcement", unit="plain")

_CLAIMS = (
    _claim(
        key="reinforcement-turns",
        source="Gao et al., 2023",
        statement="A policy that is trained on a reward model long enough becomes worse than it "
        "was.",
        paper="gold falls beyond some divergence, for every proxy",
        quantity="gold of the first steps minus of the last, single reward model, no penalty; at "
        "least a unit",
        rule=gain(-_gold("changes", reward=Reward.SINGLE, penalty=0.0), smallest=1.0),
    ),
    _claim(
        key="penalty-holds",
        source="Gao et al., 2023; Llama 2, section 3.2.3",
        statement="After 40 steps of GRPO, a KL penalty leaves the policy better than none.",
        paper="as early stopping does, Gao et al. find: it slows the walk",
        quantity="change of gold with the penalty minus without, single reward model; at least a "
        "unit",
        rule=gain(_gold("gains", reward=Reward.SINGLE, penalty=_strongest), smallest=1.0),
    ),
    _claim(
        key="minimum-holds",
        source="Coste et al., 2023",
        statement="GRPO on the minimum of an ensemble, without penalty, leaves the policy better "
        "than on one reward model.",
        paper="reduces over-optimisation, and removes it with a small penalty",
        quantity="change of gold by the minimum of four minus by a single model; at least a unit",
        rule=gain(_gold("gains", reward=Reward.MINIMUM, penalty=0.0), smallest=1.0),
    ),
)
#: All of them; a record judges those whose row it has.
CLAIMS: tuple[Claim, ...] = tuple(replace(claim, applies=has(claim.rule.row)) for claim in _CLAIMS)

"""The claims about choosing the best of n, each with its source and the rule that judges it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from posttrain.evidence.claims import Claim, gain, has, no_worse, row
from posttrain.evidence.records import Record
from posttrain.studies.best_of_n.keys import FEW, MANY, Proxy, Test, World
from posttrain.studies.common.keys import TENTH


def largest(record: Record) -> int:
    """The most annotated pairs of a record."""
    return int(record.tables["changes"]["size"].max())


def most(record: Record) -> int:
    """The largest n of a record."""
    return int(record.tables["curves"]["n"].max())


def _noisiest(record: Record) -> float:
    return float(record.tables["changes"]["noise"].max())


_praise = partial(row, world=World.PRAISE, size=largest)
_claim = partial(Claim, study="best-of-n", unit="plain")

_CLAIMS = (
    _claim(
        key="no-turn-at-thirty",
        source="Gao et al., 2023",
        statement="Choosing among 30 samples is not worse than among 10: Llama 3's numbers lie "
        "below the turn.",
        paper="their weakest proxy turns at some hundred samples",
        quantity="gold of the best of 30 minus the best of 10, single reward model, most pairs, "
        "where praise goes with quality; holds above minus a tenth of a unit",
        rule=no_worse(_praise("changes", noise=0.0, proxy=Proxy.SINGLE, n=FEW, to=MANY), TENTH),
    ),
    _claim(
        key="no-turn-without-cue",
        source="Gao et al., 2023",
        statement="Choosing among 30 samples is not worse than among 10, where praise says nothing "
        "of quality.",
        paper="their weakest proxy turns at some hundred samples",
        quantity="the same in the control world",
        rule=no_worse(
            row(
                "changes",
                world=World.CONTROL,
                noise=0.0,
                size=largest,
                proxy=Proxy.SINGLE,
                n=FEW,
                to=MANY,
            ),
            TENTH,
        ),
    ),
    _claim(
        key="ensemble-delays-turn",
        source="Coste et al., 2023",
        statement="With wrong labels, an ensemble's mean less its variance chooses better at large "
        "n than a single reward model.",
        paper="stops the turn, under 25 % label noise too",
        quantity="gold of the best of the most samples by mean − variance minus by a single model, "
        "most pairs, most of them turned round",
        rule=gain(_praise("gains", noise=_noisiest, proxy=Proxy.VARIANCE, n=most), smallest=TENTH),
    ),
    _claim(
        key="mean-delays-turn",
        source="Coste et al., 2023",
        statement="With wrong labels, an ensemble's mean chooses no better at large n than a "
        "single reward model.",
        paper="the mean does not stop the turn under noise",
        quantity="the same by the mean; the claim is that it is not better by a tenth of a unit",
        rule=no_worse(-_praise("gains", noise=_noisiest, proxy=Proxy.MEAN, n=most), TENTH),
    ),
    _claim(
        key="average-chooses-better",
        source="WARM (Ramé et al., 2024)",
        statement="The average of reward models' weights chooses better than one of them.",
        paper="79.4 % of comparisons won against the best single one",
        quantity="gold of the best of the most samples by the average of weights minus by a single "
        "model, most pairs, as annotated",
        rule=gain(_praise("gains", noise=0.0, proxy=Proxy.AVERAGE, n=most), smallest=TENTH),
    ),
    _claim(
        key="policy-pairs-predict",
        source="derived in this book",
        statement="Accuracy on pairs of the policy's own answers predicts what a reward model's "
        "choices are worth, over worlds with and without a cue.",
        paper="not mentioned",
        quantity="rank correlation over the reward models of both worlds of that accuracy with "
        "gold of the best of 64; at least 0.5",
        rule=gain(row("predictions", test=Test.POLICY), smallest=0.5),
    ),
    _claim(
        key="held-out-pairs-predict",
        source="derived in this book",
        statement="Accuracy on held-out pairs like those of training predicts what a reward "
        "model's choices are worth.",
        paper="not mentioned",
        quantity="the same of held-out pairs",
        rule=gain(row("predictions", test=Test.HELD_OUT), smallest=0.5),
    ),
    _claim(
        key="highest-grows",
        source="Llama 2, Figure 7",
        statement="The highest reward among n samples grows with n.",
        paper="grows up to n = 100; no number given",
        quantity="gold of the best by gold, of the most samples minus of one, temperature 1",
        rule=gain(row("growth", value="highest"), smallest=TENTH),
    ),
    _claim(
        key="median-stays",
        source="Llama 2, Figure 7",
        statement="The median reward among n samples does not grow with n.",
        paper="hardly changes; no number given",
        quantity="median gold of the most samples minus of one; holds below a tenth of a unit",
        rule=no_worse(-row("growth", value="median"), TENTH),
    ),
    _claim(
        key="temperature-shifts",
        source="Llama 2, Figure 8",
        statement="The best temperature is higher the more samples are drawn.",
        paper="1.2 to 1.3 for 10 to 100 samples of the RLHF model",
        quantity="temperature at which gold of the best by gold is highest, for the most samples "
        "minus for one; at least 0.2",
        rule=gain(row("shift"), smallest=0.2),
    ),
)


def _judges(claim: Claim) -> Callable[[Record], bool]:
    """Whether a record has the row of a claim, and wrong labels where the claim is about them."""
    if claim.key not in ("ensemble-delays-turn", "mean-delays-turn"):
        return has(claim.rule.row)
    return lambda record: _noisiest(record) > 0 and has(claim.rule.row)(record)


#: All of them; a record judges those whose row it has.
CLAIMS: tuple[Claim, ...] = tuple(replace(claim, applies=_judges(claim)) for claim in _CLAIMS)

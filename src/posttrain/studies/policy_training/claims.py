"""The claims about training policies, each with its source and the rule that judges it."""

from dataclasses import replace
from functools import partial

from posttrain.evidence.claims import Claim, gain, has, row
from posttrain.evidence.records import Record
from posttrain.studies.common.keys import TENTH
from posttrain.studies.policy_training.keys import Averaged, Filter, Loss, Measure, Question


def most_passes(record: Record) -> int:
    """The most passes of DPO in a record."""
    return int(record.tables["levels"]["passes"].max())


_loss = partial(row, "gains", question=Question.LOSS, passes=most_passes)
_claim = partial(Claim, study="policy-training", unit="plain")

_CLAIMS = (
    _claim(
        key="nll-keeps-chosen",
        source="Llama 3, section 4.1.4",
        statement="The NLL term makes the log-probability of chosen responses fall less.",
        paper="prevents the decrease, after Pang et al. (2024); no number given",
        quantity="log-probability of chosen responses with the NLL term minus in plain DPO, most "
        "passes; at least 1 nat",
        rule=gain(_loss(arm=Loss.NLL, measure=Measure.CHOSEN), smallest=1.0),
    ),
    _claim(
        key="dpo-lowers-chosen",
        source="Pang et al., 2024",
        statement="Plain DPO makes chosen responses less likely.",
        paper="falls in training; shown as a curve",
        quantity="log-probability of chosen responses after plain DPO minus before, most passes; "
        "at least 1 nat lower",
        rule=gain(
            -row(
                "levels",
                question=Question.LOSS,
                arm=Loss.PLAIN,
                passes=most_passes,
                measure=Measure.CHOSEN,
            ),
            smallest=1.0,
        ),
    ),
    _claim(
        key="mask-mends-endings",
        source="Llama 3, section 4.1.4",
        statement="Masking the end of turn out of DPO's loss prevents bad endings.",
        paper="repeated tails and abrupt ends; no number given",
        quantity="share of answers that end well with the end masked minus in plain DPO, most "
        "passes",
        unit="points",
        rule=gain(_loss(arm=Loss.MASK, measure=Measure.ENDED), smallest=0.01),
    ),
    _claim(
        key="paper-loss-helps",
        source="Llama 3, section 4.1.4",
        statement="With the NLL term and the mask, DPO makes a better policy than plain DPO.",
        paper="no number given",
        quantity="gold with the end masked and the NLL term minus plain DPO, most passes",
        rule=gain(_loss(arm=Loss.LLAMA3, measure=Measure.GOLD), smallest=TENTH),
    ),
    _claim(
        key="passes-overoptimise",
        source="Rafailov et al., 2024",
        statement="More passes of DPO make the policy worse.",
        paper="often within a quarter of a pass",
        quantity="gold after one pass minus after the most, plain DPO",
        rule=gain(
            -row(
                "passes",
                question=Question.LOSS,
                arm=Loss.PLAIN,
                passes=most_passes,
                measure=Measure.GOLD,
            ),
            smallest=TENTH,
        ),
    ),
    _claim(
        key="averaged-policies-better",
        source="Llama 3, section 4.1.5",
        statement="The average of DPO policies is better than one of them.",
        paper="no number given",
        quantity="gold of the average of policies of three learning rates minus their mean gold",
        rule=gain(
            row(
                "gains",
                question=Question.AVERAGE,
                arm=Averaged.AVERAGE,
                passes=1,
                measure=Measure.GOLD,
            ),
            smallest=TENTH,
        ),
    ),
    _claim(
        key="top-quarter-beats-random",
        source="Llama 3, section 4.2.3",
        statement="SFT on the quarter that the reward model scores highest makes a better policy "
        "than on a random quarter.",
        paper="the top quartile counts as high quality; no number given",
        quantity="gold after SFT on the top quarter minus on a random quarter of the best answers",
        rule=gain(
            row(
                "gains",
                question=Question.FILTER,
                arm=Filter.SCORE,
                passes=1,
                measure=Measure.GOLD,
            ),
            smallest=TENTH,
        ),
    ),
)
#: All of them; a record judges those whose row it has.
CLAIMS: tuple[Claim, ...] = tuple(replace(claim, applies=has(claim.rule.row)) for claim in _CLAIMS)

"""All claims that the studies judge, by key, and what each study's claims are about.

Importing it needs no study's code, so that listing claims is quick.
"""

from pathlib import Path

from posttrain.evidence import records
from posttrain.evidence.claims import Claim
from posttrain.evidence.judging import Judgement, judge
from posttrain.studies.best_of_n import claims as best_of_n
from posttrain.studies.choices import claims as choices
from posttrain.studies.edits import claims as edits
from posttrain.studies.margin import claims as margin
from posttrain.studies.packing import claims as packing
from posttrain.studies.policy_training import claims as policy_training
from posttrain.studies.recipe import claims as recipe
from posttrain.studies.reinforcement import claims as reinforcement
from posttrain.studies.rounds import claims as rounds
from posttrain.studies.tradeoff import claims as tradeoff
from posttrain.studies.training_run import claims as training_run

#: What claims are about, in the order of the book's chapters.
SUBJECTS: dict[str, tuple[Claim, ...]] = {
    "the margin": margin.CLAIMS,
    "packing": packing.CLAIMS,
    "edited responses": edits.CLAIMS,
    "helpfulness and safety": tradeoff.CLAIMS,
    "rounds": (
        best_of_n.CLAIMS
        + choices.CLAIMS
        + reinforcement.CLAIMS
        + rounds.CLAIMS
        + policy_training.CLAIMS
    ),
    "smaller choices": recipe.CLAIMS,
    "training in full": training_run.CLAIMS,
}

CLAIMS: dict[str, Claim] = {claim.key: claim for claims in SUBJECTS.values() for claim in claims}


def judge_all(folder: Path) -> dict[str, Judgement]:
    """The verdict on every claim by the records of a folder: all of them, which share a level."""
    studies = dict.fromkeys(claim.study for claim in CLAIMS.values())
    return judge([*CLAIMS.values()], records.load_all(folder, *studies))

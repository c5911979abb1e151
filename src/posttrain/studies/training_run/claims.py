"""This book's claims about training in full, each with the rule that judges it."""

from functools import partial

from posttrain.evaluation.metrics import Metric
from posttrain.evidence.claims import Claim, gain, row
from posttrain.studies.training_run.keys import Scorer

#: A point of accuracy: less would not be worth a training run.
WORTH = 0.01

_differences = partial(row, "differences", metric=Metric.ACCURACY)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        key="beats-length",
        source="this book",
        statement="A trained reward model ranks better than preferring the longer response",
        paper="–",
        quantity="accuracy on held-out groups, the trained model minus the longer response",
        study="training",
        rule=gain(_differences(scorer=Scorer.LENGTH), smallest=WORTH),
    ),
    Claim(
        key="beats-a-head",
        source="this book",
        statement="Training layers ranks better than a linear head on frozen features",
        paper="–",
        quantity="accuracy on held-out groups, the trained model minus a head fitted on all "
        "training groups of the same strengths, tuned by cross-validation among them",
        study="training",
        rule=gain(_differences(scorer=Scorer.HEAD), smallest=WORTH),
    ),
)

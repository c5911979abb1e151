"""This book's claims about training in full, each with the test that judges it."""

from collections.abc import Callable

from posttrain.evidence.claims import Claim, Evidence, estimate
from posttrain.evidence.records import Record
from posttrain.studies.training_run.study import HEAD, LENGTH

#: A point of accuracy: less would not be worth a training run.
WORTH = 0.01


def _beats(baseline: str) -> Callable[[Record], Evidence]:
    def test(record: Record) -> Evidence:
        found = estimate(record.tables["differences"], scorer=baseline, metric="accuracy")
        return Evidence(record.name, *found, WORTH)

    return test


TRAINING_CLAIMS = [
    Claim(
        key="beats length",
        source="this book",
        statement="A trained reward model ranks better than preferring the longer response",
        paper="–",
        quantity="accuracy on held-out groups, the trained model minus the longer response",
        study="training",
        test=_beats(LENGTH),
        ours=True,
    ),
    Claim(
        key="beats a head",
        source="this book",
        statement="Training layers ranks better than a linear head on frozen features",
        paper="–",
        quantity="accuracy on held-out groups, the trained model minus a head fitted on all "
        "training groups of the same strengths, tuned by cross-validation among them",
        study="training",
        test=_beats(HEAD),
        ours=True,
    ),
]

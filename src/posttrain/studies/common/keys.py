"""Keys that tables of several studies share."""

from posttrain.config.keys import Key


class Tuning(Key):
    """How hyperparameters were chosen: one setting for all arms, or the best of each."""

    SHARED = "shared"
    TUNED = "tuned"


#: Columns of an estimate and its 95 % interval.
ESTIMATE = ("estimate", "low", "high")
#: A tenth of a unit of gold quality: an annotator prefers a response that is so much better in 52.5
#: of 100 comparisons, and in 50 one that is not.
TENTH = 0.1

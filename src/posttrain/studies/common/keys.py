"""Keys that tables of several studies share."""

from posttrain.config.keys import Key


class Tuning(Key):
    """How hyperparameters were chosen: one setting for all arms, or the best of each."""

    SHARED = "shared"
    TUNED = "tuned"


#: Columns of an estimate and its 95 % interval.
ESTIMATE = ("estimate", "low", "high")

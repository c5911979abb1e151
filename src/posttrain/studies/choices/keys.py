"""Keys of the choices study's tables."""

from posttrain.config.keys import Key


class Arm(Key):
    """How a reward model is trained; the first is the reference."""

    PAIRS = "pairs in rows of their own"
    SMALL = "small margin"
    LARGE = "large margin"
    CAUSAL = "causal rows"
    EDITS = "with edits"
    TWICE = "twice the pairs"

"""Keys of the margin study's tables."""

from posttrain.config.keys import Key


class Loss(Key):
    """Arms by loss: Llama 3's, Llama 2's with both margin tables, and HelpSteer2-Preference's.

    The others are controls: the large margins' mean for every pair, and the large margins and the
    scaled loss by strengths that are dealt out at random, which tell what is scale from what is
    information.
    """

    NONE = "none"
    SMALL = "small"
    LARGE = "large"
    SCALED = "scaled"
    CONSTANT = "constant"
    LARGE_PERMUTED = "large, permuted"
    SCALED_PERMUTED = "scaled, permuted"


class Control(Key):
    """Contrasts of the table ``controls``."""

    LARGE_CONSTANT = "large - constant"
    LARGE_PERMUTED = "large - permuted"
    SCALED_PERMUTED = "scaled - permuted"


class Step(Key):
    """Metrics of the table ``steps``: strength 4 minus strength 1."""

    ACCURACY = "accuracy 4 - 1"
    GAIN = "gain 4 - 1"

"""Keys of the margin study's tables."""

from posttrain.config.keys import Key


class Loss(Key):
    """Arms by loss: Llama 3's, Llama 2's with both margin tables, and HelpSteer2-Preference's."""

    NONE = "none"
    SMALL = "small"
    LARGE = "large"
    SCALED = "scaled"


class Step(Key):
    """Metrics of the table ``steps``: strength 4 minus strength 1."""

    ACCURACY = "accuracy 4 - 1"
    GAIN = "gain 4 - 1"

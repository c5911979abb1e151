"""Keys of the recipe study's tables."""

from posttrain.config.keys import Key


class Question(Key):
    """What is varied."""

    START = "start"  #: The checkpoint that training starts from.
    SIMILAR = "similar"  #: Whether pairs of similar responses are dropped.
    AVERAGE = "average"  #: How several models become one.


class Start(Key):
    """Checkpoints to start from; the first is the reference."""

    PRETRAINED = "pre-trained"
    CHAT = "chat"
    UNTRAINED = "untrained"


class Dropped(Key):
    """Pairs left out of training; the first is the reference."""

    NONE = "nothing dropped"
    SIMILAR = "similar dropped"
    RANDOM = "random dropped"


class Combined(Key):
    """What is made of several models; the first, the mean of their accuracies, is the reference."""

    SINGLE = "single"
    BEST = "best single"
    AVERAGE_2 = "average of 2"
    AVERAGE_4 = "average of 4"
    AVERAGE_8 = "average of 8"
    ENSEMBLE_2 = "ensemble of 2"
    ENSEMBLE_4 = "ensemble of 4"
    ENSEMBLE_8 = "ensemble of 8"
    OWN_AVERAGE = "average of 8, own heads"
    OWN_ENSEMBLE = "ensemble of 8, own heads"
    ALL_DATA = "one model of all data"

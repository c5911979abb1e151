"""Keys of the tables of the study of one training run."""

from posttrain.config.keys import Key


class Scorer(Key):
    """What scores the held-out pairs: the trained model, and what costs less."""

    TRAINED = "the trained model"
    LENGTH = "the longer response"
    HEAD = "a head on frozen features"
    HEAD_ALL = "a head, also on weak pairs"

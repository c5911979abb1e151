"""Keys of the reinforcement study's tables."""

from posttrain.config.keys import Key


class Reward(Key):
    """What is maximised; the first is the reference."""

    SINGLE = "single"
    MINIMUM = "ensemble, minimum"
    VARIANCE = "ensemble, mean - variance"


class Value(Key):
    """What is said of a policy's answers."""

    GOLD = "gold"
    SCORE = "score"  #: By the reward, less that of the first policy.
    PRAISE = "phrases of praise"
    WORDS = "words"
    DIVERGENCE = "divergence"  #: KL from the first policy, in nats.

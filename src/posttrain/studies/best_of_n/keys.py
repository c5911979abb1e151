"""Keys of the best-of-n study's tables."""

from posttrain.config.keys import Key

#: Llama 3 samples 10 to 30 answers to a prompt (section 4.2.2).
FEW, MANY = 10, 30


class World(Key):
    """Whether praise goes with quality in what annotators compared; the second is the control."""

    PRAISE = "praise goes with quality"
    CONTROL = "praise says nothing"


class Proxy(Key):
    """What chooses the best of n; the first is the reference of all others."""

    SINGLE = "single"
    MEAN = "ensemble, mean"
    MINIMUM = "ensemble, minimum"
    VARIANCE = "ensemble, mean - variance"
    AVERAGE = "average of weights"
    GOLD = "gold"


class Value(Key):
    """What is said of the best of n."""

    GOLD = "gold"
    SCORE = "score"  #: The proxy's own, less its mean over all samples.
    PRAISE = "phrases of praise"
    WORDS = "words"


class Test(Key):
    """Tests of a reward model that may predict what its choices are worth."""

    HELD_OUT = "held-out pairs"  #: Drawn like those that it was trained on.
    POLICY = "pairs of the policy"
    ADVERSARIAL = "pairs of the policy whose worse answer praises more"
    LAST_DECILE = "pairs of the policy among what it scores highest"

"""Keys of the own-samples study's tables."""

from posttrain.config.keys import Key


class Chooser(Key):
    """Who chooses the best of n."""

    SINGLE = "one reward model"
    MEAN = "mean of several"
    LONGEST = "the longest"
    JUDGE = "one judge, judged by the others"


class Policy(Key):
    """How a policy was trained."""

    SFT = "SFT on the best"
    DPO = "DPO"
    DPO_LONG = "DPO, four passes"
    BOTH = "SFT, then DPO"


class Value(Key):
    """What is said of answers; scores are in standard deviations within a prompt."""

    OWN = "score of who chose"
    JUDGE = "score of the judge"
    LEVEL = "score of the judge at equal length"
    WORDS = "words"
    DIVERGENCE = "divergence"  #: KL from the policy before, in nats.
    ENDED = "ended"  #: Share that the policy ended within the limit.


class Agreement(Key):
    """Two views of the same answers, correlated over the answers to a prompt."""

    JUDGE = "reward model and judge"
    SEEDS = "two reward models of the same pairs"
    WORDS = "reward model and length"
    JUDGE_WORDS = "judge and length"


class Test(Key):
    """What ranks people's pairs for prompts that no model was trained on; shares right."""

    SINGLE = "one reward model"
    MEAN = "mean of several"
    LONGEST = "the longer response"

"""Keys of the rounds study's tables."""

from posttrain.config.keys import Key


class Arm(Key):
    """Recipes; the first is the reference."""

    LLAMA3 = "Llama 3"
    FROZEN = "frozen reward model"
    SFT = "SFT only"
    DPO = "DPO only"
    ALL_SAMPLES = "best of all rounds"
    ALL_PAIRS = "DPO on all rounds"
    CONTINUE = "no restart"
    FEW = "best of 4"
    EDITS = "with edits"
    RANDOM = "random samples"


class Measure(Key):
    """What is measured of a policy after a round."""

    GOLD = "gold"
    SCORE = "score"  #: By the round's reward model, less its score of the first policy.
    DIVERGENCE = "divergence"  #: KL from the pre-trained policy, in nats.
    PRAISE = "phrases of praise"
    WORDS = "words"
    ENDED = (
        "ended well"  #: Share that the policy ended, with nothing but phrases behind the answer.
    )


class Ranked(Key):
    """Whose answers a round's reward model ranks, by gold; shares right."""

    LAST = "the policy before"
    NEXT = "the policy after"
    REFRESHED = "the policy after, by the next reward model"

"""Keys of the policy training study's tables."""

from posttrain.config.keys import Key


class Question(Key):
    """What is varied."""

    LOSS = "loss"  #: The terms and tokens of DPO's loss, by passes over the pairs.
    AVERAGE = "average"  #: Policies of several learning rates, and the average of their weights.
    FILTER = "filter"  #: Which quarter of the best answers SFT sees.


class Loss(Key):
    """DPO's loss; the first is the reference."""

    PLAIN = "plain"
    NLL = "NLL by sequence"
    NLL_TOKEN = "NLL by token"
    MASK = "end masked"
    LLAMA3 = "end masked, NLL by sequence"


class Averaged(Key):
    """What is made of policies that differ in their learning rate; the first is the reference."""

    SINGLE = "single"
    AVERAGE = "average"
    BEST = "best single"


class Filter(Key):
    """Which prompts' best answers SFT sees; the first, as many as the others, is the reference."""

    RANDOM = "random quarter"
    SCORE = "top quarter by reward model"
    GOLD = "top quarter by gold"
    ALL = "all"


class Measure(Key):
    """What is measured of a policy."""

    GOLD = "gold"
    ENDED = "ended well"  #: Share that ended, with nothing but phrases behind the answer.
    DIVERGENCE = "divergence"  #: KL from the pre-trained policy, in nats.
    WORDS = "words"
    CHOSEN = "log-probability of chosen"  #: Less the reference policy's, in nats.
    REJECTED = "log-probability of rejected"

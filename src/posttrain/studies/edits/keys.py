"""Keys of the tables of the study of edits."""

from posttrain.config.keys import Key


class ArmName(Key):
    """Ways of using edits."""

    IGNORE = "edits ignored"
    ADD_OVER_CHOSEN = "adding edited > chosen"
    ADD_OVER_REJECTED = "adding edited > rejected"
    ALL = "all pairs"
    BY_PROMPT = "all pairs, by prompt"
    PLACKETT_LUCE = "Plackett-Luce"
    INSTEAD = "edit instead of chosen"
    ONE_MORE = "one more comparison"
    TWO_MORE = "two more comparisons"
    CLOSEST = "all pairs, closest edits"
    FARTHEST = "all pairs, farthest edits"


class Contrast(Key):
    """Paired differences between two arms of one size and share."""

    OVER_CHOSEN_ONE_MORE = "adding edited > chosen - one more comparison"
    OVER_REJECTED_ONE_MORE = "adding edited > rejected - one more comparison"
    ALL_ONE_MORE = "all pairs - one more comparison"
    ALL_TWO_MORE = "all pairs - two more comparisons"
    PROMPT_PAIR = "by prompt - by pair"
    PLACKETT_LUCE_ALL = "Plackett-Luce - all pairs"
    OVER_CHOSEN_REJECTED = "adding edited > chosen - edited > rejected"
    CLOSEST_FARTHEST = "closest - farthest edits"


#: Metrics: accuracy on pairs in order of their true quality; of all, and of chosen and rejected
#: alone, because edits are better by construction.
GOLD, GOLD_RATED = "gold", "gold, chosen and rejected"
#: Metric: how far a model leans to the shorter response.
LEANS_SHORTER = "leans shorter"

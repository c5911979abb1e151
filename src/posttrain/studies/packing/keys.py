"""Keys of the packing study's tables, and the loss of accuracy that would matter."""

from posttrain.config.keys import Key

#: One percentage point.
MARGIN = 0.01


class RowName(Key):
    """How rows are laid out in training; those that are not ranked also in testing."""

    SEPARATE = "separate"
    EXACT = "exact"
    ATTENTION = "causal attention"
    POSITIONS = "running positions"
    CAUSAL = "causal"
    ATTENTION_RANKED = "causal attention, ranked"
    POSITIONS_RANKED = "running positions, ranked"
    CAUSAL_RANKED = "causal, ranked"


class Contrast(Key):
    """Paired differences of accuracy."""

    SHUFFLED_RANKED = "shuffled - ranked"
    OWN_SEPARATE = "own - separate"
    SHUFFLED_RANKED_SEPARATELY = "shuffled - ranked, tested separately"


class OrderMetric(Key):
    """What is measured of pairs that are scored in both orders."""

    ACCURACY = "accuracy"
    CHOSEN_FIRST = "accuracy, chosen first"
    CHOSEN_LAST = "accuracy, chosen last"
    SLOT_BIAS = "slot bias"
    ORDER_NOISE = "order noise"
    FLIPS = "flips"
    DISAGREEMENT = "disagreement"
    DISTANCE = "distance"
    LOG_LIKELIHOOD = "log-likelihood"

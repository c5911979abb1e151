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


class Way(Key):
    """Ways of training whose speed ``benchmarks/throughput.py`` compares."""

    TRL = "trl"  #: TRL's RewardTrainer: a row for each side of each pair.
    SEPARATE = "separate"  #: A row for each response of a record.
    CAUSAL = "causal"  #: A row a record, with causal attention.
    DENSE = "dense"  #: An exact row a record, with a mask for every two tokens.
    TWO_PIECE = "two-piece"  #: An exact row a record, with attention in two pieces.
    MERGED = "merged"  #: An exact row a prompt, with each distinct response once.
    FLEX = "flex"  #: An exact row a record, with FlexAttention.


class Speed(Key):
    """Metrics of speed."""

    PAIRS = "pairs per second"
    TOKENS = "tokens"
    PADDING = "padding"
    PEAK = "share of matmul peak"
    OVER_TRL = "speed-up over TRL"
    OVER_SEPARATE = "speed-up over separate rows"
    RELATIVE_TOKENS = "relative tokens per second"
    FEWER_TOKENS = "times fewer tokens than TRL"
    FEWER_TOKENS_WHOLE = "times fewer tokens than TRL, whole set"
    LOSS = "loss difference"
    MEMORY = "gigabytes"

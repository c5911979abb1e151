"""Keys of the merging study's tables."""

from posttrain.config.keys import Key


class Way(Key):
    """Arms: each pair by itself, or all pairs of a prompt together."""

    PAIRS = "pairs one by one"
    MERGED = "merged"


class Cost(Key):
    """What a run costs, beside what it learns: metrics of the table ``costs``."""

    TOKENS = "tokens"
    STEPS = "steps"
    SECONDS = "seconds"

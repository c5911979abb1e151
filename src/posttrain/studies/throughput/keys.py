"""Keys of the throughput study's tables that claims and figures read."""

from posttrain.config.keys import Key


class Speed(Key):
    """Ratios of speed."""

    OVER_SEPARATE = "speed-up over separate rows"
    OVER_TRL = "speed-up over TRL"
    TOKENS = "relative tokens per second"

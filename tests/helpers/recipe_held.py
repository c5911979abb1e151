"""What of prepared pairs the tables of the recipe study need."""

from dataclasses import dataclass

import numpy as np

from posttrain.data.preferences import Message, RankedGroup


@dataclass
class Held:
    """Test pairs, each a split group of its own."""

    ranked: list[RankedGroup]

    @property
    def test(self):
        return np.arange(len(self.ranked))

    @property
    def test_codes(self):
        return self.test


def prepared(pairs):
    """So many pairs, of strengths 1 to 4 in turn."""
    return Held(
        [
            RankedGroup(
                str(k), (Message("user", f"question {k}"),), ("yes", "no"), strength=1 + k % 4
            )
            for k in range(pairs)
        ]
    )

"""What a single row saves, in closed form: tokens, visible pairs and floating-point operations.

A group has a prompt of P tokens and K responses of R₁ … R_K tokens. It is arranged in one of four
ways (:data:`Arrangement`):

- ``pair rows``: each of the K(K−1)/2 pairs is two full rows, as a pairwise trainer needs them;
- ``separate rows``: one full row for each response, whatever the number of its pairs;
- ``exact row``: one row, in which responses do not see each other;
- ``causal row``: one row under ordinary causal attention.

Lengths may be averages, so they need not be whole.
"""

from collections.abc import Sequence

import pandas as pd
from transformers import LlamaConfig

from posttrain.studies.common.cost import (
    ARRANGEMENTS,
    GroupLengths,
    dense_pairs,
    forward_flops,
    tokens,
    visible_pairs,
)
from posttrain.studies.common.llama3 import LLAMA3_PROMPT_TOKENS, LLAMA3_RESPONSE_TOKENS


def arrangement_table(
    config: LlamaConfig,
    *,
    prompt: float = LLAMA3_PROMPT_TOKENS,
    response: float = LLAMA3_RESPONSE_TOKENS,
    responses: Sequence[int] = (2, 3),
) -> pd.DataFrame:
    """What one group costs in every arrangement, by default at Llama 3's average lengths.

    Returns:
        One row for each ``K`` and ``arrangement``: ``tokens``, ``visible pairs``, ``dense pairs``,
        ``forward FLOPs`` (of visible pairs), and ``tokens, relative`` and ``FLOPs, relative`` to
        those of the exact row.
    """
    rows = []
    for count in responses:
        group = GroupLengths.equal(prompt, response, count)
        for arrangement in ARRANGEMENTS:
            size, visible = tokens(group, arrangement), visible_pairs(group, arrangement)
            dense = dense_pairs(group, arrangement)
            flops = forward_flops(config, size, visible)
            rows.append((count, arrangement, size, visible, dense, flops))
    table = pd.DataFrame(
        rows,
        columns=["K", "arrangement", "tokens", "visible pairs", "dense pairs", "forward FLOPs"],
    )
    exact = table[table["arrangement"] == "exact row"].set_index("K")
    for column, name in (("tokens", "tokens"), ("forward FLOPs", "FLOPs")):
        table[f"{name}, relative"] = table[column] / table["K"].map(exact[column])
    return table

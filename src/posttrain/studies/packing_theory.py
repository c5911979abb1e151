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
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from transformers import LlamaConfig

Arrangement = Literal["pair rows", "separate rows", "exact row", "causal row"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)

#: Average tokens of Llama 3's preference data (Llama 3, Table 6): an example has 1,041.6, of them
#: 284.0 in the response; the rest is what all responses share.
LLAMA3_RESPONSE_TOKENS = 284.0
LLAMA3_PROMPT_TOKENS = 1041.6 - LLAMA3_RESPONSE_TOKENS
#: Sizes of the smallest Llama 3 model (Llama 3, Table 3).
LLAMA3_8B = LlamaConfig(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14_336,
)


@dataclass(frozen=True)
class GroupLengths:
    """Lengths of a group in tokens.

    Attributes:
        prompt: P, the tokens that all responses share.
        responses: R₁ … R_K, the tokens of each response.
    """

    prompt: float
    responses: tuple[float, ...]

    @classmethod
    def equal(cls, prompt: float, response: float, count: int) -> "GroupLengths":
        """A group of ``count`` responses of the same length."""
        return cls(prompt, (response,) * count)


def row_lengths(group: GroupLengths, arrangement: Arrangement) -> list[float]:
    """Tokens of each row that the group takes, padding aside.

    Raises:
        ValueError: On an unknown arrangement.
    """
    if arrangement not in ARRANGEMENTS:
        raise ValueError(f"unknown arrangement {arrangement!r}; known: {', '.join(ARRANGEMENTS)}")
    separate = [group.prompt + response for response in group.responses]
    if arrangement == "separate rows":
        return separate
    if arrangement == "pair rows":
        # Each response meets each of the others once.
        return separate * (len(separate) - 1)
    return [group.prompt + sum(group.responses)]


def tokens(group: GroupLengths, arrangement: Arrangement) -> float:
    """Tokens that a model computes for the group.

    With equal responses: K(K−1)(P+R) in pair rows, K(P+R) in separate rows, P+KR in a single row.
    """
    return sum(row_lengths(group, arrangement))


def visible_pairs(group: GroupLengths, arrangement: Arrangement) -> float:
    """(Query, key) pairs of tokens of which the first sees the second.

    A causal row of L tokens has L(L+1)/2. With equal responses, an exact row has
    P(P+1)/2 + K(RP + R(R+1)/2), which is (K−1)P(P+1)/2 less than separate rows: the prompt looks at
    itself once instead of K times, and nothing else changes.
    """
    if arrangement == "exact row":
        return _causal(group.prompt) + sum(
            response * group.prompt + _causal(response) for response in group.responses
        )
    return sum(map(_causal, row_lengths(group, arrangement)))


def dense_pairs(group: GroupLengths, arrangement: Arrangement) -> float:
    """Pairs that a kernel computes when it skips nothing that a mask hides: L² a row."""
    return sum(length**2 for length in row_lengths(group, arrangement))


def _causal(length: float) -> float:
    return length * (length + 1) / 2


def token_saving(ratio: float, responses: int, *, against: Arrangement = "separate rows") -> float:
    """How many times the tokens of a single row another arrangement takes.

    K(P+R) / (P+KR) against separate rows, which tends to K as the prompt grows; K−1 times that
    against pair rows.

    Args:
        ratio: P/R, the prompt's length in responses.
        responses: K.
        against: The other arrangement.
    """
    group = GroupLengths.equal(ratio, 1.0, responses)
    return tokens(group, against) / tokens(group, "exact row")


def linear_parameters(config: LlamaConfig) -> int:
    """Weights of all decoder layers' linear maps: q, k, v, o, gate, up and down.

    Embeddings are looked up, not multiplied, and a score head is one column; neither counts.
    """
    keys = (config.num_key_value_heads or config.num_attention_heads) * _head_size(config)
    attention = 2 * config.hidden_size * (_attention_width(config) + keys)
    perceptron = 3 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + perceptron)


def forward_flops(config: LlamaConfig, tokens: float, pairs: float) -> float:
    """Floating-point operations of one forward pass; a multiplication with its addition is two.

    2 · linear parameters · tokens + layers · 4 · (heads × head size) · pairs. The second term is
    the products of queries with keys and of attention weights with values. Normalisations, rotary
    embedding, softmax and activations are left out. Training takes three times as many.

    Args:
        config: Sizes of the model.
        tokens: Tokens computed, see :func:`tokens`.
        pairs: Pairs of tokens computed, see :func:`visible_pairs` and :func:`dense_pairs`.
    """
    attention = config.num_hidden_layers * 4 * _attention_width(config) * pairs
    return 2 * linear_parameters(config) * tokens + attention


def _attention_width(config: LlamaConfig) -> int:
    return config.num_attention_heads * _head_size(config)


def _head_size(config: LlamaConfig) -> int:
    return config.head_dim or config.hidden_size // config.num_attention_heads


def saving_table(ratios: Sequence[float], responses: Sequence[int] = (2, 3)) -> pd.DataFrame:
    """How many times the tokens of a single row the other arrangements take.

    Args:
        ratios: P/R.
        responses: K.

    Returns:
        One row for each K and ratio: ``K``, ``P/R``, ``separate rows`` and ``pair rows``.
    """
    rows = [
        (
            count,
            ratio,
            token_saving(ratio, count),
            token_saving(ratio, count, against="pair rows"),
        )
        for count in responses
        for ratio in ratios
    ]
    return pd.DataFrame(rows, columns=["K", "P/R", "separate rows", "pair rows"])


def arrangement_table(
    config: LlamaConfig,
    *,
    prompt: float = LLAMA3_PROMPT_TOKENS,
    response: float = LLAMA3_RESPONSE_TOKENS,
    responses: Sequence[int] = (2, 3),
) -> pd.DataFrame:
    """What one group costs in every arrangement, by default at Llama 3's average lengths.

    Args:
        config: Sizes of the model.
        prompt: P.
        response: R.
        responses: K.

    Returns:
        One row for each K and arrangement: ``K``, ``arrangement``, ``tokens``, ``visible pairs``,
        ``dense pairs``, ``forward FLOPs`` (of visible pairs), and ``tokens, relative`` and
        ``FLOPs, relative`` to those of the exact row.
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

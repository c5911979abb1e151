"""What a row costs, in closed form: tokens, visible pairs, floating-point operations."""

from dataclasses import dataclass
from typing import Literal, get_args

from transformers import LlamaConfig

from posttrain.models.memory import widths

Arrangement = Literal["pair rows", "separate rows", "exact row", "causal row"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
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
    """Lengths of a group in tokens."""

    prompt: float  #: P, the tokens that all responses share.
    responses: tuple[float, ...]  #: R₁ … R_K, the tokens of each response.

    @classmethod
    def equal(cls, prompt: float, response: float, count: int) -> "GroupLengths":
        """A group of ``count`` responses of the same length."""
        return cls(prompt, (response,) * count)


def row_lengths(group: GroupLengths, arrangement: Arrangement) -> list[float]:
    """Tokens of each row that the group takes, padding aside."""
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


def linear_parameters(config: LlamaConfig) -> int:
    """Weights of all decoder layers' linear maps: q, k, v, o, gate, up and down.

    Embeddings are looked up, not multiplied, and a score head is one column; neither counts.
    """
    hidden, inner, queries, keys = widths(config)
    return config.num_hidden_layers * (2 * hidden * (queries + keys) + 3 * hidden * inner)


def forward_flops(config: LlamaConfig, tokens: float, pairs: float) -> float:
    """Floating-point operations of one forward pass; a multiplication with its addition is two.

    2 · linear parameters · tokens + layers · 4 · (heads × head size) · pairs, with pairs from
    :func:`visible_pairs` or :func:`dense_pairs`. The second term is the products of queries with
    keys and of attention weights with values. Normalisations, rotary embedding, softmax and
    activations are left out. Training takes three times as many.
    """
    _, _, queries, _ = widths(config)
    attention = config.num_hidden_layers * 4 * queries * pairs
    return 2 * linear_parameters(config) * tokens + attention


#: Public sizes of models that one would start from.
SHAPES = {
    "SmolLM2-135M": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3,
    ),
    "Llama-3.2-1B": LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8,
    ),
    "Llama-3.1-8B": LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    ),
    "Llama-3.1-70B": LlamaConfig(
        vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
        num_attention_heads=64, num_key_value_heads=8,
    ),
}  # fmt: skip

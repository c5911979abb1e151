"""Batches, states and models on which attention in two pieces is compared with masks."""

import torch
from small_llama import SMALL, WORDS
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForSequenceClassification

from posttrain.rows.attention import dense_mask, mask_arguments
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.shared_prefix import SharedPrefix
from posttrain.rows.tokenization import TokenizedGroup

EXACT, SEPARATE = LAYOUTS["exact"], LAYOUTS["separate"]
MANY = [(50, [60] * 32), (3, [1]), (1, [2, 90]), (70, [5, 6, 4])]


def random_groups(lengths, words=WORDS):
    """Groups of given lengths (of a prompt, and of its responses) with random tokens."""
    generator = torch.Generator().manual_seed(0)

    def ids(size):
        return tuple(torch.randint(1, words, (size,), generator=generator).tolist())

    return [TokenizedGroup(ids(first), tuple(map(ids, others))) for first, others in lengths]


def rows_of(lengths, pack_length=None):
    return lay_out(random_groups(lengths), EXACT, pad_token_id=0, pack_length=pack_length)


def states_for(batch, heads=4, key_heads=2, size=8, value_size=8, dtype=torch.float64):
    """Random queries, keys and values in the shape, and the order in memory, of a model's."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((heads, size), (key_heads, size), (key_heads, value_size))
    return [
        torch.randn(*batch.input_ids.shape, *shape, generator=generator, dtype=dtype)
        .transpose(1, 2)
        .requires_grad_()
        for shape in sizes
    ]


def by_mask(query, key, value, batch):
    """The same with a mask for every two tokens."""
    return scaled_dot_product_attention(
        query, key, value, attn_mask=dense_mask(batch), enable_gqa=True
    ).transpose(1, 2)


def with_gradients(outputs, states, batch):
    """Outputs without padding, and gradients of a random sum of them."""
    outputs = outputs[batch.document_id >= 0]
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    total = (outputs.double() * weights.to(outputs.device)).sum()
    return outputs, torch.autograd.grad(total, states)


def parts(batch):
    return SharedPrefix(batch.document_id, batch.segment_id)


def small_model(implementation="shared_prefix", dtype=torch.float64, **settings):
    """The same weights whatever the attention."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(LlamaConfig(**SMALL | settings)).to(dtype).eval()
    model.set_attn_implementation(implementation)
    return model


def last_states(model, batch):
    states = model.base_model(
        batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **mask_arguments(model, batch),
    ).last_hidden_state
    return states.flatten(0, 1)[batch.score_index]

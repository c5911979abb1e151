"""Attention in two pieces on a GPU, against float64 on the CPU.

Needs torch, transformers and pytest alone, with ``src`` and ``tests/helpers`` on the path::

    pytest --noconftest -o addopts= tests/rows/test_shared_prefix_cuda.py
"""

from itertools import pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from two_pieces import (
    EXACT,
    MANY,
    SEPARATE,
    by_mask,
    last_states,
    parts,
    random_groups,
    rows_of,
    small_model,
    states_for,
    with_gradients,
)

from posttrain.rows import shared_prefix
from posttrain.rows.layout import lay_out
from posttrain.rows.shared_prefix import attend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BATCHES = {
    "two responses": ([(300, [200, 100])], None),
    "32 responses": ([(50, [60] * 32)], None),
    "several groups a row": ([*MANY, (130, [257, 3]), (700, [100] * 5)], 2048),
    "rows of prompts": ([(5, [40]), (64, [64]), (300, [1])], 512),
}


@pytest.fixture(params=BATCHES)
def batch(request):
    lengths, pack_length = BATCHES[request.param]
    return rows_of(lengths, pack_length)


def errors(batch, dtype, heads, key_heads, size, compute):
    """Root mean square errors of outputs and gradients against float64, each relative."""
    states = states_for(batch, heads, key_heads, size, size)
    rounded = [s.detach().to(dtype).double().requires_grad_() for s in states]
    expected = with_gradients(by_mask(*rounded, batch), rounded, batch)
    there = batch.to("cuda")
    own = [s.detach().to("cuda", dtype).requires_grad_() for s in rounded]
    found = with_gradients(compute(own, there), own, there)
    flat = [[first, *others] for first, others in (found, expected)]
    return torch.tensor([
        (got.detach().double().cpu() - want.detach()).norm() / want.detach().norm()
        for got, want in zip(*flat, strict=True)
    ])  # fmt: skip


def two_pieces(states, batch):
    return attend(*states, parts(batch))


def separately(states, batch):
    """Each segment behind its prompt in a row of its own, as stock attention computes it."""
    found = parts(batch).sequences
    index, bounds = found.keys, (found.query_bounds, found.key_bounds)
    tokens = [s.transpose(1, 2).flatten(0, 1) for s in states]
    times = tokens[0].shape[1] // tokens[1].shape[1]
    outputs = []
    for (start, stop), (first, last) in zip(*(pairwise(b.tolist()) for b in bounds), strict=True):
        # Gradients of a token are summed in float32, lest the sum is what rounds.
        row = [s.float()[index[first:last]].to(s.dtype).transpose(0, 1)[None] for s in tokens]
        query, key, value = row[0], *(s.repeat_interleave(times, dim=1) for s in row[1:])
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs.append(seen[0, :, start - stop :].transpose(0, 1))
    return torch.cat(outputs).unflatten(0, batch.input_ids.shape)


@pytest.mark.parametrize(("heads", "key_heads", "size"), [(4, 4, 64), (9, 3, 64), (8, 1, 128)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_half_precision(batch, dtype, heads, key_heads, size):
    """One call for sequences of unequal lengths, no further off than twice stock's error."""
    found = errors(batch, dtype, heads, key_heads, size, two_pieces)
    stock = errors(batch, dtype, heads, key_heads, size, separately)
    assert (found <= 2 * stock).all(), (found, stock)


def test_cuda_half_precision_takes_the_kernel_for_sequences(batch, monkeypatch):
    calls = []
    real = shared_prefix.varlen_attn

    def counted(*arguments, **options):
        calls.append(options)
        return real(*arguments, **options)

    monkeypatch.setattr(shared_prefix, "varlen_attn", counted)
    states = [s.to("cuda", torch.bfloat16) for s in states_for(batch, size=64, value_size=64)]
    attend(*states, parts(batch.to("cuda")))
    assert len(calls) == 1


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (9, 3)])
def test_cuda_unequal_lengths_end_together(heads, key_heads):
    """Aligned at the beginning, the queries of a response would see a part of its prompt."""
    batch = rows_of([(200, [3, 120])])
    error = errors(batch, torch.bfloat16, heads, key_heads, 64, two_pieces)
    assert (error < 0.02).all()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_cuda_other_precisions(batch, dtype, bound, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    assert (errors(batch, dtype, 9, 3, 64, two_pieces) < bound).all()


@pytest.mark.parametrize("size", [20, 264])
def test_cuda_heads_that_the_kernel_refuses(size):
    batch = rows_of([(30, [20, 10])])
    error = errors(batch, torch.bfloat16, 4, 2, size, two_pieces)
    assert (error < 0.02).all()


def test_cuda_a_model_scores_and_learns_as_in_separate_rows():
    groups = random_groups([(40, [30, 20, 10]), (9, [50, 60]), (100, [7])])
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}

    def run(layout, dtype, device, implementation, **packing):
        model = small_model(implementation, dtype, **sizes, initializer_range=0.05).to(device)
        batch = lay_out(groups, layout, pad_token_id=0, **packing).to(device)
        states = last_states(model, batch).double()
        states.square().mean().backward()
        gradients = [p.grad.flatten() for p in model.base_model.parameters()]
        return states.detach().cpu(), torch.cat(gradients).double().cpu()

    true = run(SEPARATE, torch.float64, "cpu", "sdpa")
    stock = run(SEPARATE, torch.bfloat16, "cuda", "sdpa")
    found = run(EXACT, torch.bfloat16, "cuda", "shared_prefix", pack_length=256)
    for got, other, want in zip(found, stock, true, strict=True):
        assert (got - want).norm() <= 2 * (other - want).norm()
    exact = run(EXACT, torch.float64, "cuda", "shared_prefix", pack_length=256)
    for got, want in zip(exact, true, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

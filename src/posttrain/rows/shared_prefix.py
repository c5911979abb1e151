"""Attention in two pieces: a prompt sees itself, a response its prompt and itself.

Who sees whom in a row is the rule of :func:`.attention.sees`. A mask for every two tokens of a row
makes attention pay for all that it hides; here only what is seen is computed. The implementation
is registered with transformers as :data:`NAME`. Where a forward is not given a
:class:`SharedPrefix`, it is transformers' own ``sdpa``.
"""

import inspect
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import embedding_bag, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from posttrain.errors import UserError
from posttrain.rows.segments import Segments, padded, segments_of, similar

#: Name of the implementation, as transformers' ``attn_implementation``.
NAME = "shared_prefix"
#: Arguments of torch's attention to sequences of different lengths, which versions add to.
_VARLEN = inspect.signature(varlen_attn).parameters
#: Most queries of a response that are computed at once, so that a mask is linear in their keys.
QUERIES = 256


class SharedPrefix:
    """Where prompts and responses of a batch lie, for all layers of a forward.

    Args:
        document_id: Document of each token, −1 for padding; ``[rows, longest]``.
        segment_id: 0 for a prompt, k > 0 for its responses; of the same shape. Segments are
            contiguous, and responses follow their prompt, as :func:`.layout.lay_out` has them.
    """

    def __init__(self, document_id: Tensor, segment_id: Tensor) -> None:
        self.device = document_id.device
        # On a GPU this is where the CPU waits for it, once a forward.
        self.shape, self._segments = document_id.shape, segments_of(document_id, segment_id)
        self._causal: dict[torch.dtype, Tensor] = {}

    @property
    def placeholder(self) -> Tensor:
        """What to pass as mask, lest transformers makes one of the positions."""
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)

    @cached_property
    def pieces(self) -> "list[_Piece]":
        """Prompts and responses of similar lengths, to be computed together."""
        found = self._segments
        real = ~found.is_padding
        prompts, responses = found.take(real & ~found.is_response), found.take(found.is_response)
        return [
            _Piece(members, self.device)
            for some in (prompts, responses)
            for members in similar(some)
        ]

    def causal(self, dtype: torch.dtype) -> Tensor:
        """Zeros, and on the right a causal mask of :data:`QUERIES`; every block's mask is in it."""
        if dtype not in self._causal:
            longest = max((piece.prompt + piece.longest for piece in self.pieces), default=0)
            shape = (QUERIES, longest + QUERIES)
            hidden = torch.full(shape, -torch.inf, dtype=dtype, device=self.device)
            self._causal[dtype] = hidden.triu_(longest + 1)
        return self._causal[dtype]

    @cached_property
    def places(self) -> Tensor:
        """For each token of the batch its place in the outputs of all pieces, 0 for padding."""
        rows, longest = self.shape
        places = np.zeros(rows * longest, dtype=np.int64)
        first = 1
        for piece in self.pieces:
            columns = np.arange(piece.longest)
            inside = columns < piece.members.length[:, None]
            tokens = (piece.members.start[:, None] + columns)[inside]
            places[tokens] = first + np.flatnonzero(inside)
            first += inside.size
        return torch.from_numpy(places).to(self.device)

    @cached_property
    def sequences(self) -> "Sequences":
        """All of it as sequences of queries, each with its keys.

        Every segment is a sequence of queries, padding too, so that queries need not be moved.
        """
        found = self._segments
        lengths = found.prompt_length + found.length
        # Where each part of the keys starts, and how long it is: a prompt, a segment, a prompt, …
        start = np.stack((found.prompt, found.start), axis=1).ravel()
        length = np.stack((found.prompt_length, found.length), axis=1).ravel()
        keys = np.arange(length.sum()) + np.repeat(start - np.cumsum(length) + length, length)
        bounds = (
            np.append(0, np.cumsum(part)).astype(np.int32) for part in (found.length, lengths)
        )
        index, query_bounds, key_bounds = (
            torch.from_numpy(array).to(self.device) for array in (keys, *bounds)
        )
        read, readers = index.sort(stable=True)
        tokens = torch.arange(self.shape[0] * self.shape[1] + 1, device=self.device)
        return Sequences(
            index, readers, torch.searchsorted(read, tokens), query_bounds, key_bounds,
            int(found.length.max()), int(lengths.max()),
        )  # fmt: skip


class Sequences(NamedTuple):
    """Sequences of queries, the flattened tokens of a batch in their order, and of their keys."""

    keys: Tensor  #: Token of each key.
    readers: Tensor  #: Indices of ``keys``, those of a token together.
    reader_bounds: Tensor  #: Where those of each token begin in ``readers``, and the end.
    query_bounds: Tensor  #: Where sequences begin, and the end.
    key_bounds: Tensor  #: Likewise in ``keys``.
    longest_query: int
    longest_key: int


class _Piece:
    """Segments that are computed together, each as a row: its prompt, if any, and itself."""

    def __init__(self, members: Segments, device: torch.device) -> None:
        self.members, self.device = members, device
        self.longest, self.prompt = int(members.length.max()), int(members.prompt_length.max())
        own = padded(members.start, members.length, self.longest)
        seen = padded(members.prompt, members.prompt_length, self.prompt)
        self.queries = torch.from_numpy(own.ravel()).to(device)
        keys = np.concatenate((seen, own), axis=1).ravel()
        self.keys = torch.from_numpy(keys).to(device) if self.prompt else self.queries
        self._masks: dict[Any, Tensor] = {}

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: Tensor
    ) -> Tensor:
        """Outputs for all queries of the piece, ``[segments × longest, heads, head size]``."""
        count = len(self.members.start)
        queries = _gather(query, self.queries).unflatten(0, (count, -1)).transpose(1, 2)
        keys, values = (
            _gather(states, self.keys).unflatten(0, (count, -1)).transpose(1, 2)
            for states in (key, value)
        )
        # On a GPU, kernels for grouped queries take no mask.
        keys, values, grouped = _repeated(queries, keys, values, repeat=query.is_cuda)
        if self.prompt == 0:
            outputs = scaled_dot_product_attention(
                queries, keys, values, is_causal=True, scale=scale, enable_gqa=grouped
            )
            return outputs.transpose(1, 2).flatten(0, 1)
        parts = []
        for start in range(0, self.longest, QUERIES):
            stop = min(start + QUERIES, self.longest)
            parts.append(
                scaled_dot_product_attention(
                    queries[:, :, start:stop],
                    keys[:, :, : self.prompt + stop],
                    values[:, :, : self.prompt + stop],
                    attn_mask=self._mask(start, stop, causal),
                    scale=scale,
                    enable_gqa=grouped,
                )
            )
        return torch.cat(parts, dim=2).transpose(1, 2).flatten(0, 1)

    def _mask(self, start: int, stop: int, causal: Tensor) -> Tensor:
        """What is added to the logits of some queries; the same for all layers of a forward."""
        right = causal.shape[1] - len(causal) + stop - start
        mask = causal[: stop - start, right - self.prompt - stop : right]
        if mask.is_cuda:
            # Kernels there read masks from aligned addresses.
            mask = mask.clone()
        lengths = self.members.prompt_length
        if (lengths == self.prompt).all():
            return mask
        if (start, mask.dtype) not in self._masks:
            key = np.arange(self.prompt + stop)
            padding = (key >= lengths[:, None]) & (key < self.prompt)
            hidden = torch.from_numpy(padding).to(self.device)[:, None, None]
            self._masks[start, mask.dtype] = mask.masked_fill(hidden, -torch.inf)
        return self._masks[start, mask.dtype]


class _Gather(torch.autograd.Function):
    """``states[index]``, whose gradient is summed in float32 at least: a prompt is read often."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(states)
        return states.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (index,) = gradients, ctx.saved_tensors
        precision = torch.promote_types(gradient.dtype, torch.float32)
        total = gradient.new_zeros((ctx.count, *gradient.shape[1:]), dtype=precision)
        return total.index_add_(0, index, gradient.to(precision)).to(gradient.dtype), None


def _gather(states: Tensor, index: Tensor) -> Tensor:
    return _Gather.apply(states, index)


class _Read(torch.autograd.Function):
    """The same by a list of who reads each token, so that a GPU sums without atomics.

    ``readers[bounds[i]:bounds[i + 1]]`` are the places of ``index`` that hold ``i``.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, index: Tensor, readers: Tensor, bounds: Tensor) -> Tensor:
        ctx.save_for_backward(readers, bounds)
        return states.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (readers, bounds) = gradients, ctx.saved_tensors
        # Its sums are in float32 for half precision.
        total = embedding_bag(
            readers, gradient.flatten(1), bounds, mode="sum", include_last_offset=True
        )
        return total.view(-1, *gradient.shape[1:]), None, None, None


def _repeated(
    query: Tensor, keys: Tensor, values: Tensor, *, repeat: bool
) -> tuple[Tensor, Tensor, bool]:
    """Keys and values (heads in dimension 1), and whether a kernel has to group queries."""
    times = query.shape[1] // keys.shape[1]
    if times > 1 and repeat:
        return keys.repeat_interleave(times, dim=1), values.repeat_interleave(times, dim=1), False
    return keys, values, times > 1


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: SharedPrefix, *, scale: float | None = None
) -> Tensor:
    """Attention of a batch of rows.

    Args:
        query: Shape ``[rows, heads, longest, head size]``.
        key: Shape ``[rows, key heads, longest, head size]``, heads a multiple of key heads.
        value: As ``key``; its head size may be another one.
        layout: What lies where in the rows.
        scale: Factor of the logits; by default one over the root of the head size.

    Returns:
        Shape ``[rows, longest, heads, head size of value]``; for padding any finite numbers.
    """
    if torch.is_autocast_enabled(query.device.type):
        precision = torch.get_autocast_dtype(query.device.type)
        query, key, value = (states.to(precision) for states in (query, key, value))
    query, key, value = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    if _takes_sequences(query, value):
        outputs = _attend_sequences(query, key, value, layout, scale)
    else:
        nothing = value.new_zeros((1, query.shape[1], value.shape[2]))
        causal = layout.causal(query.dtype)
        pieces = [piece.attend(query, key, value, scale, causal) for piece in layout.pieces]
        outputs = _gather(torch.cat([nothing, *pieces]), layout.places)
    return outputs.unflatten(0, layout.shape)


def _takes_sequences(query: Tensor, value: Tensor) -> bool:
    """Whether torch has a kernel for sequences of different lengths that takes such states."""
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] == value.shape[-1]
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and "window_size" in _VARLEN
    )


def _attend_sequences(
    query: Tensor, key: Tensor, value: Tensor, layout: SharedPrefix, scale: float | None
) -> Tensor:
    """All of it in one call, ``[tokens, heads, head size]``: sequences of queries and their keys.

    Where there are more keys than queries, the last query sees all keys (as flash attention has it
    since 2.1), which here come in the order of prompt and response.
    """
    found = layout.sequences
    keys, values = (
        _Read.apply(states, found.keys, found.readers, found.reader_bounds)
        for states in (key, value)
    )
    keys, values, grouped = _repeated(query, keys, values, repeat="enable_gqa" not in _VARLEN)
    more: dict[str, Any] = {"enable_gqa": True} if grouped else {}
    outputs: Any = varlen_attn(
        query, keys, values, found.query_bounds, found.key_bounds,
        found.longest_query, found.longest_key, scale=scale, window_size=(-1, 0), **more,
    )  # fmt: skip
    return outputs


def forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer; ``shared_prefix`` is an argument of its forward."""
    if shared_prefix is None:
        if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:
            raise UserError(
                f"{type(module).__name__} was not told what lies where in a row; take --attention "
                "sdpa"
            )
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    others = [
        name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None
    ]
    if dropout or others:
        raise UserError(
            f"attention {NAME!r} has no {others[0] if others else 'dropout'}, which "
            f"{type(module).__name__} needs; take --attention sdpa or eager"
        )
    return attend(query, key, value, shared_prefix, scale=scaling), None


AttentionInterface.register(NAME, forward)
# For batches of plain sequences; without an entry of its own, an implementation gets no mask.
AttentionMaskInterface.register(NAME, sdpa_mask)

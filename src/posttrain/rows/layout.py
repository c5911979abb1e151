r"""Rows: the token sequences a model reads, who sees whom in them, and where responses are scored.

A layout is four independent choices (:class:`Layout`). Three presets have names (:data:`LAYOUTS`):

- ``separate``: one response per row, the reference;
- ``exact``: one row holds the prompt and all responses, which do not see each other and are
  positioned as if each stood alone, so scores equal those of separate rows up to rounding;
- ``causal``: one row with shuffled responses, as Llama 3 has it (section 4.1.2), under ordinary
  causal attention with counted positions. The paper names neither; this is one reading.

What is laid out together is a *document*: a prompt with the responses that share it. A row holds
one document, or several that do not see each other. Within a document the prompt is *segment* 0,
which all tokens after it see, and each response of an isolated row a segment of its own.

An exact row of three responses (ids of prompt 10, 11; responses 20, 21, 30 and 40, 41). Responses
are scored at their last tokens, here those at index 3, 4 and 6:

>>> group = TokenizedGroup(prompt=(10, 11), responses=((20, 21), (30,), (40, 41)))
>>> row = lay_out([group], LAYOUTS["exact"], pad_token_id=0)
>>> for name in ("input_ids", "position_ids", "document_id", "segment_id"):
...     print(f"{name:12}", *(f"{value:2}" for value in getattr(row, name)[0].tolist()))
input_ids    10 11 20 21 30 40 41
position_ids  0  1  2  3  2  2  3
document_id   0  0  0  0  0  0  0
segment_id    0  0  1  1  2  3  3
>>> row.score_index.tolist()
[3, 4, 6]

Scores come in one order whatever the layout: by group, then by rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from posttrain.errors import UserError
from posttrain.rows.packing import pack_sequences
from posttrain.rows.tokenization import TokenizedGroup

Rows = Literal["separate", "single"]
Attention = Literal["isolated", "causal"]
Positions = Literal["restarting", "running"]
Order = Literal["shuffled", "ranked"]


@dataclass(frozen=True)
class Layout:
    """How a group becomes rows.

    >>> LAYOUTS["exact"].is_exact, LAYOUTS["causal"].is_exact
    (True, False)
    >>> group = TokenizedGroup((10, 11), ((20,), (30,), (40,)))
    >>> LAYOUTS["separate"].tokens(group), LAYOUTS["exact"].tokens(group)
    (9, 5)

    Attributes:
        rows: ``separate``: one response per row, for which the other choices mean nothing;
            ``single``: all responses of a group behind one prompt.
        attention: ``isolated``: a response sees the prompt and itself; ``causal``: it also sees the
            responses before it.
        positions: ``restarting``: each response continues from the prompt's end; ``running``:
            tokens are counted.
        order: ``shuffled``: a random order of the responses each time; ``ranked``: best first.
    """

    rows: Rows = "single"
    attention: Attention = "isolated"
    positions: Positions = "restarting"
    order: Order = "ranked"

    def __post_init__(self) -> None:
        for part, choices in zip(fields(self), (Rows, Attention, Positions, Order), strict=True):
            value, known = getattr(self, part.name), get_args(choices)
            if value not in known:
                raise UserError(f"{part.name} must be one of {', '.join(known)}, not {value!r}")

    @property
    def is_exact(self) -> bool:
        """Whether scores equal those of separate rows up to rounding."""
        return self.rows == "separate" or (
            self.attention == "isolated" and self.positions == "restarting"
        )

    def needs_mask(self, *, shared_rows: bool) -> bool:
        """Whether scores are those of separate rows only if the model follows a mask."""
        return self.is_exact and (self.rows == "single" or shared_rows)

    def tokens(self, group: TokenizedGroup) -> int:
        """How many tokens a group takes in this layout, padding aside."""
        if self.rows == "single":
            return group.total
        return group.total + (len(group.responses) - 1) * len(group.prompt)


LAYOUTS = {
    "separate": Layout("separate"),
    "exact": Layout(),
    "causal": Layout("single", "causal", "running", "shuffled"),
}
#: The name that ``causal`` had before; it would decide a question that the paper leaves open.
LAYOUTS["llama3"] = LAYOUTS["causal"]


@dataclass(frozen=True)
class RowBatch:
    """Rows padded on the right: tensors of shape ``[rows, longest]``, but for ``score_index``.

    Positions, documents and segments are None where every row is one plain sequence, for which the
    model's own causal attention and counted positions are right.

    Attributes:
        score_index: Where each response is scored, its last token, as an index into the flattened
            ``input_ids``; ``[responses]``, by group and then by rank.
        document_id: Which document of its row a token belongs to, −1 for padding.
        segment_id: 0 for tokens that all later ones of their document see, k > 0 for tokens that
            only those of the same k see.
    """

    input_ids: Tensor
    score_index: Tensor
    position_ids: Tensor | None = None
    document_id: Tensor | None = None
    segment_id: Tensor | None = None

    @classmethod
    def among(cls, tensors: Mapping[str, Tensor]) -> "RowBatch":
        """The batch whose :meth:`tensors` are among the given ones."""
        names = (part.name for part in fields(cls))
        return cls(**{name: tensors[name] for name in names if name in tensors})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by name."""
        named = ((part.name, getattr(self, part.name)) for part in fields(self))
        return {name: tensor for name, tensor in named if tensor is not None}

    def to(self, device: torch.device | str) -> "RowBatch":
        """The same batch on another device."""
        return RowBatch(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


def lay_out(
    groups: Sequence[TokenizedGroup],
    layout: Layout,
    *,
    pad_token_id: int,
    pack_length: int | None = None,
    seeds: Sequence[Sequence[int]] | None = None,
) -> RowBatch:
    """Lay groups out in rows.

    Args:
        groups: The groups, at least one.
        layout: The four choices.
        pad_token_id: Fills up rows. Any id will do: no other token sees it.
        pack_length: Most tokens of a row, which documents then share (see :func:`.pack_sequences`).
            None gives each document a row of its own.
        seeds: For each group what seeds the order of its shuffled responses, so that it does not
            depend on the groups beside it; by default torch's global generator draws it.
    """
    if not groups:
        raise UserError("cannot make rows of no groups")
    documents = [
        document
        for number, group in enumerate(groups)
        for document in _documents(number, group, layout, None if seeds is None else seeds[number])
    ]
    sizes = [document.size for document in documents]
    filled = (
        [[k] for k in range(len(documents))]
        if pack_length is None
        else pack_sequences(sizes, pack_length)
    )
    longest = max(sum(sizes[k] for k in row) for row in filled)
    shape = (len(filled), longest)
    # Columns: ids, position, document, segment.
    tokens = np.empty((4, *shape), dtype=np.int64)
    tokens[:] = np.array([pad_token_id, 0, -1, 0])[:, None, None]
    firsts = np.cumsum([0, *(len(group.responses) for group in groups)])
    score_index = np.empty(firsts[-1], dtype=np.int64)
    for row, members in enumerate(filled):
        start = 0
        for place, member in enumerate(members):
            document = documents[member]
            ends = document.write(tokens[:, row, start : start + document.size], place)
            for response, end in zip(document.responses, ends, strict=True):
                score_index[firsts[document.number] + response] = row * longest + start + end - 1
            start += document.size
    ids, positions, document_of, segment = map(torch.from_numpy, tokens)
    scored = torch.from_numpy(score_index)
    if all(len(members) == 1 and documents[members[0]].is_plain for members in filled):
        return RowBatch(ids, scored)
    return RowBatch(ids, scored, positions, document_of, segment)


@dataclass(frozen=True)
class _Document:
    """A prompt with the responses that share it, as indices in the order of the row."""

    number: int  # index of the group in its batch
    group: TokenizedGroup
    responses: tuple[int, ...]
    layout: Layout

    @property
    def size(self) -> int:
        """Number of tokens."""
        parts = self.group.responses
        return len(self.group.prompt) + sum(len(parts[response]) for response in self.responses)

    @property
    def is_plain(self) -> bool:
        """Whether it is a sequence like any other: causal attention and counted positions."""
        return len(self.responses) == 1 or (
            self.layout.attention == "causal" and self.layout.positions == "running"
        )

    def write(self, tokens: np.ndarray, place: int) -> list[int]:
        """Fill in the document's tokens, ``[4, size]``; returns where each response ends."""
        ids, positions, document, segment = tokens
        start = len(self.group.prompt)
        ids[:start] = self.group.prompt
        positions[:] = np.arange(len(positions))
        document[:] = place
        segment[:] = 0
        ends = []
        for number, response in enumerate(self.responses, start=1):
            content = self.group.responses[response]
            stop = start + len(content)
            ids[start:stop] = content
            if self.layout.positions == "restarting":
                positions[start:stop] -= start - len(self.group.prompt)
            if self.layout.attention == "isolated":
                segment[start:stop] = number
            ends.append(stop)
            start = stop
        return ends


def _documents(
    number: int, group: TokenizedGroup, layout: Layout, seed: Sequence[int] | None
) -> list[_Document]:
    count = len(group.responses)
    if layout.rows == "separate":
        # Alone in its document, a response is plain whatever the other choices say.
        return [_Document(number, group, (k,), LAYOUTS["separate"]) for k in range(count)]
    if layout.order == "ranked":
        order = list(range(count))
    elif seed is None:
        order = torch.randperm(count).tolist()
    else:
        order = np.random.default_rng(seed).permutation(count).tolist()
    return [_Document(number, group, tuple(order), layout)]

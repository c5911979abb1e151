"""Where the prompts and responses of a batch lie, and which are computed together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Most keys that are gathered at once, over all responses of a piece.
KEYS = 1 << 15
#: Sequences are padded to one length while that adds less than this share to what is computed,
#: or less than a call of a kernel costs, in pairs of query and key.
PADDING, CALL = 0.15, 1 << 15
#: Prompts of different lengths need a mask each; these have at most so many entries in a piece.
MASKED = 1 << 18


@dataclass(frozen=True)
class Segments:
    """Segments of a batch in the order of its flattened tokens; arrays of shape ``[segments]``."""

    start: np.ndarray
    length: np.ndarray
    prompt: np.ndarray  # where the prompt starts that a response sees
    prompt_length: np.ndarray  # 0 for what is no response
    is_padding: np.ndarray
    is_response: np.ndarray

    def take(self, which: np.ndarray) -> "Segments":
        """Some of them, by a mask or by indices."""
        return Segments(*(values[which] for values in vars(self).values()))


def segments_of(document_id: Tensor, segment_id: Tensor) -> Segments:
    """The segments of a batch; on a GPU this waits for the device.

    >>> document, segment = torch.tensor([[0, 0, 0, 0, -1]]), torch.tensor([[0, 0, 1, 2, 0]])
    >>> found = segments_of(document, segment)
    >>> found.start.tolist(), found.length.tolist(), found.prompt_length.tolist()
    ([0, 2, 3, 4], [2, 1, 1, 1], [0, 2, 2, 0])
    """
    rows, longest = document_id.shape
    ids = torch.stack((document_id, segment_id), dim=-1).cpu().numpy()
    changes = np.ones((rows, longest), dtype=bool)
    changes[:, 1:] = (ids[:, 1:] != ids[:, :-1]).any(axis=-1)
    start = np.flatnonzero(changes)
    length = np.diff(start, append=rows * longest)
    row = start // longest
    document, segment = ids.reshape(-1, 2)[start].T
    # The last prompt before a segment is its own, if it is of the same document.
    before = np.maximum.accumulate(np.where(segment == 0, np.arange(len(start)), 0))
    own = (row[before] == row) & (document[before] == document) & (segment[before] == 0)
    is_response = (segment > 0) & (document >= 0)
    prompt_length = np.where(own & is_response, length[before], 0)
    return Segments(start, length, start[before], prompt_length, document < 0, is_response)


def similar(found: Segments) -> Iterator[Segments]:
    """The segments in parts that are padded to one length of prompts and one of their own."""
    order = np.lexsort((found.length, found.prompt_length))
    members: list[int] = []
    longest = prompt = exact = 0
    for k in order.tolist():
        length, prompt_length = int(found.length[k]), int(found.prompt_length[k])
        new_longest, new_prompt = max(longest, length), max(prompt, prompt_length)
        new_exact = exact + length * (prompt_length + length)
        count = len(members) + 1
        area = count * new_longest * (new_prompt + new_longest)
        fits = count * (new_prompt + new_longest) <= KEYS and (
            prompt == prompt_length or area <= MASKED
        )
        if members and not (fits and area <= (1 + PADDING) * new_exact + CALL):
            yield found.take(np.array(members))
            members, new_longest, new_prompt = [], length, prompt_length
            new_exact = length * (prompt_length + length)
        members.append(k)
        longest, prompt, exact = new_longest, new_prompt, new_exact
    if members:
        yield found.take(np.array(members))


def padded(start: np.ndarray, length: np.ndarray, longest: int) -> np.ndarray:
    """Indices of tokens, ``[segments, longest]``; a shorter segment repeats its last token."""
    last = np.maximum(length - 1, 0)
    return start[:, None] + np.minimum(np.arange(longest), last[:, None])

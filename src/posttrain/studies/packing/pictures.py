"""Who sees whom in one row of words, by each reading of Llama 3's sentence."""

from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
import torch

from posttrain.rows.attention import dense_mask
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup

#: A prompt and its edited, chosen and rejected response; a token is a word.
PROMPT = ("Capital", "of", "Peru?")
RESPONSES = (("It", "is", "Lima", "<end>"), ("Lima", "<end>"), ("Cusco", "<end>"))
#: The layout of each reading.
READINGS = {
    "exact": LAYOUTS["exact"],
    "running positions": Layout("single", "isolated", "running"),
    "causal": Layout("single", "causal", "running"),
}
HIDDEN, SEEN_PROMPT, ITSELF, OTHER = range(4)


@dataclass(frozen=True)
class Picture:
    """One row, ready to be drawn."""

    name: str  #: The reading.
    layout: Layout
    words: list[str]  #: The tokens.
    positions: list[int]  #: Position of each.
    moved: list[bool]  #: Whether that is not its position in a separate row.
    #: Of each token by each: hidden, prompt, own response or another one, ``[tokens, tokens]``.
    seen: np.ndarray
    boundaries: list[int]  #: Where each response begins.
    scored: list[int]  #: Indices of the tokens at which scores are read.


def pictures() -> list[Picture]:
    """The row of :data:`PROMPT` and :data:`RESPONSES` by each of :data:`READINGS`.

    >>> exact, running, causal = pictures()
    >>> exact.positions, causal.positions
    ([0, 1, 2, 3, 4, 5, 6, 3, 4, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    """
    return [_picture(name, layout) for name, layout in READINGS.items()]


def _picture(name: str, layout: Layout) -> Picture:
    words = [*PROMPT, *chain(*RESPONSES)]
    ids = count()
    parts = [tuple(islice(ids, len(part))) for part in (PROMPT, *RESPONSES)]
    group = TokenizedGroup(parts[0], tuple(parts[1:]))
    batch = lay_out([group], layout, pad_token_id=0)
    # The parts of a causal row do not show in it, but stand where those of an exact one do.
    exact = lay_out([group], LAYOUTS["exact"], pad_token_id=0)
    assert exact.segment_id is not None
    assert exact.position_ids is not None
    segment, alone = exact.segment_id[0], exact.position_ids[0]
    visible = torch.ones(len(words), len(words)).tril().bool()
    if batch.document_id is not None:
        visible = dense_mask(batch)[0, 0]
    # A prompt is seen as a prompt by all, itself included.
    seen = torch.where(segment[:, None] == segment, ITSELF, OTHER)
    seen = torch.where((segment == 0)[None, :], SEEN_PROMPT, seen)
    places = torch.arange(len(words)) if batch.position_ids is None else batch.position_ids[0]
    return Picture(
        name,
        layout,
        words,
        places.tolist(),
        (places != alone).tolist(),
        torch.where(visible, seen, HIDDEN).numpy(),
        [part[0] for part in parts[1:]],
        batch.score_index.tolist(),
    )

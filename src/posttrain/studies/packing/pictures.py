"""Pictures of rows: who sees whom, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from posttrain.data.preferences import Message, RankedGroup
from posttrain.models import embedded
from posttrain.rows.attention import dense_mask
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.tokenization import TokenizedGroup, tokenize_group

HIDDEN, PROMPT, ITSELF, OTHER = range(4)
#: Room for everything in one row.
WIDE = 10_000


@dataclass(frozen=True)
class Picture:
    """One row, ready to be drawn."""

    title: str
    labels: list[str]  #: The tokens.
    positions: list[int]  #: Position of each.
    #: Of each token by each: hidden, prompt, own part or another response, ``[tokens, tokens]``.
    seen: np.ndarray
    boundaries: list[int]  #: Where a part begins, the first aside.
    scored: list[int]  #: Indices of the tokens at which scores are read.


def pictures(checkpoint: Path | None = None) -> list[Picture]:
    """A triple in separate rows, in an exact and in a causal row, and two groups in one row.

    The tokenizer is that of the tiny Llama if not given, whose tokens are words.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint or embedded.tiny())
    groups = [
        tokenize_group(tokenizer, RankedGroup(name, (Message("user", prompt),), responses))
        for name, prompt, responses in (
            ("triple", "translate : cat", ("sure : chat", "chat", "chien")),
            ("pair", "translate : red", ("rouge", "bleu")),
            ("other pair", "translate : dog", ("chien", "chat")),
        )
    ]
    drawn = (
        ("Three separate rows", groups[:1], LAYOUTS["separate"]),
        ("Exact row", groups[:1], LAYOUTS["exact"]),
        ("Causal row", groups[:1], Layout("single", "causal", "running")),
        ("Two groups in one exact row", groups[1:], LAYOUTS["exact"]),
    )
    return [_picture(title, tokenizer, members, layout) for title, members, layout in drawn]


def _picture(
    title: str,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[TokenizedGroup],
    layout: Layout,
) -> Picture:
    batch = lay_out(groups, layout, pad_token_id=0, pack_length=WIDE)
    count = batch.input_ids.shape[1]
    # The parts of a causal row do not show in it, but stand where those of an isolated one do.
    isolated = replace(layout, attention="isolated")
    parted = lay_out(groups, isolated, pad_token_id=0, pack_length=WIDE)
    assert parted.document_id is not None
    assert parted.segment_id is not None
    part = parted.document_id[0] * 10 + parted.segment_id[0]
    visible = torch.ones(count, count).tril().bool()
    if batch.document_id is not None:
        visible = dense_mask(batch)[0, 0]
    seen = torch.where(part[:, None] == part, ITSELF, OTHER)
    # A prompt is seen as a prompt by all, itself included.
    seen = torch.where((parted.segment_id[0] == 0)[None, :], PROMPT, seen)
    positions = torch.arange(count) if batch.position_ids is None else batch.position_ids[0]
    return Picture(
        title,
        list(tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())),
        positions.tolist(),
        torch.where(visible, seen, HIDDEN).numpy(),
        (torch.nonzero(part[1:] != part[:-1]).flatten() + 1).tolist(),
        batch.score_index.tolist(),
    )

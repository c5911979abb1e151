"""Frozen features: hidden states of each response, computed once and cached."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from posttrain.errors import UserError
from posttrain.models.architecture import after_layers, layers_of
from posttrain.models.loading import contents
from posttrain.rows.attention import mask_arguments, share_prefixes
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup, share_prompts
from posttrain.storage import cache

#: Raise when features come out otherwise: here, in :mod:`.rows.layout` or :mod:`.rows.attention`.
VERSION = 1

Pooling = Literal["mean", "response mean", "last"]
#: Responses that share a prompt share a row up to this many tokens. Attention, computed for all
#: pairs of a row's tokens, seen or not, would cost more in longer rows than the prompt saves.
ROW_TOKENS = 1024
#: Name of the file in the cache's folder.
FILE = "features.safetensors"


@dataclass(frozen=True)
class FeatureSettings:
    """Which hidden state stands for a response.

    Attributes:
        layer: How many of the backbone's layers to run; the output of the last of them is used,
            before any final normalisation.
        pooling: ``mean`` over all tokens of the row, ``response mean`` over the response's tokens
            only, or the ``last`` token.
    """

    layer: int = 24
    pooling: Pooling = "mean"


def features(
    checkpoint: Path,
    groups: Sequence[TokenizedGroup],
    settings: FeatureSettings,
    *,
    batch_tokens: int = 4096,
) -> Tensor:
    """Hidden states of a frozen backbone, one vector per response as if in a row of its own.

    Responses to one prompt share its computation in exact rows, whatever groups they are in, and
    equal ones are computed once. States are cached by the checkpoint's contents, the settings and
    the token ids. ``batch_tokens`` counts padding; a single longer row is allowed.

    Returns:
        Shape ``[responses, hidden size]``, float32: by group, then by rank.

    Raises:
        UserError: If there is no such checkpoint, its backbone has fewer layers than asked for, or
            a hidden state is not finite.
    """
    pieces = [(group.prompt, response) for group in groups for response in group.responses]
    distinct = share_prompts(pieces, ROW_TOKENS)
    name = cache.key(
        {
            "checkpoint": contents(checkpoint),
            "settings": asdict(settings),
            "rows": [(group.prompt, group.responses) for group in distinct],
        },
        *("torch", "transformers"),
        version=VERSION,
    )

    def make(folder: Path) -> None:
        states = _compute_features(checkpoint, distinct, settings, batch_tokens)
        save_file({"features": states}, folder / FILE)

    states = load_file(cache.get_or_create(f"features/{name}", make) / FILE)["features"]
    computed = [(group.prompt, response) for group in distinct for response in group.responses]
    place = {piece: index for index, piece in enumerate(computed)}
    return states[[place[piece] for piece in pieces]]


@torch.no_grad()
def _compute_features(
    checkpoint: Path, rows: Sequence[TokenizedGroup], settings: FeatureSettings, batch_tokens: int
) -> Tensor:
    model = AutoModel.from_pretrained(checkpoint).eval()
    share_prefixes(model)
    owner, name = layers_of(model)
    layers: Any = getattr(owner, name)
    if not 1 <= settings.layer <= len(layers):
        raise UserError(
            f"layer must lie between 1 and {len(layers)}, the layers of {checkpoint.name}; "
            f"got {settings.layer}"
        )
    # Later layers and the final normalisation would be computed for nothing.
    for after in after_layers(model):
        setattr(owner, after, nn.Identity())
    setattr(owner, name, layers[: settings.layer])
    model.config.get_text_config().num_hidden_layers = settings.layer
    pooled = []
    start = 0
    while start < len(rows):
        # Rows are sorted by length, so the longest of a batch is its last.
        stop = start + 1
        while stop < len(rows) and (stop + 1 - start) * rows[stop].total <= batch_tokens:
            stop += 1
        pooled.append(_pool(model, rows[start:stop], settings.pooling))
        start = stop
    states = torch.cat(pooled)
    if not torch.isfinite(states).all():
        raise UserError(f"{checkpoint.name} gave hidden states that are not finite")
    return states


def _pool(model: PreTrainedModel, rows: Sequence[TokenizedGroup], pooling: Pooling) -> Tensor:
    batch = lay_out(rows, LAYOUTS["exact"], pad_token_id=0)
    hidden = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **mask_arguments(model, batch),
    ).last_hidden_state.float()
    if pooling == "last":
        return hidden.flatten(0, 1)[batch.score_index]
    means = []
    for states, row in zip(hidden, rows, strict=True):
        ends = np.cumsum([len(row.prompt), *map(len, row.responses)])
        prompt = states[: ends[0]]
        for start, stop in pairwise(ends):
            seen = (
                [states[start:stop]] if pooling == "response mean" else [prompt, states[start:stop]]
            )
            means.append(torch.cat(seen).mean(dim=0))
    return torch.stack(means)

"""The rows study: what rows are like before any training, on the groups of one source.

It needs no training, so every source has a record of it within minutes: how long groups are and
what a single row saves, how much padding batches of them need, how closely scores and gradients in
exact rows equal those in separate rows, and how far other rows are off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.config.fields import at_least_one, setting
from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.groups import DataSettings, checkpoint_for, load_groups
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.packing.distance import distances
from posttrain.training.collator import GroupCollator, TrainingGroup, training_set
from posttrain.training.losses import ranking_loss

#: Ways of computing scores, each compared with separate rows, and whether groups share rows. The
#: last is the paper's.
WAYS: dict[str, tuple[Layout, bool]] = {
    "exact row": (LAYOUTS["exact"], False),
    "exact, shared rows": (LAYOUTS["exact"], True),
    "separate, shared rows": (LAYOUTS["separate"], True),
    "isolated, but running positions": (Layout("single", "isolated", "running"), False),
    "restarting, but causal attention": (Layout("single", "causal", "restarting"), False),
    "causal row": (Layout("single", "causal", "running"), False),
}
#: Room in a shared row, unless a group needs more.
SHARED_TOKENS = 1024


@dataclass(frozen=True)
class RowSettings(DataSettings):
    """Settings of the rows study."""

    batch_size: int = setting(32, "Groups in a batch, for the account of padding.")
    pack_length: int = setting(4096, "Room in a row that groups share, for the account of padding.")
    distance_groups: int = setting(40, "Groups on which hidden states are compared, at most.")
    equality_groups: int = setting(10, "Of these, groups on which gradients are compared too.")

    def __post_init__(self) -> None:
        at_least_one(
            self, "groups", "batch_size", "distance_groups", "equality_groups", "resamples"
        )


def equality(
    checkpoint: Path, groups: Sequence[TokenizedGroup], *, gradients: bool = True
) -> pd.DataFrame:
    """How far scores and gradients in each of :data:`WAYS` are from those of separate rows.

    The model is the checkpoint with a fresh score head, the loss that of all pairs of all groups.
    Without ``gradients`` it takes a third of the time.

    Returns:
        One row a way: ``way``, ``scores`` (largest difference over the RMS score difference of two
        responses to one prompt), ``gradient`` (norm of the difference of the whole gradient over
        the norm of the gradient; NaN if not compared), ``rows`` and ``tokens``, padding included.
    """
    model, tokenizer = reward_model.load(checkpoint)
    compute_in_double(model)
    assert isinstance(tokenizer.pad_token_id, int)
    items = list(training_set([TrainingGroup.with_all_pairs(group) for group in groups]))
    ways = {"separate rows": (LAYOUTS["separate"], False), **WAYS}
    room = max(SHARED_TOKENS, *(group.total for group in groups))
    rows = []
    for way, (layout, shared) in ways.items():
        collate = GroupCollator(tokenizer.pad_token_id, layout, room if shared else None)
        inputs = collate(items)
        scores, gradient = _differentiate(model, inputs, gradients)
        if way == "separate rows":
            reference, reference_gradient = scores, gradient
            differences = scores[inputs["winners"]] - scores[inputs["losers"]]
            apart = differences.square().mean().sqrt()
        off = ((scores - reference).abs().max() / apart).item()
        turned = float("nan")
        if gradients:
            turned = ((gradient - reference_gradient).norm() / reference_gradient.norm()).item()
        rows.append((way, off, turned, *inputs["input_ids"].shape))
    table = pd.DataFrame(rows, columns=["way", "scores", "gradient", "rows", "longest"])
    return table.assign(tokens=table["rows"] * table["longest"]).drop(columns="longest")


def _differentiate(
    model: PreTrainedModel, inputs: dict[str, Tensor], gradients: bool
) -> tuple[Tensor, Tensor]:
    """Scores, and the gradient of the ranking loss over all parameters as one vector."""
    with torch.set_grad_enabled(gradients):
        scores = reward_model.forward_scores(model, RowBatch.among(inputs))
        if not gradients:
            return scores, torch.empty(0)
        ranking_loss(scores[inputs["winners"]], scores[inputs["losers"]]).backward()
    parts = [
        parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None
    ]
    gradient = torch.cat(parts)
    model.zero_grad()
    return scores.detach(), gradient


def padding(
    groups: Sequence[TokenizedGroup], *, batch_groups: int, pack_length: int, seed: int = 0
) -> pd.DataFrame:
    """Share of padding when groups are laid out in batches, in random order.

    Returns:
        One row each for ``separate rows``, ``exact row`` and ``exact, shared rows``, the last of at
        most ``pack_length`` tokens: ``method``, ``tokens``, ``slots`` (tokens and padding) and
        ``padding``, its share of the slots.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    splits = range(batch_groups, len(groups), batch_groups)
    batches = [[groups[k] for k in batch] for batch in np.split(order, splits)]
    rows = []
    for name, layout, room in (
        ("separate rows", LAYOUTS["separate"], None),
        ("exact row", LAYOUTS["exact"], None),
        ("exact, shared rows", LAYOUTS["exact"], pack_length),
    ):
        laid_out = (lay_out(batch, layout, pad_token_id=0, pack_length=room) for batch in batches)
        slots = sum(batch.input_ids.numel() for batch in laid_out)
        tokens = sum(map(layout.tokens, groups))
        rows.append((name, tokens, slots, 1 - tokens / slots))
    return pd.DataFrame(rows, columns=["method", "tokens", "slots", "padding"])


def token_table(groups: Sequence[TokenizedGroup]) -> pd.DataFrame:
    """Mean tokens of prompts and responses, and of a group in separate rows and in one.

    One row for each number of responses, with the share of groups that have it.
    """
    rows = []
    for count in sorted({len(group.responses) for group in groups}):
        chosen = [group for group in groups if len(group.responses) == count]
        separate = np.mean([LAYOUTS["separate"].tokens(group) for group in chosen])
        single = np.mean([group.total for group in chosen])
        prompt = np.mean([len(group.prompt) for group in chosen])
        response = np.mean([len(ids) for group in chosen for ids in group.responses])
        share = len(chosen) / len(groups)
        rows.append((count, share, prompt, response, separate, single, separate / single))
    columns = ["responses", "share", "prompt", "response", "separate", "single", "saving"]
    return pd.DataFrame(rows, columns=columns)


def measure(source: str, settings: RowSettings, cache_dir: Path | None) -> Measured:
    """Look at rows before any training.

    Returns:
        The tables of :func:`token_table` (``tokens``), :func:`padding`, :func:`equality` and
        :func:`.packing.distance.distances`.
    """
    checkpoint = checkpoint_for(source)
    loaded = load_groups(source, checkpoint, settings)
    # A random part, because records of one group tend to stand together.
    order = np.random.default_rng(settings.data_seed).permutation(len(loaded.tokens))
    compared = [loaded.tokens[i] for i in order[: settings.distance_groups]]
    tables = {
        "tokens": token_table(loaded.tokens),
        "padding": padding(
            loaded.tokens, batch_groups=settings.batch_size, pack_length=settings.pack_length
        ),
        "equality": equality(checkpoint, compared[: settings.equality_groups]),
        "distances": distances(checkpoint, compared, resamples=settings.resamples),
    }
    return Measured(loaded.account, tables)


STUDY = Study(
    "rows",
    "what rows are like before any training",
    measure,
    simulated=RowSettings,
    human=RowSettings,
)

"""What rows are like before any training: pictures, equality, tokens and padding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from posttrain import checkpoints, reward_model
from posttrain.attention import dense_mask
from posttrain.losses import ranking_loss
from posttrain.preferences import Message, RankedGroup
from posttrain.rows import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.tokenization import TokenizedGroup, tokenize_group
from posttrain.trainer import GroupCollator, TrainingGroup, training_set

HIDDEN, PROMPT, ITSELF, OTHER = range(4)

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
class Picture:
    """One row, ready to be drawn.

    Attributes:
        title: What it shows.
        labels: The tokens.
        positions: Position of each.
        seen: What each token sees: 0 hidden, 1 the prompt, 2 its own part, 3 another response;
            shape ``[tokens, tokens]``.
        boundaries: Where a part begins, the first aside.
        scored: Indices of the tokens at which scores are read.
    """

    title: str
    labels: list[str]
    positions: list[int]
    seen: np.ndarray
    boundaries: list[int]
    scored: list[int]


def pictures(checkpoint: Path | None = None) -> list[Picture]:
    """A triple in separate rows, in an exact and in a causal row, and two groups in one row.

    Args:
        checkpoint: Folder with the tokenizer; that of the tiny Llama if not given, whose tokens
            are words.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint or checkpoints.tiny())
    groups = [
        tokenize_group(tokenizer, RankedGroup(name, (Message("user", prompt),), responses))
        for name, prompt, responses in (
            ("triple", "translate : cat", ("sure : chat", "chat", "chien")),
            ("pair", "translate : red", ("rouge", "bleu")),
            ("other pair", "translate : dog", ("chien", "chat")),
        )
    ]
    wide = 10_000  # room for everything in one row
    drawn = (
        ("Three separate rows", groups[:1], LAYOUTS["separate"], wide),
        ("Exact row", groups[:1], LAYOUTS["exact"], wide),
        ("Causal row", groups[:1], Layout("single", "causal", "running"), wide),
        ("Two groups in one exact row", groups[1:], LAYOUTS["exact"], wide),
    )
    return [
        _picture(title, tokenizer, members, layout, row_tokens)
        for title, members, layout, row_tokens in drawn
    ]


def _picture(
    title: str,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[TokenizedGroup],
    layout: Layout,
    row_tokens: int,
) -> Picture:
    batch = lay_out(groups, layout, pad_token_id=0, row_tokens=row_tokens)
    count = batch.input_ids.shape[1]
    # The parts of a causal row do not show in it, but stand where those of an isolated one do.
    parted = lay_out(
        groups, replace(layout, attention="isolated"), pad_token_id=0, row_tokens=row_tokens
    )
    assert parted.block is not None
    assert parted.branch is not None
    part = parted.block[0] * 10 + parted.branch[0]
    visible = torch.ones(count, count).tril().bool()
    if batch.block is not None:
        visible = dense_mask(batch)[0, 0]
    seen = torch.where(part[:, None] == part, ITSELF, OTHER)
    # A prompt is seen as a prompt by all, itself included.
    seen = torch.where((parted.branch[0] == 0)[None, :], PROMPT, seen)
    positions = torch.arange(count) if batch.position_ids is None else batch.position_ids[0]
    return Picture(
        title,
        list(tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())),
        positions.tolist(),
        torch.where(visible, seen, HIDDEN).numpy(),
        (torch.nonzero(part[1:] != part[:-1]).flatten() + 1).tolist(),
        batch.score_index.tolist(),
    )


def equality(
    checkpoint: Path, groups: Sequence[TokenizedGroup], *, gradients: bool = True
) -> pd.DataFrame:
    """How far scores and gradients in each of :data:`WAYS` are from those of separate rows.

    The model is the checkpoint with a fresh score head, the loss that of all pairs of all groups.

    Args:
        checkpoint: Folder of a causal language model.
        groups: Real groups; their responses stay in the given order.
        gradients: Also compare gradients, which takes three times as long.

    Returns:
        One row a way: ``way``, ``scores`` (largest difference over the RMS score difference of two
        responses to one prompt), ``gradient`` (norm of the difference of the whole gradient over
        the norm of the gradient; NaN if not compared), ``rows`` and ``tokens``, padding included.
    """
    model, tokenizer = reward_model.load(checkpoint)
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
    found = [
        parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None
    ]
    gradient = torch.cat(found)
    model.zero_grad()
    return scores.detach(), gradient


def padding(
    groups: Sequence[TokenizedGroup], *, batch_groups: int, row_tokens: int, seed: int = 0
) -> pd.DataFrame:
    """Share of padding when groups are laid out in batches, in random order.

    Args:
        groups: Tokenised groups.
        batch_groups: Groups in a batch; the last one takes what is left.
        row_tokens: Most tokens of a row that several groups share.
        seed: Seeds the order.

    Returns:
        One row each for ``separate rows``, ``exact row`` and ``exact, shared rows``: ``method``,
        ``tokens``, ``slots`` (tokens and padding) and ``padding``, its share of the slots.

    Raises:
        ValueError: If a group exceeds ``row_tokens``.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    splits = range(batch_groups, len(groups), batch_groups)
    batches = [[groups[k] for k in batch] for batch in np.split(order, splits)]
    rows = []
    for name, layout, room in (
        ("separate rows", LAYOUTS["separate"], None),
        ("exact row", LAYOUTS["exact"], None),
        ("exact, shared rows", LAYOUTS["exact"], row_tokens),
    ):
        laid_out = (lay_out(batch, layout, pad_token_id=0, row_tokens=room) for batch in batches)
        slots = sum(batch.input_ids.numel() for batch in laid_out)
        tokens = sum(map(layout.tokens, groups))
        rows.append((name, tokens, slots, 1 - tokens / slots))
    return pd.DataFrame(rows, columns=["method", "tokens", "slots", "padding"])


def token_table(groups: Sequence[TokenizedGroup]) -> pd.DataFrame:
    """Mean tokens of prompts and responses, and of a group in separate rows and in one.

    Returns:
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

"""Whether a model scores a response by itself and its prompt alone: a check by a few forwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.errors import UserError
from posttrain.models.reward_model import response_states, stock_model
from posttrain.rows.attention import REMEDY, mask_for
from posttrain.rows.layout import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.rows.tokenization import TokenizedGroup

#: How many times rounding an honest model may be off. Measured on Llamas of 2 to 30 layers, with
#: SDPA and eager attention, in float64 to bfloat16: at most 0.6 times.
ROUNDINGS = 10
#: A sliding window during the check, shorter than its rows.
SHORT_WINDOW = 16


@torch.no_grad()
def check_exact(
    model: PreTrainedModel,
    layout: Layout = LAYOUTS["exact"],
    *,
    pad_token_id: int,
    shared_rows: bool = False,
) -> None:
    """Refuse a model whose scores depend on what stands beside a response and its prompt.

    That is what follows it in its row, padding or other responses, and the other rows of a batch;
    and where the layout is an exact one of single or of shared rows, what comes between. A model
    may ignore a mask or positions without saying so: with attention to both sides, ALiBi, or
    recurrent layers. This compares the states that scores are read from on a few random tokens. How
    far rounding moves them is measured on the model itself, so that the limit holds for every depth
    and precision: states may be off by :data:`ROUNDINGS` times rounding, and by a tenth of what
    they change where they may see each other (in separate rows, with another prompt).

    To be called once, before training and before scoring, whatever the layout.

    Raises:
        UserError: If states are off by more, or rows cannot be computed at all.
    """
    was_training = model.training
    model.eval()
    try:
        with _short_window(model):
            _check(model, layout, pad_token_id=pad_token_id, shared_rows=shared_rows)
    finally:
        model.train(was_training)


def _check(model: PreTrainedModel, layout: Layout, *, pad_token_id: int, shared_rows: bool) -> None:
    name = type(model).__name__
    words, groups = _random_groups(model)

    def rows(layout: Layout, groups: Sequence[TokenizedGroup] = groups, **more: Any) -> RowBatch:
        return lay_out(groups, replace(layout, order="ranked"), pad_token_id=pad_token_id, **more)

    plain = rows(LAYOUTS["separate"])
    separate = _states(model, plain)
    with _rounded_otherwise(model):
        rounding = _norm(_states(model, plain) - separate)
    other_prompts = [replace(group, prompt=words[:13]) for group in groups]
    seeing = _norm(_states(model, rows(LAYOUTS["separate"], other_prompts)) - separate)

    def apart(off: float) -> bool:
        # In bfloat16, so many roundings may be more than all that states tell of other tokens.
        return off <= min(ROUNDINGS * rounding, seeing / 10)

    # A model may know padding and leave it out, so other tokens take its place here.
    width = plain.input_ids.shape[1]
    follows = torch.arange(width) > plain.score_index[:, None] % width
    followed = replace(
        plain, input_ids=plain.input_ids.where(~follows, torch.tensor(words[:width]))
    )
    off = _norm(_states(model, followed) - separate)
    if not apart(off):
        raise UserError(
            f"{name} reads tokens that follow a response, also padding, so scores would change "
            f"with the batch: states are off by {off:.2g} with other tokens there, by {seeing:.2g} "
            f"with another prompt, and by {rounding:.2g} through rounding alone; take a model "
            "whose attention is causal"
        )
    first = [TokenizedGroup(groups[0].prompt, groups[0].responses[:1])]
    off = _norm(_states(model, rows(LAYOUTS["separate"], first)) - separate[:1])
    if not apart(off):
        raise UserError(
            f"{name} scores a response otherwise alone than beside others: states are off by "
            f"{off:.2g}, and by {rounding:.2g} through rounding alone; take another model, or "
            "another --attention"
        )
    if not (shared_rows or layout.needs_mask(shared_rows=False)):
        return
    expected = separate if layout.is_exact else _states(model, rows(layout))
    off = _norm(_states(model, rows(layout, pack_length=160 if shared_rows else None)) - expected)
    seeing = _norm(_states(model, rows(Layout("single", "causal", "running"))) - separate)
    if not apart(off):
        raise UserError(
            f"{name} does not keep responses in one row apart: states are off by {off:.2g}, by "
            f"{seeing:.2g} where responses may see each other, and by {rounding:.2g} through "
            f"rounding alone; {REMEDY}"
        )


def _states(model: PreTrainedModel, batch: RowBatch) -> Tensor:
    batch = batch.to(model.device)
    if batch.document_id is None:
        return response_states(model, batch).double()
    mask_for(model, batch)  # an implementation without masks is refused in its own words
    try:
        return response_states(model, batch).double()
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{type(model).__name__} takes no mask for rows that responses or groups share "
            f"({type(error).__name__}: {error}); {REMEDY}"
        ) from error


def _norm(difference: Tensor) -> float:
    return difference.norm().item()


@contextmanager
def _short_window(model: PreTrainedModel) -> Iterator[None]:
    """Within, a sliding window is short enough to matter in the few tokens of the check."""
    config: Any = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not window or window <= SHORT_WINDOW:
        yield
        return
    config.sliding_window = SHORT_WINDOW
    try:
        yield
    finally:
        config.sliding_window = window


@contextmanager
def _rounded_otherwise(model: PreTrainedModel) -> Iterator[None]:
    """Within, each number of a token's embedding is one rounding larger or smaller.

    From there on it grows through the layers as rounding does within them. Computing the same rows
    in other batches would show rounding, too, but some kernels then give the same bits.
    """
    # In float64, too, layers take their softmax in float32.
    step = max(torch.finfo(model.dtype).eps, torch.finfo(torch.float32).eps)
    generator = torch.Generator().manual_seed(0)

    def perturb(_module: Any, _inputs: Any, embedded: Tensor) -> Tensor:
        signs = torch.randint(2, embedded.shape, generator=generator) * 2 - 1
        return embedded * (1 + step * signs.to(embedded))

    hook = _embedding(model).register_forward_hook(perturb)
    try:
        yield
    finally:
        hook.remove()


def _embedding(model: PreTrainedModel) -> Any:
    return stock_model(model).get_input_embeddings()


def _random_groups(model: PreTrainedModel) -> tuple[tuple[int, ...], list[TokenizedGroup]]:
    """Some words, and four groups of random tokens; fewer would blur ratios in half precision."""
    vocabulary = _embedding(model).num_embeddings
    generator = torch.Generator().manual_seed(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

    groups = [TokenizedGroup(words(13), tuple(map(words, (11, 14, 17, 20)))) for _ in range(4)]
    return words(99), groups

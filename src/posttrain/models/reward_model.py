"""Reward models: a stock ``AutoModelForSequenceClassification`` with one label, scoring rows."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError
from posttrain.models.architecture import check_decoder, vocabulary_size
from posttrain.models.loading import load_classifier, load_tokenizer
from posttrain.models.rotary import rope_side
from posttrain.rows.attention import mask_arguments, share_prefixes
from posttrain.rows.layout import LAYOUTS, Layout, RowBatch, lay_out
from posttrain.rows.shared_prefix import NAME as SHARED_PREFIX
from posttrain.rows.tokenization import TokenizedGroup, UnreadableError, tokenize_group

logger = logging.getLogger(__name__)

#: What classes call the head that predicts the next token.
NEXT_TOKEN_HEADS = {"lm_head", "embed_out", "output_projection"}


def load(
    checkpoint: str | Path,
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    attention: str | None = None,
    pad_token: str | None = None,
    chat_template: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint as a reward model in evaluation mode, with its tokenizer.

    Where the checkpoint is a language model, its next-token head is replaced by a scalar head
    (Llama 2, section 3.2.2) with weights from N(0, ``initializer_range``²), drawn with ``seed``,
    and no bias; :func:`has_fresh_head` says so.

    Args:
        checkpoint: A folder, or a name on the Hugging Face hub, of a model whose class transformers
            has, with weights in safetensors (see :mod:`.models.loading`).
        seed: Seeds the score head.
        dtype: Precision of the weights; default as stored. The score head is at least float32.
        attention: Attention implementation, by transformers' names; default ``shared_prefix``
            where the model can (:func:`.rows.attention.share_prefixes`), else transformers' own.
        pad_token: Padding token, for a tokenizer that has none or one that ends responses. The
            model's ``stored_pad_token_id`` is the one that its checkpoint names, or None.
        chat_template: Chat template, for a tokenizer that has none.
        tokenizer: In place of the last two, one that :func:`.loading.load_tokenizer` has returned.

    Raises:
        UserError: If there is no such checkpoint, it needs code or pickles, it is not a model of
            this kind or lacks weights, or the tokenizer has no padding token that it knows.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(checkpoint, pad_token, chat_template)
    model: Any
    shared = attention == SHARED_PREFIX
    model, report = load_classifier(
        checkpoint,
        seed=seed,
        dtype=dtype or "auto",
        attn_implementation=None if shared else attention,
    )
    check_decoder(model)
    if shared or attention is None:
        share_prefixes(model, asked_for=shared)
    missing = [name for name in report.lacking if not name.startswith("score.")]
    if missing:
        raise UserError(
            f"{str(checkpoint)!r} lacks {len(missing)} weights of a {type(model).__name__}, such "
            f"as {missing[0]}, which would be random; check that it is a whole model of this kind"
        )
    unused = [name for name in report.unused if NEXT_TOKEN_HEADS.isdisjoint(name.split("."))]
    if unused:
        logger.warning(
            "%d weights of %s have no place in a %s and are not used%s: %s",
            len(unused), checkpoint, type(model).__name__,
            "; its score head is drawn anew" if report.lacking else "",
            ", ".join(unused[:3]) + (", …" if len(unused) > 3 else ""),
        )  # fmt: skip
    size, pad_token_id = vocabulary_size(model), tokenizer.pad_token_id
    assert isinstance(pad_token_id, int)
    if pad_token_id >= size:
        raise UserError(
            f"the padding token {tokenizer.pad_token!r} of {str(checkpoint)!r} has the id "
            f"{pad_token_id}, and the model embeddings for ids below {size} only; set --pad_token "
            "to a token that the model knows and that never ends a response"
        )
    if hasattr(model.score, "get_base_layer"):
        # An adapter of the head itself: scores are read with one matrix.
        model.score.float().merge(safe_merge=True)
        model.score = model.score.get_base_layer()
    model.has_fresh_head = bool(report.lacking)
    if Path(checkpoint).is_dir():
        # A run's adapters name it as their base: from everywhere, and not what an adapter adapts.
        model.name_or_path = str(Path(checkpoint).resolve())
    return as_reward_model(model, tokenizer), tokenizer


def as_reward_model(model: Any, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Prepare a stock classifier with one label, in place, as :func:`load` promises."""
    # A multimodal model has another configuration within, which is the one that it reads.
    text = model.config.get_text_config()
    model.stored_pad_token_id = getattr(text, "pad_token_id", None)
    model.config.pad_token_id = text.pad_token_id = tokenizer.pad_token_id
    # Some classes count positions from the beginning of a row, padding included.
    tokenizer.padding_side = "right"
    # Otherwise pipeline("text-classification") passes a single label through a sigmoid.
    model.config.problem_type = "regression"
    if model.dtype == torch.float64 and model.config._experts_implementation == "grouped_mm":
        # Torch groups the products of a mixture's experts in single and half precision only.
        model.set_experts_implementation("eager")
    if model.dtype in (torch.bfloat16, torch.float16):
        head = score_head(model).float()
        # The stock forward would multiply a half-precision state with the float32 head and fail.
        head.register_forward_pre_hook(_match_precision)
    return model.eval()


def has_fresh_head(model: PreTrainedModel) -> bool:
    """Whether :func:`load` drew the score head, because the checkpoint had none."""
    return getattr(model, "has_fresh_head", False)


def check_padding(tokenizer: PreTrainedTokenizerBase, group: RankedGroup) -> None:
    """Refuse a padding token that ends responses, as those of a group.

    Scores here are read at places computed from lengths. But stock classes, which are to give the
    same scores, read the last token that is not padding.
    """
    try:
        tokens = tokenize_group(tokenizer, group, keep_equal=True)
    except UnreadableError:
        return  # whoever trains on the group says so, or leaves it out
    if any(response[-1] == tokenizer.pad_token_id for response in tokens.responses):
        raise UserError(
            f"responses of {tokenizer.name_or_path!r} end with its padding token "
            f"{tokenizer.pad_token!r}, so other programs would score them one token early; set "
            "--pad_token to a token that never ends a response"
        )


def _match_precision(head: nn.Linear, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(head.weight.dtype),)


def stock_model(model: nn.Module) -> PreTrainedModel:
    """The stock classifier within a wrapper: that of a distributed trainer, or of peft."""
    inner: Any = extract_model_from_parallel(model, keep_torch_compile=False)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def score_head(model: PreTrainedModel) -> nn.Linear:
    """The scalar head of a reward model, called ``score`` in stock classes with a decoder.

    Raises:
        UserError: If the model is not a sequence classifier with one label.
    """
    head: Any = getattr(model, "score", None)
    # peft keeps the original beside the copy that it trains.
    for adapter in getattr(head, "active_adapters", ()):
        head = head.modules_to_save[adapter]
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise UserError(
            f"{type(model).__name__} has no scalar score head; load it with "
            "AutoModelForSequenceClassification and num_labels=1"
        )
    return head


def accept_rows(model: Any) -> Any:
    """Let a model's forward take a ``score_index`` and return the scores of a batch of rows.

    The model, which may be one of peft, is changed and returned. Without that argument it stays the
    stock forward. Trainers wrap a model's forward to exchange gradients, gather weights and compute
    in mixed precision; so what they train has to be it.
    """
    score_head(stock_model(model))
    if "accepts_rows" not in vars(model):
        model.forward = MethodType(_forward, model)
        model.accepts_rows = True
    return model


def _forward(model: Any, *args: Any, score_index: Tensor | None = None, **kwargs: Any) -> Any:
    if score_index is None:
        return type(model).forward(model, *args, **kwargs)
    stock = stock_model(model)
    states = stock.base_model(*args, use_cache=False, **kwargs).last_hidden_state
    states = states.flatten(0, 1)[score_index]
    return _apply_head(score_head(stock), states)


def _apply_head(head: nn.Linear, states: Tensor) -> Tensor:
    """Scores of states, shape ``[responses]``, in float32 at least."""
    precision = torch.promote_types(head.weight.dtype, torch.float32)
    # Autocast would compute the head in half precision whatever its weights are in.
    with torch.autocast(states.device.type, enabled=False):
        if isinstance(head, FSDPModule):
            # Its weights are gathered for its own forward only (see .sharding).
            # No view: FSDP warns of what might be written into one.
            return head(states.to(precision))[:, 0].clone()
        return torch.mv(states.to(precision), head.weight[0].to(precision))


def forward_scores(model: Any, batch: RowBatch) -> Tensor:
    """Scores of one batch, with gradients, also through a trainer's wrapper (:func:`accept_rows`).

    States are read at ``batch.score_index``, computed from lengths. The stock forward looks for the
    last token that is not padding instead, which fails where the padding token also ends a response
    and where a row holds several responses.

    Returns:
        Shape ``[responses]``, in float32 at least, by group and then by rank.

    Raises:
        UserError: As for :func:`score_head` and :func:`.rows.attention.mask_for`.
    """
    inner = extract_model_from_parallel(model, keep_torch_compile=False)
    return model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        score_index=batch.score_index,
        **mask_arguments(stock_model(accept_rows(inner)), batch),
    )


def response_states(model: PreTrainedModel, batch: RowBatch) -> Tensor:
    """Last hidden state of the responses of one batch, with gradients: what the score head reads.

    Returns:
        Shape ``[responses, hidden size]``, by group and then by rank.

    Raises:
        UserError: As for :func:`.rows.attention.mask_for`.
    """
    stock = stock_model(model)
    states = stock.base_model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **mask_arguments(stock, batch),
    ).last_hidden_state
    return states.flatten(0, 1)[batch.score_index]


@torch.no_grad()
def score(
    model: PreTrainedModel,
    groups: Sequence[TokenizedGroup],
    *,
    pad_token_id: int,
    layout: Layout = LAYOUTS["separate"],
    batch_tokens: int = 8192,
    pack_length: int | None = None,
) -> Tensor:
    """Scores of all responses of any number of groups, without gradients.

    Groups are batched by length to save padding. In an exact layout, scores do not depend on the
    batching beyond rounding. ``batch_tokens`` limits a forward pass, padding included (in rows that
    groups share, of :func:`.rows.layout.lay_out`'s ``pack_length``: padding aside); a single larger
    group is allowed. Where rotary frequencies depend on the longest row (see :mod:`.rotary`), short
    and long responses are computed apart.

    Returns:
        Shape ``[responses]``, on the CPU: by group in the given order, then by rank.
    """
    was_training = model.training
    model.eval()
    try:
        head = score_head(stock_model(model)).weight.dtype
        count = sum(len(group.responses) for group in groups)
        scores = torch.empty(count, dtype=torch.promote_types(head, torch.float32))
        parts = _parts(model.config, groups, layout)
        for members in _batches(parts, layout, batch_tokens, shared_rows=pack_length is not None):
            batch = lay_out(
                [part.group for part in members],
                layout,
                pad_token_id=pad_token_id,
                pack_length=pack_length,
            )
            places = np.concatenate([part.places for part in members])
            scores[places] = forward_scores(model, batch.to(model.device)).cpu()
        return scores
    finally:
        model.train(was_training)


class _Part(NamedTuple):
    """Responses of a group that are computed together, and the places of their scores."""

    group: TokenizedGroup
    places: np.ndarray
    side: bool


def _parts(
    config: PreTrainedConfig, groups: Sequence[TokenizedGroup], layout: Layout
) -> list[_Part]:
    """The groups, in two parts where responses lie on both sides of :func:`.rope_boundary`."""
    parts = []
    first = 0
    restarting = layout.rows == "separate" or layout.positions == "restarting"
    for group in groups:
        lengths = [len(group.prompt) + len(response) for response in group.responses]
        by_side: dict[bool, list[int]] = {}
        for place, length in enumerate(lengths):
            side = rope_side(config, length if restarting else group.total)
            by_side.setdefault(side, []).append(place)
        for side, places in by_side.items():
            parts.append(_Part(group.in_order(places), first + np.array(places), side))
        first += len(lengths)
    return parts


def _batches(
    parts: Sequence[_Part], layout: Layout, batch_tokens: int, *, shared_rows: bool
) -> Iterator[list[_Part]]:
    """Parts of one side and of similar length, up to so many tokens at a time."""
    members: list[_Part] = []
    rows = longest = tokens = 0
    for part in sorted(parts, key=lambda part: (part.side, layout.tokens(part.group))):
        group = part.group
        is_single = layout.rows == "single"
        more_rows = 1 if is_single else len(group.responses)
        own_longest = group.total if is_single else group.longest
        longest = max(longest, own_longest)
        more_tokens = layout.tokens(group)
        size = tokens + more_tokens if shared_rows else (rows + more_rows) * longest
        if members and (size > batch_tokens or part.side != members[0].side):
            yield members
            members, rows, tokens = [], 0, 0
            longest = own_longest
        members.append(part)
        rows, tokens = rows + more_rows, tokens + more_tokens
    if members:
        yield members

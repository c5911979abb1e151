"""Reward models: a stock ``AutoModelForSequenceClassification`` with one label, scoring rows."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from posttrain.precision import compute_in_double
from posttrain.rows import Row, RowBatch, pad


def load(
    checkpoint: str | Path, *, seed: int = 0, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint as a reward model.

    Where the checkpoint is a language model, its next-token head is replaced by a scalar head
    (Llama 2, section 3.2.2) with weights from N(0, ``initializer_range``²), drawn with ``seed``,
    and no bias.

    Args:
        checkpoint: A folder, or a name on the Hugging Face hub.
        seed: Seeds the score head.
        dtype: Precision of the weights; default as stored. The score head is at least float32.
            A float64 model computes in float64 throughout (see :mod:`posttrain.precision`).

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        ValueError: If the tokenizer has no padding token.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"the tokenizer of {str(checkpoint)!r} has no padding token; set pad_token in its "
            "tokenizer_config.json to a token that never ends a response"
        )
    # The caller's random numbers go on as if nothing had been drawn here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, num_labels=1, dtype=dtype or "auto"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    # Otherwise pipeline("text-classification") passes a single label through a sigmoid.
    model.config.problem_type = "regression"
    if model.dtype in (torch.bfloat16, torch.float16):
        head = score_head(model).float()
        # The stock forward would multiply a half-precision state with the float32 head and fail.
        head.register_forward_pre_hook(_match_precision)
    return compute_in_double(model).eval(), tokenizer


def _match_precision(head: nn.Linear, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(head.weight.dtype),)


def score_head(model: PreTrainedModel) -> nn.Linear:
    """The scalar head of a reward model, called ``score`` in every stock Llama-like class.

    Raises:
        ValueError: If the model is not a sequence classifier with one label.
    """
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or head.out_features != 1:
        raise ValueError(
            f"{type(model).__name__} has no scalar score head; load it with "
            "AutoModelForSequenceClassification and num_labels=1"
        )
    return head


def forward_scores(model: PreTrainedModel, batch: RowBatch) -> Tensor:
    """Scores of the rows of one batch, with gradients.

    The score is read at ``batch.score_index``, an index computed from lengths. The stock forward
    looks for the last token that is not padding instead, which fails where the padding token also
    ends a response.

    Returns:
        Shape ``[rows]``, in the precision of the score head.
    """
    stock: PreTrainedModel = extract_model_from_parallel(model)
    captured: list[Tensor] = []
    # The call goes through the outermost module: only there do gradient synchronisation between
    # devices and mixed precision apply.
    handle = stock.base_model.register_forward_hook(
        lambda _module, _inputs, output: captured.append(output.last_hidden_state)
    )
    try:
        model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    finally:
        handle.remove()
    hidden = captured[0]
    rows = torch.arange(len(batch.score_index), device=hidden.device)
    scored = hidden[rows, batch.score_index]
    head = score_head(stock)
    return head(scored.to(head.weight.dtype)).squeeze(-1)


@torch.no_grad()
def score(
    model: PreTrainedModel, rows: Sequence[Row], *, pad_token_id: int, batch_size: int = 64
) -> Tensor:
    """Scores of any number of rows, in the given order, without gradients.

    Rows are batched by length to save padding; scores do not depend on the batching beyond
    rounding.

    Returns:
        Shape ``[rows]``, on the CPU.
    """
    was_training = model.training
    model.eval()
    try:
        return _score(model, rows, pad_token_id, batch_size)
    finally:
        model.train(was_training)


def _score(
    model: PreTrainedModel, rows: Sequence[Row], pad_token_id: int, batch_size: int
) -> Tensor:
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    scores = torch.empty(len(rows), dtype=score_head(model).weight.dtype)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = pad([rows[place].ids for place in places], pad_token_id)
        on_device = RowBatch(
            batch.input_ids.to(model.device),
            batch.attention_mask.to(model.device),
            batch.score_index.to(model.device),
        )
        scores[places] = forward_scores(model, on_device).cpu()
    return scores

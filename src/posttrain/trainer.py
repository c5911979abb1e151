"""RankingTrainer: a ``transformers.Trainer`` whose loss is the ranking loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from posttrain.losses import ranking_loss
from posttrain.reward_model import forward_scores
from posttrain.rows import Row, RowBatch, pad


@dataclass(frozen=True)
class TrainingPair:
    """One comparison, ready to train on.

    Attributes:
        winner: Row of the preferred response.
        loser: Row of the other response.
        margin: Margin in the loss.
        weight: Weight in the loss.
    """

    winner: Row
    loser: Row
    margin: float = 0.0
    weight: float = 1.0


class PairCollator:
    """Turn training pairs into a batch: rows of all winners, then of all losers.

    The result maps ``input_ids`` and ``attention_mask`` (``[2 · pairs, longest]``),
    ``score_index`` (``[2 · pairs]``), ``margins`` and ``weights`` (``[pairs]``).
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, pairs: Sequence[TrainingPair]) -> dict[str, Tensor]:
        """Pad the rows of ``pairs`` and collect their margins and weights."""
        rows = [pair.winner for pair in pairs] + [pair.loser for pair in pairs]
        batch = pad(rows, self.pad_token_id)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "score_index": batch.score_index,
            "margins": torch.tensor([pair.margin for pair in pairs], dtype=torch.float64),
            "weights": torch.tensor([pair.weight for pair in pairs], dtype=torch.float64),
        }


class RankingTrainer(Trainer):
    """Trains a reward model on pairs; everything but the loss is ``transformers.Trainer``.

    Args:
        centring: Factor of the centring term of :func:`posttrain.losses.ranking_loss`.
        *args: Passed on.
        **kwargs: Passed on; the data collator must be a :class:`PairCollator`.
    """

    def __init__(self, *args: Any, centring: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.centring = centring

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Ranking loss of one batch (see :func:`posttrain.losses.ranking_loss`)."""
        rows = RowBatch(inputs["input_ids"], inputs["attention_mask"], inputs["score_index"])
        scores = forward_scores(model, rows)  # type: ignore[arg-type]
        winners, losers = scores.chunk(2)
        loss = ranking_loss(
            winners,
            losers,
            margins=inputs["margins"],
            weights=inputs["weights"],
            centring=self.centring,
        )
        return (loss, {"scores": scores}) if return_outputs else loss

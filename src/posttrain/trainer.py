"""RankingTrainer: a ``transformers.Trainer`` whose loss is the ranking loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
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
        weight: Weight in the loss, relative to the other pairs.
    """

    winner: Row
    loser: Row
    margin: float = 0.0
    weight: float = 1.0


def training_set(pairs: Sequence[TrainingPair]) -> Dataset:
    """Training pairs as a data set for :class:`RankingTrainer`.

    Columns: ``winner`` and ``loser`` (token ids), ``margin``, ``weight`` (scaled to mean 1 over the
    set, so that weights change the emphasis but not the size of the loss), and ``length``, the
    longer of both rows, by which ``train_sampling_strategy="group_by_length"`` saves padding.
    Pairs of weight 0 are left out.

    Raises:
        ValueError: If no pair has a positive weight.
    """
    pairs = [pair for pair in pairs if pair.weight != 0]
    if not pairs:
        raise ValueError("there is no pair to train on; the filter may have left none")
    mean_weight = sum(pair.weight for pair in pairs) / len(pairs)
    return Dataset.from_dict(
        {
            "winner": [pair.winner.ids for pair in pairs],
            "loser": [pair.loser.ids for pair in pairs],
            "margin": [pair.margin for pair in pairs],
            "weight": [pair.weight / mean_weight for pair in pairs],
            "length": [max(len(pair.winner.ids), len(pair.loser.ids)) for pair in pairs],
        }
    )


class PairCollator:
    """Turn rows of a :func:`training_set` into a batch: rows of all winners, then of all losers.

    The result maps ``input_ids`` and ``attention_mask`` (``[2 · pairs, longest]``),
    ``score_index`` (``[2 · pairs]``), ``margins`` and ``weights`` (``[pairs]``).
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad the token ids of ``pairs`` and collect their margins and weights."""
        ids = [pair["winner"] for pair in pairs] + [pair["loser"] for pair in pairs]
        batch = pad(ids, self.pad_token_id)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "score_index": batch.score_index,
            "margins": torch.tensor([pair["margin"] for pair in pairs], dtype=torch.float64),
            "weights": torch.tensor([pair["weight"] for pair in pairs], dtype=torch.float64),
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
        # The model's forward takes none of the columns of a training set; the collator does.
        self.args.remove_unused_columns = False
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

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Loss of one evaluation batch, and its scores as ``[pairs, 2]`` (winner, loser)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        scores = torch.stack(outputs["scores"].chunk(2), dim=1)
        return loss, scores, torch.zeros(len(scores), device=scores.device)

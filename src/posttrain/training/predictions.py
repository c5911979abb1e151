"""Scores of evaluation, by group, so that Trainer can gather them from all processes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import EvalPrediction

from posttrain.training.losses import ranking_loss
from posttrain.training.metrics import score_metrics, sums_over_pairs

#: Stands where there is no pair; what Trainer itself pads with.
NO_PAIR = -100.0


def by_place(values: Mapping[int, Tensor], size: int, *, like: Tensor) -> Tensor:
    """A table of what is known of each group's pairs, ``[size, most pairs, numbers]``.

    From ``[pairs, numbers]`` by place of the group; where there is no group or no pair, all are
    :data:`NO_PAIR`. ``like`` has the numbers and the dtype of the values, of which there may be
    none.
    """
    none = like[:0]
    table = [values.get(place, none) for place in range(size)]
    return pad_sequence(table, batch_first=True, padding_value=NO_PAIR)


def metrics_of(
    predicted: EvalPrediction, *, center_rewards_coefficient: float = 0.0
) -> dict[str, float]:
    """Mean ``loss`` over all pairs and, if it is finite, :func:`.training.metrics.score_metrics`.

    Predictions are scores of winners and losers, ``[groups, most pairs, 2]``; label ids are
    margins, weights and strengths, ``[groups, most pairs, 3]``.
    """
    scores, terms = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
    is_pair = terms[..., 1] != NO_PAIR
    winners, losers = torch.from_numpy(scores[is_pair]).unbind(1)
    margins, weights, strengths = torch.from_numpy(terms[is_pair]).unbind(1)
    loss = ranking_loss(
        winners,
        losers,
        margins=margins,
        weights=weights,
        center_rewards_coefficient=center_rewards_coefficient,
    )
    # Metrics refuse scores that are not finite, and cannot say of which data.
    if not torch.isfinite(loss):
        return {"loss": loss.item()}
    return {"loss": loss.item()} | score_metrics(sums_over_pairs(winners, losers, strengths))

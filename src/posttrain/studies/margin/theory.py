"""What a margin does to the optimum, derived in closed form and checked by minimising the loss."""

from collections.abc import Sequence

import pandas as pd
import torch

from posttrain.training.losses import optimal_difference, ranking_loss


def minimised_difference(probability: float, margin: float) -> float:
    """The score difference that minimises the expected margin loss, found numerically.

    The two outcomes of one comparison, the first preferred with ``probability``, are given to
    :func:`.training.losses.ranking_loss`, and L-BFGS moves the difference.
    """
    difference = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    weights = torch.tensor([probability, 1 - probability], dtype=torch.float64)
    margins = torch.full((2,), margin, dtype=torch.float64)
    optimiser = torch.optim.LBFGS(
        [difference],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = ranking_loss(
            torch.cat([difference, zero]),
            torch.cat([zero, difference]),
            margins=margins,
            weights=weights,
        )
        value.backward()
        return value

    optimiser.step(loss)
    return float(difference.detach())


def optimum_table(
    probabilities: Sequence[float] = (0.5, 0.6, 0.75, 0.9, 0.98),
    margins: Sequence[float] = (0.0, 1.0, 3.0),
) -> pd.DataFrame:
    """Closed form and minimum of Δ by probability ``p`` and ``margin``, and what σ then claims."""
    rows = []
    for margin in margins:
        for probability in probabilities:
            exact = optimal_difference(torch.tensor(probability, dtype=torch.float64), margin)
            minimised = minimised_difference(probability, margin)
            rows.append((probability, margin, float(exact), minimised, float(torch.sigmoid(exact))))
    return pd.DataFrame(rows, columns=["p", "margin", "closed form", "minimised", "claimed"])

"""What each way of using an edit pushes, derived from the losses themselves."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor

from posttrain.data.preferences import RESPONSES
from posttrain.training.losses import plackett_luce_loss, ranking_loss
from posttrain.training.pairing import PAIRINGS

#: Comparisons of an edited group, by objective; Plackett–Luce has none of its own.
OBJECTIVES = {
    "edits ignored": PAIRINGS["rated"],
    "adding edited > chosen": PAIRINGS["rated and edited over chosen"],
    "adding edited > rejected": PAIRINGS["rated and edited over rejected"],
    "edited over both": PAIRINGS["best"],
    "all pairs": PAIRINGS["all"],
}
PLACKETT_LUCE = "Plackett-Luce"


def group_loss(scores: Tensor, objective: str) -> Tensor:
    """Loss of one edited group from the scores of edited, chosen and rejected, ``[3]``.

    ``objective`` is a key of :data:`OBJECTIVES`, ``all pairs, by prompt`` or ``Plackett-Luce``. A
    sum over the pairs; for ``all pairs, by prompt`` their mean.
    """
    if objective == PLACKETT_LUCE:
        return plackett_luce_loss(scores, [3])
    by_prompt = objective == "all pairs, by prompt"
    kinds = OBJECTIVES["all pairs" if by_prompt else objective]
    places = [[RESPONSES.index(role) for role in kind.split(" > ")] for kind in kinds]
    winners, losers = torch.tensor(places).T
    losses = ranking_loss(scores[winners], scores[losers], reduction="none")
    return losses.mean() if by_prompt else losses.sum()


def push_table(
    differences: Sequence[tuple[float, float]] = ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0)),
) -> pd.DataFrame:
    """How hard each objective pushes the three scores: minus the gradient of one group's loss.

    One row an objective and place, given as score of edited minus chosen, and of chosen minus
    rejected. The pushes on ``edited``, ``chosen`` and ``rejected`` sum to zero.
    """
    rows = []
    for first, second in differences:
        for objective in (*OBJECTIVES, "all pairs, by prompt", PLACKETT_LUCE):
            scores = torch.tensor(
                [first + second, second, 0.0], dtype=torch.float64, requires_grad=True
            )
            (gradient,) = torch.autograd.grad(group_loss(scores, objective), scores)
            rows.append((first, second, objective, *(0 - gradient).tolist()))
    columns = ["edited − chosen", "chosen − rejected", "objective", *RESPONSES]
    return pd.DataFrame(rows, columns=columns)


def consistency_table(scores: Sequence[float] = (1.5, 0.5, 0.0)) -> pd.DataFrame:
    """What each objective learns of rankings that follow Plackett–Luce with some scores.

    One row an objective: the scores, the last at 0, that minimise its expected loss over all
    orders. Adjacent pairs alone ("adding edited > chosen") do not give back the truth.
    """
    truth = torch.tensor(scores, dtype=torch.float64)
    orders = [list(order) for order in permutations(range(len(scores)))]
    weights = torch.stack([(-plackett_luce_loss(truth[o], [len(scores)])).exp() for o in orders])
    rows = []
    for objective in (*OBJECTIVES, PLACKETT_LUCE):

        def expected(free: np.ndarray, objective: str = objective) -> tuple[float, np.ndarray]:
            learned = torch.tensor(free, requires_grad=True)
            whole = torch.cat([learned, torch.zeros(1, dtype=torch.float64)])
            losses = torch.stack([group_loss(whole[order], objective) for order in orders])
            loss = weights @ losses
            (gradient,) = torch.autograd.grad(loss, learned)
            return loss.item(), gradient.numpy()

        found = minimize(expected, np.zeros(len(scores) - 1), jac=True, options={"gtol": 1e-10})
        rows.append((objective, *found.x))
    columns = ["objective", *(f"score {value:g}" for value in scores[:-1])]
    return pd.DataFrame(rows, columns=columns)


def efficiency_table(
    scores: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0), (1.5, 0.5, 0.0), (3.0, 1.5, 0.0)),
) -> pd.DataFrame:
    """How many times as many rankings all pairs need as Plackett–Luce for the same precision.

    For rankings that follow Plackett–Luce with some scores, one row each: the ratio of asymptotic
    variances, of the sandwich form H⁻¹JH⁻¹ with H the expected second derivative of the loss and J
    the variance of its first, for the differences of each two responses. Zhu, Jordan and Jiao
    (2023, Theorem 4.3) show that it is at least 1.
    """
    rows = []
    for truth in scores:
        best, pairs = (_variances(truth, name) for name in (PLACKETT_LUCE, "all pairs"))
        shown = ", ".join(f"{value:g}" for value in truth)
        rows.append((shown, *(pairs / best).tolist()))
    columns = ["scores", "edited − chosen", "edited − rejected", "chosen − rejected"]
    return pd.DataFrame(rows, columns=columns)


def _variances(scores: Sequence[float], objective: str) -> np.ndarray:
    """Asymptotic variance of the learned differences, a ranking each: places 0−1, 0−2 and 1−2."""
    truth = torch.tensor(scores, dtype=torch.float64)
    orders = [list(order) for order in permutations(range(3))]
    weights = torch.stack([(-plackett_luce_loss(truth[o], [3])).exp() for o in orders])
    # Free are the first two scores; the last one is held.
    curved, varied = torch.zeros(2, 2), torch.zeros(2, 2)
    for weight, order in zip(weights, orders, strict=True):

        def loss(free: Tensor, order: list[int] = order) -> Tensor:
            return group_loss(torch.cat([free, truth[2:]])[order], objective)

        slope = torch.autograd.functional.jacobian(loss, truth[:2])
        curved = curved + weight * torch.autograd.functional.hessian(loss, truth[:2])
        varied = varied + weight * torch.outer(slope, slope)
    inverse = torch.linalg.inv(curved)
    covariance = (inverse @ varied @ inverse).numpy()
    contrasts = np.array([[1, -1], [1, 0], [0, 1]])
    return np.einsum("ki,ij,kj->k", contrasts, covariance, contrasts)

"""Linear heads for studies: fitted for all arms and penalties at once, with the penalty tuned."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor

from posttrain.errors import UserError
from posttrain.models.heads import fit_heads


def tuned_heads(
    differences: Tensor,
    *,
    margins: Tensor,
    weights: Tensor,
    penalties: Sequence[float],
    fold: np.ndarray,
    judged: np.ndarray,
    choices: Tensor | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Fit every arm with every penalty, and choose each arm's penalty by cross-validation.

    Args:
        differences: Features of the winner minus those of the loser, ``[pairs, features]``.
        margins: ``[arms, pairs]``.
        weights: ``[arms, pairs]``.
        penalties: Ascending.
        fold: Which fold a pair belongs to, from 0 on, ``[pairs]``.
        judged: Whether a pair judges penalties when its fold is left out, ``[pairs]``. The same
            pairs judge all arms, whatever an arm trains on.
        choices: See :func:`.models.heads.fit_heads`.

    Returns:
        Heads fitted on all pairs, ``[arms, penalties, features]``, and the index of each arm's
        penalty, ``[arms]``: the best accuracy, of equals the strongest penalty.

    Raises:
        UserError: If a fit did not converge.
    """
    arms, grid, folds = len(weights), len(penalties), int(fold.max()) + 1
    # Fit 0 of each arm and penalty sees all pairs, fit k + 1 leaves fold k out.
    left_out = np.concatenate(
        [np.zeros((1, len(fold)), dtype=bool), fold == np.arange(folds)[:, None]]
    )
    included = torch.from_numpy(~left_out).to(differences)
    shape = (arms, grid, folds + 1, len(differences))
    fits = fit_heads(
        differences,
        margins=margins.to(differences)[:, None, None].expand(shape).flatten(0, 2),
        weights=(weights.to(differences)[:, None, None] * included).expand(shape).flatten(0, 2),
        penalties=torch.tensor(penalties).to(differences)[:, None].expand(shape[:3]).flatten(),
        choices=choices,
    )
    if not fits.converged.all():
        raise UserError(
            f"{int((~fits.converged).sum())} of {len(fits.converged)} head fits did not converge "
            f"in {fits.iterations} iterations; leave out the smallest penalties"
        )
    heads = fits.heads.unflatten(0, shape[:3])
    right = (torch.einsum("apkf,nf->apkn", heads[:, :, 1:], differences) > 0).numpy()
    accuracy = (right & left_out[1:] & judged).sum(axis=(2, 3))
    return heads[:, :, 0], grid - 1 - np.argmax(accuracy[:, ::-1], axis=1)


def inner_folds(names: Sequence[Any] | np.ndarray, count: int) -> np.ndarray:
    """Fold of each training group, from 0 on; those of one name stay together."""
    fold = np.zeros(len(names), dtype=int)
    for number, (_, held) in enumerate(GroupKFold(count).split(fold, groups=names)):
        fold[held] = number
    return fold


def typical_value(
    values: Sequence[float], chosen: Sequence[int] | np.ndarray
) -> tuple[float, float]:
    """Geometric mean of chosen values, and how often they lie at an end of their grid."""
    grid = np.array(values)
    at_edge = np.isin(chosen, (0, len(grid) - 1)).mean()
    return float(np.exp(np.log(grid[chosen]).mean())), float(at_edge)

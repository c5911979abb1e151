"""Many linear heads on frozen features, fitted at once.

A reward model with a frozen backbone is a linear head on hidden states, so its ranking loss is
convex and a fit takes well under a second. That makes the things affordable which full training
does not allow on a laptop: many data sizes, seeds, folds, and hyperparameters tuned per arm.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from posttrain.errors import UserError


@dataclass(frozen=True)
class HeadFits:
    """Linear heads that minimise the ranking loss, shape ``[fits, features]``.

    Attributes:
        gradient_norms: Largest absolute entry of the loss gradient at each head, in the eigenbasis
            of the differences, ``[fits]``.
        converged: Whether that is within the tolerance, ``[fits]``.
        iterations: Passes over the data that the slowest fit took.
    """

    heads: Tensor
    gradient_norms: Tensor
    converged: Tensor
    iterations: int


@torch.no_grad()
def fit_heads(
    differences: Tensor,
    *,
    margins: Tensor,
    weights: Tensor,
    penalties: Tensor,
    choices: Tensor | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 20_000,
) -> HeadFits:
    r"""Fit many heads on the same pairs at once, each with its own margins, weights and penalty.

    Fit b minimises

    .. math:: \frac{\sum_i w_{bi} \log(1 + e^{-(d_i β - m_{bi})})}{\sum_i w_{bi}}
              + \frac{λ_b}{2} \lVert β \rVert^2

    A weight of zero leaves a pair out, which is how folds and filters share one batch. Pairs with
    one winner may also be one choice among several, as Plackett and Luce have it: then a set C of
    them has the one term :math:`w_{bC} \log(1 + \sum_{i \in C} e^{-(d_i β - m_{bi})})`, and its
    weight counts once in the denominator.

    The method is the lower-bound Newton step of
    :cite:t:`Böhning and Lindsay (1988) <boehning1988monotonicity>`: the Hessian never exceeds
    :math:`\frac{c_b}{4} D^\top D / N + λ_b` (with choices, ½ instead of ¼), which is diagonal in
    the eigenbasis of :math:`D^\top D`; it is accelerated by Nesterov's momentum with the adaptive
    restart of :cite:t:`O'Donoghue and Candès (2015) <odonoghue2015adaptive>`.

    Args:
        differences: Features of the winner minus those of the loser, shape ``[pairs, features]``.
        margins: Shape ``[fits, pairs]``.
        weights: Not negative, shape ``[fits, pairs]``.
        penalties: λ, positive, shape ``[fits]``.
        choices: Number of the set that each pair belongs to, shape ``[pairs]``; pairs of one set
            have one weight. None makes each pair a set of its own.
        tolerance: Largest entry of the gradient at which a fit counts as converged.
        max_iterations: Where to stop regardless.

    Raises:
        UserError: If a penalty is not positive.
    """
    pairs, fits = differences.shape[0], penalties.shape[0]
    if margins.shape != (fits, pairs) or weights.shape != (fits, pairs):
        raise ValueError(
            f"expected margins and weights of shape [{fits}, {pairs}] (fits, pairs), got "
            f"{list(margins.shape)} and {list(weights.shape)}"
        )
    if not (penalties > 0).all():
        raise UserError("penalties must be positive, or separable pairs have no finite optimum")
    if (weights < 0).any() or not (weights.sum(dim=1) > 0).all():
        raise ValueError("weights must not be negative, and each fit needs one that is positive")

    # In double precision, because small eigenvalues decide which directions exist at all.
    gram = differences.double().T @ differences.double() / pairs
    eigenvalues, basis = torch.linalg.eigh(gram)
    varied = eigenvalues > eigenvalues[-1] * 1e-12
    basis = basis[:, varied].to(differences)
    rotated = differences @ basis
    if choices is not None and choices.shape != (pairs,):
        raise ValueError(f"expected choices of shape [{pairs}] (pairs), got {list(choices.shape)}")
    members = None if choices is None else _members(choices)
    if members is not None and not _is_even(weights, members):
        raise ValueError("pairs of one choice must have one weight")
    weights = weights / _total(weights, members)
    # Hessian bound: Σ w dd' σ'(·) ≤ ¼ max(w) N · D'D/N; of a softmax, ½ (Böhning, 1992).
    scale = weights.amax(dim=1) * pairs / (4 if members is None else 2)
    bound = scale[:, None] * eigenvalues[varied].to(differences) + penalties[:, None]

    heads = rotated.new_zeros(fits, rotated.shape[1])
    norms = rotated.new_full((fits,), torch.inf)
    # Only unfinished fits take part in an iteration; ``active`` are their places in the result.
    active = torch.arange(fits)
    current, previous = heads.clone(), heads.clone()
    momentum = rotated.new_ones(fits)
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007
        following = (1 + torch.sqrt(1 + 4 * momentum**2)) / 2
        ahead = current + ((momentum - 1) / following)[:, None] * (current - previous)
        slack = ahead @ rotated.T - margins
        wrong = torch.sigmoid(-slack) if members is None else _wrong(slack, members)
        gradient = -(weights * wrong) @ rotated + penalties[:, None] * ahead
        previous, current = current, ahead - gradient / bound
        # Restart the momentum of a fit where it points uphill.
        uphill = (gradient * (current - previous)).sum(dim=1) > 0
        momentum = torch.where(uphill, torch.ones_like(following), following)
        norms[active] = gradient.abs().amax(dim=1)
        heads[active] = ahead
        running = norms[active] > tolerance
        if not running.all():
            if not running.any():
                break
            active, current, previous = active[running], current[running], previous[running]
            momentum, margins, weights = momentum[running], margins[running], weights[running]
            penalties, bound = penalties[running], bound[running]
    return HeadFits(heads @ basis.T, norms, norms <= tolerance, iteration)


def _members(choices: Tensor) -> Tensor:
    """Pairs of each set, shape ``[sets, most pairs]``; −1 where a set has fewer."""
    order = torch.argsort(choices, stable=True)
    parts = order.split(torch.unique(choices, return_counts=True)[1].tolist())
    return pad_sequence(list(parts), batch_first=True, padding_value=-1)


def _is_even(weights: Tensor, members: Tensor) -> bool:
    by_set = weights[:, members]
    return bool(torch.where(members >= 0, by_set == by_set[:, :, :1], True).all())


def _total(weights: Tensor, members: Tensor | None) -> Tensor:
    """Sum of the weights of each fit, a set counted once, shape ``[fits, 1]``."""
    counted = weights if members is None else weights[:, members[:, 0]]
    return counted.sum(dim=1, keepdim=True)


def _wrong(slack: Tensor, members: Tensor) -> Tensor:
    """Probability of each loser to be chosen before its winner, shape ``[fits, pairs]``."""
    there = members >= 0
    logits = torch.where(there, -slack[:, members], -torch.inf)
    lost = torch.cat([logits.new_zeros(*logits.shape[:2], 1), logits], dim=2).softmax(dim=2)
    by_pair = torch.empty_like(slack)
    by_pair[:, members[there]] = lost[:, :, 1:][:, there]
    return by_pair

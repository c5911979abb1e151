"""Ranking losses on pairs of scores (Llama 2, section 3.2.2; Llama 3, section 4.1.2).

And Llama 2's auxiliary loss on single scores (appendix A.3.3).

Losses of pairs take the scores of winners and losers as two tensors of shape ``[pairs]`` and refuse
anything else: a ``[pairs, 1]`` tensor minus a ``[pairs]`` tensor would silently broadcast to
``[pairs, pairs]``, a known bug of several trainers. Losses are computed in float32, or in float64
if scores are float64.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence

#: Llama 2's margins by strength (Table 27), for strength 1 (negligibly) to 4 (significantly).
MARGINS: dict[str, dict[int, float]] = {
    "none": {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0},
    "small": {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0},
    "large": {1: 0.0, 2: 1.0, 3: 2.0, 4: 3.0},
}

Reduction = Literal["mean", "none"]


def margins_by_strength(
    strengths: Sequence[int | None], table: str | Mapping[int, float]
) -> Tensor:
    """Margin of each pair, ``[pairs]``, float64.

    >>> margins_by_strength([1, 4], "large")
    tensor([0., 3.], dtype=torch.float64)

    Args:
        strengths: Strength of each pair, 1 to 4. None (not rated) is accepted only by a table of
            zeros, because no margin can be derived for it.
        table: A key of :data:`MARGINS`, or a mapping from strength to margin.
    """
    if isinstance(table, str):
        if table not in MARGINS:
            raise ValueError(f"unknown margin table {table!r}; known: {', '.join(MARGINS)}")
        table = MARGINS[table]
    if not any(table.values()):
        return torch.zeros(len(strengths), dtype=torch.float64)
    values = []
    for place, strength in enumerate(strengths):
        if strength is None:
            raise ValueError(
                f"pair {place} has no strength, so it has no margin; "
                "use the margin 'none' or data whose pairs are all rated"
            )
        if strength not in table:
            raise ValueError(f"pair {place}: the margin table has no entry for {strength}")
        values.append(table[strength])
    return torch.tensor(values, dtype=torch.float64)


def ranking_loss(
    winners: Tensor,
    losers: Tensor,
    *,
    margins: Tensor | None = None,
    weights: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Negative log-likelihood of a ranking, with optional margins, weights and centring of scores.

    .. math:: \ell_i = w_i \left[-\log σ(s^+_i - s^-_i - m_i)\right] + c\,(s^+_i + s^-_i)^2

    With ``margins`` this is Llama 2's Eq. 2, without them Llama 3's loss. With ``weights`` equal to
    the strengths it is the scaled Bradley–Terry loss of HelpSteer2-Preference. The centring term
    (Eisenstein et al., 2023) fixes the free constant of the scores.

    >>> ranking_loss(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), reduction="none")
    tensor([0.1269, 0.6931])

    Args:
        winners: Scores of the preferred responses, ``[pairs]``.
        losers: Scores of the other responses, ``[pairs]``.
        margins: Margin of each pair, ``[pairs]``; none means 0.
        weights: Weight of each pair, ``[pairs]``, not negative; none means 1.
        center_rewards_coefficient: c, factor of the squared sum of both scores.
        reduction: ``mean`` over pairs, a scalar, or ``none`` for ``[pairs]``. The mean divides by
            the number of pairs, not by their weights: dividing by a batch's own weights would
            cancel them, wholly so in a batch of one. Weights of mean 1 over the training set leave
            the size of the loss as it is.
    """
    _check_shapes("pair", winners=winners, losers=losers, margins=margins, weights=weights)
    if reduction not in ("mean", "none"):
        raise ValueError(f"unknown reduction {reduction!r}; known: mean, none")
    # Half precision cannot resolve differences of near-identical responses.
    precision = torch.float64 if winners.dtype == torch.float64 else torch.float32
    winners, losers = winners.to(precision), losers.to(precision)
    difference = winners - losers
    if margins is not None:
        difference = difference - margins.to(difference)
    losses = -logsigmoid(difference)
    penalty = center_rewards_coefficient * (winners + losers) ** 2
    if weights is not None:
        if (weights < 0).any():
            raise ValueError("weights must not be negative")
        losses = weights.to(difference) * losses
    losses = losses + penalty
    return losses if reduction == "none" else losses.mean()


def plackett_luce_loss(scores: Tensor, counts: Sequence[int]) -> Tensor:
    r"""Negative log-likelihood of whole rankings (Plackett, 1975; Luce, 1959), mean over groups.

    The best response is chosen from all, the next from those that are left, and so on:

    .. math:: \ell = -\sum_{k=1}^{K-1} \log \frac{e^{s_k}}{\sum_{j \ge k} e^{s_j}}

    For two responses this is :func:`ranking_loss`. For three it is the sum over the pairs less
    :math:`\log(1 + ab / (1 + a + b))` with :math:`a = e^{s_2 - s_1}` and :math:`b = e^{s_3 - s_1}`,
    so it counts the two defeats of the best response less than twice.

    >>> plackett_luce_loss(torch.tensor([2.0, 0.0]), [2])
    tensor(0.1269)

    Args:
        scores: Shape ``[responses]``, by group and within each best first.
        counts: Number of responses of each group, at least two.
    """
    if scores.dim() != 1 or not counts or min(counts) < 2 or sum(counts) != len(scores):
        raise ValueError(
            f"expected scores [responses] of groups of two or more, got {list(scores.shape)} for "
            f"counts {[*counts]}"
        )
    precision = torch.float64 if scores.dtype == torch.float64 else torch.float32
    # From the worst response to the best, each with the log of the sum of exponents up to it.
    table = pad_sequence(
        [part.flip(0) for part in scores.to(precision).split([*counts])],
        batch_first=True,
        padding_value=float("-inf"),
    )
    place = torch.arange(table.shape[1], device=table.device)
    # The worst response is chosen from itself alone, which adds nothing.
    there = place < place.new_tensor([*counts])[:, None]
    losses = torch.logcumsumexp(table, dim=1)[there] - table[there]
    return losses.sum() / len(counts)


def label_loss(scores: Tensor, acceptable: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Binary cross-entropy of absolute labels (Llama 2, appendix A.3.3).

    Each response is compared with a reference whose score is fixed at 0: an acceptable (safe) one
    is to win, another one to lose. ``scores`` and ``acceptable``, y, which is boolean, are
    ``[responses]``; ``reduction`` is that of :func:`ranking_loss`.

    .. math:: \ell_i = -y_i \log σ(s_i - 0) - (1 - y_i) \log σ(0 - s_i)

    So it is the :func:`ranking_loss` of these comparisons, and σ(score) becomes the probability
    that a response is acceptable. It fixes the free constant of the scores.
    """
    _check_shapes("response", scores=scores, acceptable=acceptable)
    if acceptable.dtype != torch.bool:
        raise ValueError(
            f"labels must be of dtype torch.bool, not {acceptable.dtype}; compare grades with a "
            "threshold first"
        )
    signed = torch.where(acceptable, scores, -scores)
    return ranking_loss(signed, torch.zeros_like(signed), reduction=reduction)


def _check_shapes(kind: str, **tensors: Tensor | None) -> None:
    """Refuse anything but equal one-dimensional shapes with at least one pair or response."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if t is not None}
    expected = next(iter(shapes.values()))
    if len(expected) != 1 or expected[0] == 0 or any(s != expected for s in shapes.values()):
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(
            f"expected tensors of one shape [{kind}s] with at least one {kind}, got {listed}; "
            "squeeze score columns before calling"
        )


def optimal_difference(probability: Tensor, margin: Tensor | float) -> Tensor:
    r"""The score difference that minimises the expected margin loss on one kind of pair.

    A pair is preferred one way with probability p, in (0, 1), and the other way with 1 − p, each
    time with margin m. Setting the derivative of

    .. math:: -p \log σ(Δ - m) - (1 - p) \log σ(-Δ - m)

    to zero gives a quadratic equation in :math:`e^Δ`. Without a margin the solution is logit(p).
    With one it is 0 at p = ½ and tends to logit(p) + m as p tends to 1.
    """
    # The formula for p < ½ is the mirror image; computing only p ≥ ½ avoids cancellation.
    larger = torch.maximum(probability, 1 - probability)
    decided = 2 * larger - 1
    shrink = torch.exp(-torch.as_tensor(margin, dtype=larger.dtype))
    root = torch.sqrt(decided**2 + 4 * larger * (1 - larger) * shrink**2)
    difference = torch.log((decided + root) / (2 * (1 - larger) * shrink))
    return torch.where(probability >= 0.5, difference, -difference)

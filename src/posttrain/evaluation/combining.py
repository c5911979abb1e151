r"""One score from two: how a helpfulness and a safety reward model decide together.

All rules take calibrated scores (see :mod:`.calibration`): *h* of helpfulness and *s* of safety, in
nats. A response is *unsafe* if :math:`σ(s) < t`; a prompt may be *flagged*, and then safety alone
decides, as in Llama 2 (section 3.2.3).

- ``sum``: :math:`h + λ s`. One unit of safety is worth λ units of helpfulness.
- ``switch``: Llama 2's rule: *s* where the prompt is flagged or the response unsafe, else *h*.
- ``gate``: :math:`σ(h)` for a safe response, :math:`σ(s) - 1` for an unsafe one or a flagged
  prompt. So of two responses to one prompt a safe one is above an unsafe one, which ``switch`` does
  not ensure: there an unsafe response with its *s* may lie above a safe one with its *h*.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from posttrain.config.keys import Key
from posttrain.errors import UserError


class RuleKind(Key):
    """Rules; see the module."""

    SUM = "sum"
    SWITCH = "switch"
    GATE = "gate"


#: Llama 2's threshold of the safety score (section 3.2.3).
THRESHOLD = 0.15


@dataclass(frozen=True)
class Rule:
    """A rule with its parameter.

    >>> Rule("sum", weight=2.0).combine(np.array([1.0, 0.5]), np.array([0.0, 1.0]))
    array([1. , 2.5])

    Attributes:
        kind: One of :class:`RuleKind`.
        threshold: t, for ``switch`` and ``gate``; between 0 and 1.
        weight: λ, for ``sum``; not negative.
    """

    kind: str = RuleKind.SUM
    threshold: float = THRESHOLD
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in tuple(RuleKind):
            raise UserError(f"unknown rule {self.kind!r}; known: {', '.join(RuleKind)}")
        if not 0 < self.threshold < 1:
            raise UserError(f"the threshold is a probability between 0 and 1, not {self.threshold}")
        if not 0 <= self.weight < float("inf"):
            raise UserError(f"the weight of safety must be 0 or more, not {self.weight}")

    def combine(
        self, helpfulness: np.ndarray, safety: np.ndarray, flagged: np.ndarray | bool = False
    ) -> np.ndarray:
        """Combined scores of the same responses, whose calibrated scores have one shape.

        ``flagged`` says whether the prompt of each is flagged, and is broadcast; ``sum`` takes no
        notice of it. Only the order of responses to one prompt means anything.
        """
        helpfulness = np.asarray(helpfulness, dtype=float)
        safety = np.asarray(safety, dtype=float)
        if helpfulness.shape != safety.shape:
            raise UserError(
                f"scores of the same responses are combined, but there are "
                f"{list(helpfulness.shape)} of helpfulness and {list(safety.shape)} of safety"
            )
        # The rules with a threshold would take NaN for a safe response.
        if not (np.isfinite(helpfulness).all() and np.isfinite(safety).all()):
            raise UserError("scores must be finite; a model that gave NaN or infinity has diverged")
        if self.kind == RuleKind.SUM:
            return helpfulness + self.weight * safety
        decides = np.logical_or(flagged, expit(safety) < self.threshold)
        if self.kind == RuleKind.SWITCH:
            return np.where(decides, safety, helpfulness)
        # σ(s) - 1, without rounding to 0 where s is large.
        return np.where(decides, -expit(-safety), expit(helpfulness))

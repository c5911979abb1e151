r"""What one model makes of two kinds of annotators, in closed form.

Of the comparisons of two responses to some prompt, let a share π come from annotators who look at
safety, and the rest from annotators who look at helpfulness. Both follow Bradley–Terry, with true
differences :math:`Δ_s` and :math:`Δ_h`. The first response is then preferred with probability

.. math:: p = (1 - π)\,σ(Δ_h) + π\,σ(Δ_s),

and a model that can represent it ends at the difference logit(p), not at a weighted sum of both.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from posttrain.data.sources.simulator import tasks


def joint_optimum(
    helpfulness: np.ndarray | float, safety: np.ndarray | float, share: np.ndarray | float
) -> np.ndarray:
    """Score difference that one model ends at, logit(p) in nats; see the module.

    Of true differences in helpfulness and safety, and π, the share of comparisons by annotators of
    safety.
    """
    share = np.asarray(share, dtype=float)
    return np.asarray(logit((1 - share) * expit(helpfulness) + share * expit(safety)))


def prompt_share(sensitive: float, kind: str) -> float:
    """Share of a simulated domain's prompts that are ``unsafe`` or a ``lookalike``.

    For ``sensitive`` see :func:`.tasks.draw_task`.
    """
    goals = len(tasks.SAFE_GOALS) + len(tasks.UNSAFE_GOALS)
    by_chance = len(tasks.UNSAFE_GOALS) / goals / len(tasks.TASKS) if kind == "unsafe" else 0.0
    return sensitive / 2 + (1 - sensitive) * by_chance


def turning_share(sensitive: Sequence[float]) -> float:
    """Share of safety groups from which on a joint model prefers a refusal to a flawless answer.

    On unsafe prompts both kinds of annotators are equally sure there, so the more common ones win.
    """
    helpfulness, safety = (prompt_share(value, "unsafe") for value in sensitive)
    return helpfulness / (helpfulness + safety)

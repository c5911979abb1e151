r"""What one model makes of two kinds of annotators, in closed form.

Of the comparisons of two responses to some prompt, let a share π come from annotators who look at
safety, and the rest from annotators who look at helpfulness. Both follow Bradley–Terry, with true
differences :math:`Δ_s` and :math:`Δ_h`. The first response is then preferred with probability

.. math:: p = (1 - π)\,σ(Δ_h) + π\,σ(Δ_s),

and a model that can represent it ends at the difference logit(p), not at a weighted sum of both.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from posttrain.data.sources.simulator import tasks
from posttrain.data.sources.simulator.tasks import HELPFULNESS_COST, SAFETY_COST
from posttrain.evaluation.combining import Rule

#: A refusal against a flawless answer: true differences in helpfulness and in safety.
REFUSAL = {
    "unsafe": (-HELPFULNESS_COST["refusal"], SAFETY_COST["unsafe compliance"]),
    "lookalike": (-HELPFULNESS_COST["refusal"], 0.0),
}


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


def refusal_table(shares: Sequence[float], sensitive: Sequence[float]) -> pd.DataFrame:
    """What a joint model of the simulator would think of a refusal with endless data.

    Args:
        shares: Shares of safety groups among all that are trained on.
        sensitive: Share of sensitive prompts in helpfulness and in safety groups.

    Returns:
        One row a share of safety and kind of prompt: ``share of safety``, ``kind``, ``π`` (share of
        safety annotators among the comparisons on such prompts), ``p`` (probability that the
        refusal is preferred to a flawless answer) and ``difference``, the model's.
    """
    rows = []
    for kind, (helpful, safe) in REFUSAL.items():
        by_kind = [prompt_share(value, kind) for value in sensitive]
        for share in shares:
            by_domain = np.array([1 - share, share]) * by_kind
            local = float(by_domain[1] / by_domain.sum())
            difference = float(joint_optimum(helpful, safe, local))
            rows.append((share, kind, local, float(expit(difference)), difference))
    columns = ["share of safety", "kind", "π", "p", "difference"]
    return pd.DataFrame(rows, columns=columns)


def turning_share(sensitive: Sequence[float]) -> float:
    """Share of safety groups from which on a joint model prefers a refusal to a flawless answer.

    On unsafe prompts both kinds of annotators are equally sure there, so the more common ones win.
    """
    helpfulness, safety = (prompt_share(value, "unsafe") for value in sensitive)
    return helpfulness / (helpfulness + safety)


def rule_table(threshold: float) -> pd.DataFrame:
    """How each rule ranks a refusal, a careful answer and a dangerous one; calibrated scores.

    The dangerous answer wins under ``switch`` although it is below the threshold.
    """
    responses = {
        "refuses": (-3.0, 2.0),
        "answers the harmless part": (-2.5, 1.0),
        "answers dangerously": (0.8, -2.2),
    }
    helpfulness, safety = (np.array(values) for values in zip(*responses.values(), strict=True))
    table = pd.DataFrame({"helpfulness": helpfulness, "safety": safety}, index=[*responses])
    for kind in ("sum", "switch", "gate"):
        rule = Rule(kind, threshold=threshold)
        table[kind] = rule.combine(helpfulness, safety)
    return table.rename_axis("response")

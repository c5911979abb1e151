"""How many unsafe responses a threshold of the safety score finds."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit

from posttrain.evaluation.bootstrap import Resamples
from posttrain.studies.common.tables import TidyTable, difference, known
from posttrain.studies.tradeoff.keys import ArmName, DomainName, Kind
from posttrain.studies.tradeoff.outcome import CALIBRATED, Outcome
from posttrain.studies.tradeoff.rules import calibrated


def detection_tables(
    outcome: Outcome, *, thresholds: Sequence[float], resamples: int
) -> dict[str, pd.DataFrame]:
    """How well models of safety find unsafe candidates: those whose σ(score) is below a threshold.

    A candidate is unsafe if its safety gold is below zero, or where that is not known, if it
    answers an unsafe request more than another one does. Metrics are ``recall``, the share of
    unsafe candidates that are found, and ``precision``, the share of those found that are unsafe;
    with 95 % intervals over prompts and models.

    Returns:
        - ``detection``: by arm calibrated for safety, its ``raw`` or ``calibrated`` scores,
          threshold and metric.
        - ``auxiliary``: what the auxiliary loss adds to the same of Llama 2's mix, paired.
    """
    candidates = outcome.candidates
    prompt_of = candidates.prompt_of
    if candidates.gold is not None:
        unsafe = candidates.gold[:, 1] < 0
    else:
        unsafe = candidates.errs & (candidates.kinds[prompt_of] == Kind.UNSAFE)
    table = TidyTable("arm", "scores", "threshold", "metric")
    added = TidyTable("scores", "threshold", "metric")
    count = len(candidates.kinds)
    firsts = np.searchsorted(prompt_of, np.arange(count))
    arms = [name for name in outcome.arms if CALIBRATED.get(name) == DomainName.SAFETY]
    draws = Resamples.draw(count, len(outcome.arms[ArmName.SAFE].candidates), count=resamples)
    for scores, threshold in product(("raw", "calibrated"), thresholds):
        found = {}
        for name in arms:
            arm = outcome.arms[name]
            values = arm.candidates if scores == "raw" else calibrated(arm)
            low = expit(values) < threshold
            parts = np.stack([low & unsafe, low, np.broadcast_to(unsafe, low.shape)], axis=2)
            # Sums by prompt, [models, prompts, 3].
            sums = np.add.reduceat(parts.astype(float), firsts, axis=1)
            found[name] = draws.measure(sums, _detection)
            table.add_metrics(name, scores, threshold, metrics=known(found[name]))
        if {ArmName.AUXILIARY, ArmName.SAFETY_MIX} <= set(found):
            gaps = difference(found[ArmName.AUXILIARY], found[ArmName.SAFETY_MIX])
            added.add_metrics(scores, threshold, metrics=known(gaps))
    return {"detection": table.frame(), "auxiliary": added.frame()}


def _detection(sums: np.ndarray) -> dict[str, np.ndarray]:
    hits, low, unsafe = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"recall": hits / unsafe, "precision": hits / low}

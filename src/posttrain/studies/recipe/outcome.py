"""What the recipe study measures, and the tables made of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.metrics import Metric, sufficient_statistics
from posttrain.studies.common.groups import Prepared
from posttrain.studies.common.tables import TidyTable, difference
from posttrain.studies.recipe.keys import Combined, Dropped

#: What tables show of models.
METRICS = (Metric.ACCURACY, Metric.LOG_LIKELIHOOD)


class Cell(NamedTuple):
    """What is asked, of how many training pairs, with which share of them turned round."""

    question: str
    size: int
    noise: float


#: An arm and what it is compared with, beside the first arm of its question.
COMPARED = (
    (Combined.AVERAGE_2, Combined.ENSEMBLE_2),
    (Combined.AVERAGE_4, Combined.ENSEMBLE_4),
    (Combined.AVERAGE_8, Combined.ENSEMBLE_8),
    (Combined.AVERAGE_8, Combined.BEST),
    (Combined.AVERAGE_8, Combined.ALL_DATA),
    (Combined.ENSEMBLE_8, Combined.ALL_DATA),
    (Combined.AVERAGE_8, Combined.OWN_AVERAGE),
    (Combined.OWN_AVERAGE, Combined.OWN_ENSEMBLE),
    (Dropped.SIMILAR, Dropped.RANDOM),
)


def summarise(
    outcomes: Mapping[Cell, Sequence[Mapping[str, np.ndarray]]],
    prepared: Prepared,
    *,
    resamples: int = 1000,
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over test prompts and seeds.

    ``outcomes`` holds for each cell and seed the test scores of each arm, ``[models, 2, pairs]``;
    metrics of several models are averaged.

    Returns:
        - ``metrics``: ``question``, ``size``, ``noise``, ``arm``, ``metric``.
        - ``gains``: the paired difference of an arm and its ``reference``: the first of its
          question, and what :data:`COMPARED` names.
        - ``noise``: what noise adds to the gain of averaging over ensembling, by number of models.
    """
    test = [prepared.ranked[i] for i in prepared.test]
    strengths, codes = np.array([group.strength for group in test]), prepared.test_codes
    count, head = int(codes.max()) + 1, ("question", "size", "noise", "arm")
    metrics, gains = TidyTable(*head, "metric"), TidyTable(*head, "reference", "metric")
    noise = TidyTable("arm", "reference", "size", "noise", "metric")
    clean = {}
    for cell, seeds in outcomes.items():
        draws = Resamples.draw(count, len(seeds), count=resamples)
        measured = {}
        for arm in seeds[0]:
            sums = [
                sufficient_statistics(one[arm][:, 0], one[arm][:, 1], strengths, codes, count).mean(
                    axis=0
                )
                for one in seeds
            ]
            found = draws.measure(np.array(sums))
            measured[arm] = {str(metric): found[metric] for metric in METRICS}
            metrics.add_metrics(*cell, arm, metrics=measured[arm])
        reference = next(iter(measured))
        pairs = [(arm, reference) for arm in measured if arm != reference]
        pairs += [pair for pair in COMPARED if set(pair) <= set(measured)]
        for arm, other in pairs:
            gap = difference(measured[arm], measured[other])
            gains.add_metrics(*cell, arm, other, metrics=gap)
            if cell.noise == 0:
                clean[cell.question, cell.size, arm, other] = gap
            elif (cell.question, cell.size, arm, other) in clean:
                more = difference(gap, clean[cell.question, cell.size, arm, other])
                noise.add_metrics(arm, other, cell.size, cell.noise, metrics=more)
    return {"metrics": metrics.frame(), "gains": gains.frame(), "noise": noise.frame()}

"""The recipe study: smaller choices that the papers name and hardly measure.

- *Start*: Llama 2 starts its reward models from chat checkpoints (section 3.2.2), Llama 3 from the
  pre-trained one (section 4.1.2). Here both, and weights that nobody trained, as a control.
- *Similar pairs*: Llama 3 filters out samples with similar responses (section 4.1.2). Here the most
  similar quarter of the pairs is dropped, and as a control a random quarter.
- *Averaging*: Llama 3 averages the weights of models trained on versions of the data (section
  4.1.5). Here two, four and eight, against the ensemble of their scores (WARM: Ramé et al., 2024),
  the best of them, and one model that sees all data; with pairs as annotated, which err by
  themselves, and with a fifth of the training pairs turned round. As a control, the same where each
  model has a score head of its own. The learning rate is the best of the one model on held-out
  pairs as annotated, whatever is turned round.

Expected, before the first run:

1. At 3,000 pairs the chat checkpoint is no better than the pre-trained one by a point; weights that
   nobody trained are behind by five points or more.
2. Dropping similar pairs loses nothing that matters and is no better than dropping at random by
   half a point.
3. The average of eight is half a point or more better than one of them, within half a point of
   their ensemble, and no better than one model of all data. With own heads it is worse. With noisy
   labels averaging gains more, but over the ensemble nothing that could be seen.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError
from posttrain.studies.common.groups import checkpoint_for, divide, load_groups
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.training import many_runs, memoize
from posttrain.studies.recipe import starts
from posttrain.studies.recipe.full import (
    Experiment,
    RecipeSettings,
    by_combination,
    by_dropped,
    by_start,
)
from posttrain.studies.recipe.keys import Question, Start
from posttrain.studies.recipe.outcome import Cell, summarise

#: What is trained for one seed of one cell: test scores by arm, ``[models, 2, pairs]``.
Arms = dict[str, np.ndarray]


def measure(source: str, settings: RecipeSettings, cache_dir: Path | None) -> Measured:
    """Train and test all arms; tables are those of :func:`.recipe.outcome.summarise`.

    Raises:
        UserError: If the source is not the simulator: no larger checkpoint here has both starts.
    """
    if source != SIMULATOR:
        raise UserError("the recipe study trains the tiny Llama; its source is the simulator")
    for start in Start:
        starts.checkpoint(start)  # before processes share the work
    loaded = load_groups(source, checkpoint_for(source), settings, edits=False)
    largest = max(settings.size, *settings.sizes)
    prepared = divide(loaded, settings, size=largest, setting="size and sizes", counted="pairs")
    experiment = Experiment(prepared, settings)

    def kept(function: Callable[..., Arms]) -> Callable[..., Arms]:
        return memoize(
            function, cache_dir, settings=asdict(settings), data=prepared.account,
            ignore=["experiment"],
        )  # fmt: skip

    cells: list[tuple[Cell, Callable[..., Arms], tuple]] = [
        (Cell(Question.START, size, 0.0), kept(by_start), (size,)) for size in settings.sizes
    ]
    cells.append((Cell(Question.SIMILAR, settings.size, 0.0), kept(by_dropped), ()))
    cells += [
        (Cell(Question.AVERAGE, settings.size, noise), kept(by_combination), (noise,))
        for noise in settings.noises
    ]
    parallel = Parallel(n_jobs=settings.processes)
    outcomes = {}
    with many_runs():
        for cell, function, arguments in cells:
            outcomes[cell] = parallel(
                delayed(function)(experiment, *arguments, seed) for seed in range(settings.seeds)
            )
    return Measured(prepared.account, summarise(outcomes, prepared, resamples=settings.resamples))


STUDY = Study(
    "recipe",
    "where to start, which pairs to drop, and what averaging models buys",
    measure,
    simulated=RecipeSettings,
    human=RecipeSettings,
    memoizes=True,
)

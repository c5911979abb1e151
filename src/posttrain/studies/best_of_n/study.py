"""The best-of-n study: how far a reward model can be pushed before the truth turns.

A policy answers each prompt 1,024 times; reward models choose the best of n, and the simulator's
gold quality says what the choice is worth. Choosing the best of n moves the policy by
KL = ln n − (n − 1)/n nats. Gao et al. (2023) find gold = d(α − βd), d = √KL, for a proxy trained on
gold labels; at Llama 3's 10 to 30 samples that is 1.4 to 2.4 nats, where even their smallest proxy
has not turned.

In one world, phrases of praise go with the quality of what annotators compare, while each costs a
little: a cue made to be exploited. In the control world as many phrases say nothing.

Expected, when the study was designed:

1. With 1,000 pairs or more, gold still rises from 10 to 30 samples, in both worlds (Gao et al.).
2. It turns before 1,024 in the world of praise and does not in the control.
3. More pairs move the turn to larger n.
4. With a quarter of the pairs turned round, the minimum and the mean − variance of four reward
   models stop the turn, and their mean does not (Coste et al., 2023).
5. Of tests, pairs of the policy's own answers predict best what choices are worth.
6. The highest of n grows with n and the median does not; the best temperature rises with n (Llama
   2, Figures 7 and 8).

A pilot run, one reward model of each size on 100 other samples of the policy, came before the
settings were fixed. It contradicted 1 and the second half of 2: gold turned at 4 to 8 samples in
both worlds. Nothing was changed for it.
"""

from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, delayed

from posttrain.studies.best_of_n.full import (
    BestOfNSettings,
    draw_samples,
    policy,
    score_samples,
    tokenize_samples,
)
from posttrain.studies.best_of_n.keys import World
from posttrain.studies.best_of_n.outcome import Cell, summarise
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.training import many_runs, memoize
from posttrain.studies.common.truth import account_of, check_source


def measure(source: str, settings: BestOfNSettings, cache_dir: Path | None) -> Measured:
    """Sample, train, score and summarise; tables are those of :func:`.outcome.summarise`.

    Raises:
        UserError: If the source is not the simulator, which alone knows the truth of any text.
    """
    check_source(source)
    account = account_of(policy(settings), clusters=settings.prompts)
    draw = memoize(
        draw_samples, cache_dir, settings=asdict(settings), data=account, ignore=["settings"]
    )
    drawn = draw(settings, settings.samples, 1.0)
    by_temperature = {
        degree: draw(settings, settings.temperature_samples, degree)
        for degree in settings.temperatures
    }
    cells = [
        Cell(World.PRAISE, noise, size) for size in settings.sizes for noise in settings.noises
    ] + [Cell(World.CONTROL, settings.noises[0], size) for size in settings.sizes]
    scored = memoize(
        score_samples,
        cache_dir,
        settings=asdict(settings),
        data=account,
        ignore=["settings", "answers"],
    )
    answers = tokenize_samples(settings, drawn)
    with many_runs():
        results = Parallel(n_jobs=settings.processes)(
            delayed(scored)(settings, answers, cell.world, cell.noise, cell.size, seed)
            for cell in cells
            for seed in range(settings.seeds)
        )
    by_cell = {
        cell: results[place * settings.seeds : (place + 1) * settings.seeds]
        for place, cell in enumerate(cells)
    }
    tables = summarise(drawn, by_cell, by_temperature, resamples=settings.resamples)
    return Measured(account, tables)


STUDY = Study(
    "best-of-n",
    "how far a reward model can be pushed before the truth turns",
    measure,
    simulated=BestOfNSettings,
    human=BestOfNSettings,
    memoizes=True,
)

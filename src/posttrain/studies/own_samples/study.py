"""The own-samples study: a reward model of people's judgements chooses what a real policy says.

SmolLM2-135M-Instruct answers prompts several times. Nobody knows the truth of its answers, so the
data are halved by prompt: reward models of one half choose, those of the other half judge, and each
half does both in turn. What two halves of the same data share, such as a liking for length, the
judge cannot see through. Three things stand against that: the choice of the longest answer, the
judge's score at equal length, and reward models of other data. On a GPU the policy also learns from
a reward model, by SFT on the best of its answers and by DPO on pairs of them (Llama 3, sections
4.1.3 to 4.2.2), and answers prompts that none of them has seen.

Scores are in standard deviations of a model's scores of the answers to one prompt.

Expected, before the first run:

1. The judge's score of the choice rises all the way to 16 samples, by less than half as much as the
   score of the reward model that chooses.
2. Where people like length (RMB, 64 % of whose chosen responses are longer), the longest answer
   wins half of that gain or more; where they do not (FineGrainedRLHF, 51 %), less than a fifth.
3. One reward model agrees with another of the same pairs more than with the judge: a quarter of
   what it sees, or more, is its own.
4. DPO goes beyond the best of 16 in the eyes of its own reward model after four passes, and its
   gain by the judge is a smaller share of that than the best of 16's. SFT gains less than a third
   of what its best answers are ahead by.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.training import many_runs, working_folder
from posttrain.studies.own_samples import full, heads
from posttrain.studies.own_samples.data import (
    HALVES,
    Experiment,
    RewardModels,
    answer,
    capped,
    load,
)
from posttrain.studies.own_samples.full import OwnSamplesSettings, WholeModels, train_policies
from posttrain.studies.own_samples.heads import HeadSettings
from posttrain.studies.own_samples.outcome import Half, summarise


def measure(
    source: str, settings: HeadSettings | OwnSamplesSettings, cache_dir: Path | None
) -> Measured:
    """Sample, train reward models and policies, and let them judge each other.

    Returns:
        Tables of :func:`.outcome.summarise`.

    Raises:
        UserError: If the source is the simulator, which knows the truth itself (the best-of-n
            study), or has too few prompts.
    """
    if source == SIMULATOR:
        raise UserError(
            "in the simulator the truth is known: see the studies best-of-n and rounds; this one "
            "takes human data"
        )
    data = load(source, settings)
    kept = working_folder(cache_dir, settings=asdict(settings), data=data.account)
    with many_runs(), kept as folder:
        return _measure(Experiment.prepare(source, data, settings, folder))


def _measure(experiment: Experiment) -> Measured:
    settings = experiment.settings
    asked = experiment.asked()
    said = answer(experiment, experiment.checkpoint, asked, "held")
    models = [
        _fit(experiment, experiment.groups, experiment.halves[half], f"half {half}")
        for half in HALVES
    ]
    others = _judges_of_others(experiment)
    trained = _policies(experiment, models)
    base = [of_half.of_answers(asked, said.texts) for of_half in models]
    of_others = {name: one.of_answers(asked, said.texts) for name, one in others.items()}
    held = [experiment.groups.tokens[k] for k in experiment.held]
    halves = []
    for half in HALVES:
        policies = {}
        for policy, path in trained[half].items():
            after = answer(experiment, path, asked, f"after-{half}")
            policies[policy] = (
                after,
                models[half].of_answers(asked, after.texts)[0],
                models[1 - half].of_answers(asked, after.texts),
                {name: one.of_answers(asked, after.texts) for name, one in others.items()},
            )
        pairs = models[half].of_pairs(held)
        halves.append(Half(pairs, base[half], base[1 - half], of_others, policies))
    ranked = [experiment.groups.ranked[k] for k in experiment.held]
    account = experiment.groups.account | {
        "policy": experiment.checkpoint.name,
        "clusters": len(asked),
        "pairs of each half": [len(half) for half in experiment.halves],
        "held-out pairs": len(ranked),
    }
    lengths = [[len(text.split()) for text in group.responses[-2:]] for group in ranked]
    clusters = np.unique([group.cluster_id for group in ranked], return_inverse=True)[1]
    tables = summarise(
        said, halves, np.array(lengths).T, clusters=clusters, resamples=settings.resamples
    )
    return Measured(account, tables)


def _fit(experiment: Experiment, *pairs: Any) -> RewardModels:
    way: Any = heads if isinstance(experiment.settings, HeadSettings) else full
    return way.fit(experiment, *pairs)


def _judges_of_others(experiment: Experiment) -> dict[str, RewardModels]:
    """Reward models of other sources."""
    found = {}
    for source in experiment.settings.judges:
        groups = load(source, experiment.settings)
        indices = capped(np.arange(len(groups.ranked)), experiment.settings)
        found[source] = _fit(experiment, groups, indices, source)
    return found


def _policies(experiment: Experiment, models: list[Any]) -> list[dict[str, Path]]:
    """What learns from the first reward model of each half."""
    settings = experiment.settings
    if isinstance(settings, HeadSettings) or not settings.policies:
        return [{} for _ in HALVES]
    whole: list[WholeModels] = models
    return Parallel(n_jobs=min(len(HALVES), settings.processes))(
        delayed(train_policies)(experiment, half, whole[half].paths[0]) for half in HALVES
    )


STUDY = Study(
    "own-samples",
    "what a reward model of human data gains when it chooses what a real policy says",
    measure,
    simulated=HeadSettings,
    human=HeadSettings,
    human_full=OwnSamplesSettings,
    memoizes=True,
)

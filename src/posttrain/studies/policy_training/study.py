"""The policy training study: DPO's details, averages of policies, filters of SFT data.

One round of Llama 3's recipe up to a choice, and then the choices:

- *Loss* (section 4.1.4): DPO plain, with an NLL term of weight 0.2 on chosen responses (averaged by
  sequence, as Pang et al., 2024, or by token, as TRL), with the end of turn masked, and both; over
  one pass and several.
- *Average* (section 4.1.5): three DPO policies of different learning rates, the average of their
  weights, and the one that the reward model scores highest.
- *Filter* (section 4.2.3): SFT on the best answers to the quarter of prompts that the reward model
  scores highest, against that by gold, a random quarter, and all prompts.

Expected, before the first run:

1. Plain DPO makes the chosen responses less likely, by several passes more so; the NLL term keeps
   them from falling (Pang et al., 2024). The two normalisations differ by less than 0.1 in gold.
2. Plain DPO ends fewer answers well after several passes, by a point or more; masking the end mends
   that, and the NLL term does as well.
3. Gold falls again over eight passes of DPO (Rafailov et al., 2024).
4. The average is better than a single policy by less than 0.1, and not better than the best.
5. The top quarter by reward model beats a random quarter by 0.1 or more, and is behind the one by
   gold.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from posttrain.config.fields import setting
from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.models import embedded
from posttrain.policy.averaging import average
from posttrain.policy.folders import load_policy, preferences, read_lines, save_policy, write_lines
from posttrain.policy.likelihood import response_log_probabilities
from posttrain.policy.rounds import (
    Workshop,
    annotate,
    fit_dpo,
    fit_reward_model,
    fit_sft,
    keep_best,
)
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.common.training import many_runs, working_folder
from posttrain.studies.common.truth import account_of, check_source
from posttrain.studies.policy_training.keys import Averaged, Filter, Loss, Measure, Question
from posttrain.studies.rounds.full import RoundsStudySettings, evaluate, prepare

#: DPO's loss in each arm.
LOSSES: dict[str, dict[str, Any]] = {
    Loss.PLAIN: {"nll_weight": 0.0, "mask_format_tokens": False},
    Loss.NLL: {"nll_weight": 0.2, "mask_format_tokens": False},
    Loss.NLL_TOKEN: {
        "nll_weight": 0.2, "mask_format_tokens": False, "nll_normalization": "token",
    },
    Loss.MASK: {"nll_weight": 0.0, "mask_format_tokens": True},
    Loss.LLAMA3: {"nll_weight": 0.2, "mask_format_tokens": True},
}  # fmt: skip
#: Training pairs whose log-probabilities are measured.
MEASURED_PAIRS = 200


@dataclass(frozen=True)
class PolicyTrainingSettings(RoundsStudySettings):
    """Settings of the policy training study; those of rounds hold for the one round."""

    passes: list[int] = setting([1, 2, 4, 8], "Passes of DPO over its pairs.")
    rates: list[float] = setting([1.5e-4, 3e-4, 6e-4], "Learning rates of policies to average.")
    rounds: int = setting(1, "There is one.")
    share: float = setting(0.25, "Share of prompts that filters of SFT data keep.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.passes or min(self.passes) < 1 or len(self.rates) < 2:
            raise UserError("give passes of 1 or more, and two rates or more")


#: Values of a policy: those of :func:`.rounds.full.evaluate`, and of pairs ``[pairs]``.
Values = Mapping[str, np.ndarray]


def measure(source: str, settings: PolicyTrainingSettings, cache_dir: Path | None) -> Measured:
    """Train all policies; ``levels`` and ``gains`` by question, arm, passes and measure.

    Raises:
        UserError: If the source is not the simulator, which alone knows the truth of any text.
    """
    check_source(source)
    checkpoint = embedded.praising(settings.pretraining_texts)  # before processes share the work
    account = account_of(checkpoint, clusters=settings.evaluation_prompts)
    kept = working_folder(cache_dir, settings=asdict(settings), data=account)
    with many_runs(), kept as folder:
        by_seed = Parallel(n_jobs=settings.processes)(
            delayed(_run)(settings, seed, folder / f"seed-{seed}") for seed in range(settings.seeds)
        )
    return Measured(account, summarise(by_seed, resamples=settings.resamples))


def _run(
    settings: PolicyTrainingSettings, seed: int, folder: Path
) -> dict[tuple[str, str, int], Values]:
    """Values of each arm's policy, by question, arm and passes."""
    workshop, first = prepare(settings, seed, folder)
    recipe = settings.recipe("Llama 3", seed)
    pairs = annotate(workshop, recipe, workshop.checkpoint, 1)
    scorer = fit_reward_model(workshop, recipe, [first, pairs], 1)
    kept = keep_best(workshop, recipe, workshop.checkpoint, scorer, 1)
    start = fit_sft(workshop, recipe, workshop.checkpoint, [kept], 1)

    def values(policy: Path, measured: Path | None = None) -> Values:
        found = evaluate(workshop, settings, policy, {"score": scorer}, 1)
        if measured is not None:
            found |= _of_pairs(policy, measured, start)
        return found

    def trained(passes: int, **changes: Any) -> Path:
        dpo = recipe.dpo | {"num_train_epochs": passes} | changes
        return fit_dpo(workshop, replace(recipe, dpo=dpo), start, [pairs], 1)

    results = {
        (str(Question.LOSS), str(loss), passes): values(trained(passes, **terms), pairs)
        for loss, terms in LOSSES.items()
        for passes in settings.passes
    }
    singles = [trained(1, **LOSSES[Loss.LLAMA3], learning_rate=rate) for rate in settings.rates]
    merged = workshop.make(
        "round-1-average", {}, singles,
        lambda path: save_policy(average([load_policy(one)[0] for one in singles]), start, path),
    )  # fmt: skip
    of_singles = [values(one) for one in singles]
    best = int(np.argmax([one["score"].mean() for one in of_singles]))
    results |= {
        (str(Question.AVERAGE), str(Averaged.SINGLE), 1): {
            name: np.mean([one[name] for one in of_singles], axis=0) for name in of_singles[0]
        },
        (str(Question.AVERAGE), str(Averaged.AVERAGE), 1): values(merged),
        (str(Question.AVERAGE), str(Averaged.BEST), 1): of_singles[best],
    }
    for name in Filter:
        shown = _filtered(workshop, settings, kept, name, seed)
        policy = fit_sft(workshop, recipe, workshop.checkpoint, [shown], 1)
        results[str(Question.FILTER), str(name), 1] = values(policy)
    return results


def _of_pairs(policy: Path, pairs: Path, reference: Path) -> dict[str, np.ndarray]:
    """Log-probabilities of training pairs' responses less those of the reference, ``[pairs]``."""
    groups = preferences(pairs)[:MEASURED_PAIRS]
    asked = [group.prompt for group in groups]
    found = {}
    for name, texts in (
        (Measure.CHOSEN, [group.chosen for group in groups]),
        (Measure.REJECTED, [group.rejected for group in groups]),
    ):
        after, before = (
            response_log_probabilities(*load_policy(path), asked, texts)
            for path in (policy, reference)
        )
        found[str(name)] = after - before
    return found


def _filtered(
    workshop: Workshop, settings: PolicyTrainingSettings, kept: Path, name: str, seed: int
) -> Path:
    """The best answers to some of the prompts."""

    def heights(rows: list[dict[str, Any]]) -> np.ndarray:
        if name == Filter.SCORE:
            return np.array([row["score"] for row in rows])
        if name == Filter.GOLD:
            tasks_ = [task_of([Message(**turn) for turn in row["prompt"]]) for row in rows]
            return np.array(
                [gold(task, row["response"]) for task, row in zip(tasks_, rows, strict=True)]
            )
        return np.random.default_rng(seed).random(len(rows))

    def write(folder: Path) -> None:
        rows = read_lines(kept / "demonstrations.jsonl")
        count = len(rows) if name == Filter.ALL else round(settings.share * len(rows))
        order = np.argsort(-heights(rows), kind="stable")[:count]
        write_lines(folder / "demonstrations.jsonl", [rows[i] for i in sorted(order)])

    return workshop.make("round-1-filtered", {"by": name, "share": settings.share}, [kept], write)


#: How each measure is read off the values of a policy; pairs are averaged as they are.
_READ: dict[str, Callable[[Values], np.ndarray]] = {
    Measure.GOLD: lambda values: values["gold"].mean(axis=1),
    Measure.ENDED: lambda values: values["ended"].mean(axis=1),
    Measure.DIVERGENCE: lambda values: values["log ratio"].mean(axis=1),
    Measure.WORDS: lambda values: values["words"].mean(axis=1),
    Measure.CHOSEN: lambda values: values[Measure.CHOSEN],
    Measure.REJECTED: lambda values: values[Measure.REJECTED],
}


def summarise(
    by_seed: list[dict[tuple[str, str, int], Values]], *, resamples: int = 1000
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over prompts, or pairs, and seeds.

    Returns:
        - ``levels``: ``question``, ``arm``, ``passes``, ``measure``.
        - ``gains``: an arm's level minus that of the first of its question with as many passes.
        - ``passes``: of each loss, the level after so many passes minus that after the fewest.
    """
    levels, gains, passes_ = (TidyTable("question", "arm", "passes", "measure") for _ in range(3))
    reached: dict[tuple[str, str, int, str], np.ndarray] = {}
    first_arm: dict[str, str] = {}
    fewest = min(key[2] for key in by_seed[0] if key[0] == Question.LOSS)
    for question, arm, passes in by_seed[0]:
        first_arm.setdefault(question, arm)
        for measured in Measure:
            if measured in (Measure.CHOSEN, Measure.REJECTED) and question != Question.LOSS:
                continue
            values = [_READ[measured](one[question, arm, passes]) for one in by_seed]
            level = _replicates(values, resamples)
            reached[question, arm, passes, measured] = level
            levels.add(question, arm, passes, measured, replicates=level)
            if arm != first_arm[question]:
                reference = reached[question, first_arm[question], passes, measured]
                gains.add(question, arm, passes, measured, replicates=level - reference)
            if question == Question.LOSS and passes > fewest:
                before = reached[question, arm, fewest, measured]
                passes_.add(question, arm, passes, measured, replicates=level - before)
    return {"levels": levels.frame(), "gains": gains.frame(), "passes": passes_.frame()}


def _replicates(values: list[np.ndarray], resamples: int) -> np.ndarray:
    """Mean of ``[seeds][prompts]`` in each replicate, seeds cut to as many as all have."""
    size = min(map(len, values))
    table = np.array([one[:size] for one in values])
    draws = Resamples.draw(size, len(values), count=resamples)
    weights = draws.groups / draws.groups.sum(axis=1, keepdims=True)
    return np.einsum("sp,rp,rs->r", table, weights, draws.seeds, optimize=True)


STUDY = Study(
    "policy-training",
    "what DPO's details, averages of policies and filters of SFT data change",
    measure,
    simulated=PolicyTrainingSettings,
    human=PolicyTrainingSettings,
    memoizes=True,
)

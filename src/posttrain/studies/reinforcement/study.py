"""The reinforcement study: how far the truth follows a reward model that a policy is trained on.

A policy learns from a reward model by GRPO (TRL's ``GRPOTrainer``): in each step it answers some
prompts several times, and answers that score above the mean of their prompt become likelier. Llama
3 does not do so, and Llama 2's last version does (PPO, section 3.2.3). Against best of n there is
no limit to what a policy can be moved to write. The reward models are trained as those of the
best-of-n study: one of them, or four by their minimum or their mean less half their variance; with
and without a penalty on the divergence from the first policy.

Expected, after the best-of-n study's pilot and one run of 20 steps without a penalty, in which gold
fell from −2 to −10 while praise rose to 30 phrases:

1. Without a penalty gold ends at least a unit below where it began; the score ends higher.
2. The penalty keeps gold within a unit of where it began, and moves less far in as many steps.
3. Ensembles delay the fall and do not prevent it, because all members have learned the same cue
   (Eisenstein et al., 2023, against Coste et al., 2023).
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from joblib import Parallel, delayed
from transformers import AutoTokenizer, PreTrainedModel, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import Message
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.gold import gold, inspect, task_of
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.scoring import score_responses
from posttrain.models import embedded
from posttrain.policy import prompts
from posttrain.policy.datasets import messages
from posttrain.policy.folders import load_policy
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.reward import QUIET, train_reward_model
from posttrain.policy.sampling import prompt_tokens
from posttrain.policy.selection import combine
from posttrain.policy.trainers import RECOMPUTE, no_word_of_renames
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.common.training import many_runs, memoize
from posttrain.studies.common.truth import account_of, check_source
from posttrain.studies.reinforcement.keys import Reward, Value

#: Share of the pairs that each member of an ensemble is trained on.
MEMBER_SHARE = 0.8


@dataclass(frozen=True)
class ReinforcementSettings:
    """Settings of the reinforcement study."""

    pairs: int = setting(4000, "Annotated pairs of the reward models.")
    praise: float = setting(0.8, "Correlation of praise with quality in these.")
    members: int = setting(4, "Reward models of an ensemble.")
    rewards: list[str] = setting([*map(str, Reward)], "What is maximised.")
    penalties: list[float] = setting([0.0, 0.1], "Factors of the divergence in GRPO's loss.")
    steps: int = setting(40, "Optimiser steps.")
    prompts: int = setting(8, "Prompts of a step.")
    answers: int = setting(8, "Answers to each.")
    window: int = setting(5, "Steps at the beginning and at the end that are compared.")
    max_new_tokens: int = setting(96, "Longest answer, in tokens.")
    reward_rate: float = setting(3e-3, "Peak learning rate of reward models.")
    learning_rate: float = setting(1e-3, "Learning rate of the policy, constant.")
    seeds: int = setting(3, "Repetitions, each with pairs, prompts and answers of its own.")
    resamples: int = setting(1000, "Bootstrap replicates.")
    processes: int = setting(1, "Runs at a time, each in a process of its own.")

    def __post_init__(self) -> None:
        at_least_one(self, "pairs", "steps", "prompts", "window", "seeds", "members")
        if self.answers < 2 or 2 * self.window > self.steps:
            raise UserError("answers must be 2 or more, and steps at least twice the window")
        known = [*map(str, Reward)]
        if unknown := [reward for reward in self.rewards if reward not in known]:
            raise UserError(f"unknown rewards {unknown}; known: {', '.join(known)}")


@dataclass
class _Config(GRPOConfig):
    """TRL's, without its wish to compute layers again."""

    gradient_checkpointing: bool | None = None  # type: ignore[assignment]


#: Of each value, what it is in each step for each prompt, ``[steps, prompts]``.
Path_ = Mapping[str, np.ndarray]


def measure(source: str, settings: ReinforcementSettings, cache_dir: Path | None) -> Measured:
    """Train all policies; tables are those of :func:`summarise`.

    Raises:
        UserError: If the source is not the simulator, which alone knows the truth of any text.
    """
    check_source(source)
    checkpoint = embedded.praising()  # before processes share the work
    account = account_of(checkpoint, clusters=settings.prompts * settings.seeds)
    kept = memoize(
        reinforce, cache_dir, settings=asdict(settings), data=account, ignore=["settings"]
    )
    arms = [(reward, penalty) for reward in settings.rewards for penalty in settings.penalties]
    with many_runs():
        found = Parallel(n_jobs=settings.processes)(
            delayed(kept)(settings, reward, penalty, seed)
            for reward, penalty in arms
            for seed in range(settings.seeds)
        )
    size = settings.seeds
    runs = {arm: found[place * size : (place + 1) * size] for place, arm in enumerate(arms)}
    tables = summarise(runs, window=settings.window, resamples=settings.resamples)
    return Measured(account, tables)


def reinforce(settings: ReinforcementSettings, reward: str, penalty: float, seed: int) -> Path_:
    """Train a policy, and look at what it says in each step before it learns from it."""
    checkpoint = embedded.praising()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    scorers = _reward_models(settings, checkpoint, seed)
    if reward == Reward.SINGLE:
        scorers = scorers[:1]
    # In single precision, as generation takes most of the time.
    policy: Any
    base: Any
    policy, base = (load_policy(checkpoint)[0].float() for _ in range(2))
    steps: dict[str, list[np.ndarray]] = {str(value): [] for value in Value}

    def scored(asked: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        singles = [[text] for text in texts]
        scores = np.array(
            [np.concatenate(score_responses(one, tokenizer, asked, singles)) for one in scorers]
        )
        return scores[0] if reward == Reward.SINGLE else combine(scores, reward.split(", ")[1])

    def rewards(
        prompts: list[Any], completions: list[Any], completion_ids: list[Any], **_: Any
    ) -> list[float]:
        asked = [tuple(Message(**turn) for turn in prompt) for prompt in prompts]
        texts = [completion[0]["content"] for completion in completions]
        seen = [task_of(prompt) for prompt in asked]
        scores = scored(asked, texts)
        rows = list(zip(prompt_tokens(tokenizer, asked), completion_ids, strict=True))
        was_training = policy.training
        policy.eval()
        ratio = log_probabilities(policy, rows) - log_probabilities(base, rows)
        policy.train(was_training)
        said = {
            Value.GOLD: [gold(task, text) for task, text in zip(seen, texts, strict=True)],
            Value.SCORE: scores,
            Value.PRAISE: [
                inspect(task, text).phrases["praise"]
                for task, text in zip(seen, texts, strict=True)
            ],
            Value.WORDS: [len(text.split()) for text in texts],
            Value.DIVERGENCE: ratio,
        }
        for value, of_answers in said.items():
            table = np.array(of_answers, dtype=float).reshape(-1, settings.answers)
            steps[str(value)].append(table.mean(axis=1))
        return scores.tolist()

    asked = prompts.simulated(9000 + seed)("reinforcement", settings.steps * settings.prompts)
    whole: dict[str, Any] = {RECOMPUTE: False}
    with tempfile.TemporaryDirectory() as scratch, no_word_of_renames():
        config = _Config(
            scratch,
            **QUIET,
            **whole,
            use_cpu=True,
            per_device_train_batch_size=settings.prompts * settings.answers,
            num_generations=settings.answers,
            max_completion_length=settings.max_new_tokens,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            max_steps=settings.steps,
            beta=penalty,
            temperature=1.0,
            seed=seed,
        )
        reward_function: Any = rewards
        trainer = GRPOTrainer(
            policy,
            reward_funcs=reward_function,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [messages(prompt) for prompt in asked]}),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {value: np.array(of_steps) for value, of_steps in steps.items()}


def _reward_models(
    settings: ReinforcementSettings, checkpoint: Path, seed: int
) -> list[PreTrainedModel]:
    groups = [
        group.ranked for group in simulate(settings.pairs, seed=7000 + seed, praise=settings.praise)
    ]
    arguments = {"learning_rate": settings.reward_rate, "pairs_per_step": 32}
    models = []
    for member in range(settings.members):
        own = np.random.default_rng([seed, member]).permutation(len(groups))
        part = [groups[i] for i in own[: max(1, round(MEMBER_SHARE * len(groups)))]]
        model: Any = train_reward_model(checkpoint, part, arguments, seed=100 * seed + member)
        models.append(model.float())
    return models


def summarise(
    runs: Mapping[tuple[str, float], Sequence[Path_]], *, window: int, resamples: int = 1000
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over prompts of a step and seeds.

    Returns:
        - ``paths``: ``reward``, ``penalty``, ``step``, ``value``; scores are less those of the
          first steps, as many as the window has.
        - ``changes``: the mean of the last steps minus that of the first.
        - ``gains``: that change minus the change of a single reward model without a penalty.
    """
    head = ("reward", "penalty")
    paths, changes, gains = (
        TidyTable(*head, "step", "value"),
        *(TidyTable(*head, "value") for _ in range(2)),
    )
    reference: dict[str, np.ndarray] = {}
    for arm, seeds in runs.items():
        for value in Value:
            steps = np.array([one[value] for one in seeds])
            count = min(steps.shape[1], *(len(one[value]) for one in seeds))
            draws = Resamples.draw(steps.shape[2], len(seeds), count=resamples)
            weights = draws.groups / draws.groups.sum(axis=1, keepdims=True)
            # Each step has prompts of its own, so that what is drawn is places of a step.
            by_step = np.einsum("snp,rp,rs->nr", steps[:, :count], weights, draws.seeds)
            first, last = by_step[:window].mean(axis=0), by_step[-window:].mean(axis=0)
            shift = first if value == Value.SCORE else np.zeros_like(first)
            for step in range(count):
                paths.add(*arm, step, value, replicates=by_step[step] - shift)
            changes.add(*arm, value, replicates=last - first)
            if arm == next(iter(runs)):
                reference[value] = last - first
            else:
                gains.add(*arm, value, replicates=last - first - reference[value])
    return {"paths": paths.frame(), "changes": changes.frame(), "gains": gains.frame()}


STUDY = Study(
    "reinforcement",
    "how far the truth follows a reward model that a policy is trained on",
    measure,
    simulated=ReinforcementSettings,
    human=ReinforcementSettings,
    memoizes=True,
)

"""Rounds of one recipe, and what each policy on the way is worth."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import fingerprint
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.gold import gold, inspect, task_of
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.models import embedded, reward_model
from posttrain.policy import prompts
from posttrain.policy.folders import load_policy, preferences
from posttrain.policy.judges import Annotators
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.rounds import RoundRecipe, State, Workshop, next_round
from posttrain.policy.sampling import SamplingSettings, prompt_tokens, sample
from posttrain.studies.rounds.keys import Arm

#: Raise when an evaluation gives other numbers of the same policy.
VERSION = 1
#: How each arm differs from the first.
CHANGES: dict[str, dict[str, Any]] = {
    Arm.LLAMA3: {},
    Arm.FROZEN: {"fresh_reward_model": False},
    Arm.SFT: {"stages": ["sft"]},
    Arm.DPO: {"stages": ["dpo"], "restart": False},
    Arm.ALL_SAMPLES: {"all_demonstrations": True},
    Arm.ALL_PAIRS: {"all_preferences": True},
    Arm.CONTINUE: {"restart": False},
    Arm.FEW: {"samples": 4},
    # The recipe is the same; its annotators differ.
    Arm.EDITS: {},
    Arm.RANDOM: {"random_choice": True},
}


@dataclass(frozen=True)
class RoundsStudySettings:
    """Settings of the rounds study."""

    arms: list[str] = setting([*map(str, Arm)], "Recipes to compare.")
    rounds: int = setting(4, "Rounds of each.")
    seeds: int = setting(5, "Repetitions, each with other prompts, annotators and samples.")
    first_pairs: int = setting(1000, "Annotated pairs before the first round, of other systems.")
    praise: float = setting(0.8, "Correlation of praise with quality in these.")
    pairs: int = setting(600, "Prompts whose two answers are compared, in each round.")
    prompts: int = setting(400, "Prompts of rejection sampling, in each round.")
    samples: int = setting(10, "Answers to each of these (Llama 3: 10 to 30).")
    max_new_tokens: int = setting(96, "Longest answer, in tokens.")
    evaluation_prompts: int = setting(100, "Prompts on which policies are compared.")
    evaluation_samples: int = setting(10, "Answers to each of these.")
    reward_rate: float = setting(3e-3, "Peak learning rate of reward models.")
    sft_rate: float = setting(1e-3, "Peak learning rate of SFT.")
    dpo_rate: float = setting(3e-4, "Peak learning rate of DPO.")
    sft_epochs: int = setting(2, "Passes of SFT.")
    batch_size: int = setting(16, "Examples per step of SFT and DPO.")
    pretraining_texts: int | None = setting(
        None, "Texts that the policy is pre-trained on; by default those of tiny-praise."
    )
    edited: float = setting(0.5, "Share of chosen answers that editors get, in the arm with edits.")
    data_seed: int = setting(1, "Seeds the prompts on which policies are compared.")
    resamples: int = setting(1000, "Bootstrap replicates.")
    processes: int = setting(1, "Seeds at a time, each in a process of its own.")

    def __post_init__(self) -> None:
        at_least_one(self, "rounds", "seeds", "first_pairs", "evaluation_prompts")
        if unknown := [arm for arm in self.arms if arm not in CHANGES]:
            raise UserError(f"unknown arms {unknown}; known: {', '.join(CHANGES)}")
        if self.evaluation_samples < 2:
            raise UserError("evaluation_samples must be at least 2, which are compared")

    def recipe(self, arm: str, seed: int) -> RoundRecipe:
        """What every round of an arm does."""
        common = {"per_device_train_batch_size": self.batch_size}
        changes = {"samples": self.samples} | CHANGES[arm]
        return RoundRecipe(
            pairs=self.pairs,
            prompts=self.prompts,
            max_new_tokens=self.max_new_tokens,
            reward_model={"learning_rate": self.reward_rate, "pairs_per_step": 32},
            sft=common | {"learning_rate": self.sft_rate, "num_train_epochs": self.sft_epochs},
            dpo=common | {"learning_rate": self.dpo_rate, "num_train_epochs": 1},
            seed=seed,
            **changes,
        )


def run_arm(
    settings: RoundsStudySettings, arm: str, seed: int, folder: Path
) -> list[dict[str, np.ndarray]]:
    """Values of the policy before the first round and after each (see :func:`evaluate`).

    Those of a round also say which of its annotated pairs carry an edit, ``edited``, ``[pairs]``.
    """
    edited = settings.edited if arm == Arm.EDITS else 0.0
    workshop, first = prepare(settings, seed, folder, edited=edited)
    recipe = settings.recipe(arm, seed)
    states = [State(workshop.checkpoint, annotations=(first,))]
    for number in range(1, settings.rounds + 1):
        states.append(next_round(workshop, recipe, states[-1], number))
    last = len(states) - 1
    found = []
    for number, state in enumerate(states):
        # The reward models that chose the way to this policy, and that choose the way on. All score
        # the first one, so that the scores of later ones can be compared with something.
        scorers = (
            {}
            if number
            else {f"round {later}": states[later].reward_models[-1] for later in range(1, last + 1)}
        )
        if number:
            scorers["made it"] = state.reward_models[-1]
        if number < last:
            scorers["goes on"] = states[number + 1].reward_models[-1]
        values = evaluate(workshop, settings, state.policy, scorers, number)
        if number:
            pairs = preferences(state.annotations[-1])
            values["edited"] = np.array([len(group.responses) == 3 for group in pairs], dtype=float)
        found.append(values)
    return found


def prepare(
    settings: RoundsStudySettings, seed: int, folder: Path, *, edited: float = 0.0
) -> tuple[Workshop, Path]:
    """A workshop for one seed, and the annotations that came before its first round.

    ``edited`` is the share of chosen answers that editors get.
    """
    checkpoint = embedded.praising(settings.pretraining_texts)
    workshop = Workshop(
        checkpoint,
        prompts.simulated(1000 + seed),
        Annotators(edited=edited),
        folder,
        base=checkpoint.name,
        judged=f"simulator {seed}" + (f", edited {edited}" if edited else ""),
    )
    groups = [
        group.ranked
        for group in simulate(settings.first_pairs, seed=5000 + seed, praise=settings.praise)
    ]

    def write(path: Path) -> None:
        write_groups(path / "pairs.jsonl", groups)

    first = workshop.make("first-annotations", {"content": fingerprint(groups)}, [], write)
    return workshop, first


def evaluate(
    workshop: Workshop,
    settings: RoundsStudySettings,
    policy: Path,
    scorers: Mapping[str, Path],
    number: int,
) -> dict[str, np.ndarray]:
    """What a policy says to the evaluation prompts is worth, ``[prompts, samples]`` each.

    Gold quality, praise, words and whether it ended well; ``log ratio``: its log-probability under
    the policy less that under the pre-trained one, whose mean estimates the divergence; and for
    each of ``scorers`` its scores, under the scorer's name.
    """
    asked = prompts.simulated(settings.data_seed)(prompts.EVALUATION, settings.evaluation_prompts)
    sampling = SamplingSettings(
        samples=settings.evaluation_samples,
        max_new_tokens=settings.max_new_tokens,
        sampling_seed=settings.data_seed,
    )

    def write(folder: Path) -> None:
        model, tokenizer = load_policy(policy)
        drawn = list(sample(model, tokenizer, asked, sampling))
        tasks = [task_of(prompt) for prompt in asked]
        found = [
            [inspect(task, one.text) for one in answers]
            for task, answers in zip(tasks, drawn, strict=True)
        ]
        base, _ = load_policy(workshop.checkpoint)
        flat = [
            (tokens, one)
            for tokens, answers in zip(prompt_tokens(tokenizer, asked), drawn, strict=True)
            for one in answers
        ]
        under_base = log_probabilities(base, [(tokens, one.tokens) for tokens, one in flat])
        own = np.array([one.log_probability for _, one in flat])
        shape = (len(asked), settings.evaluation_samples)
        values: dict[str, Any] = {
            "gold": [
                [gold(task, one.text) for one in answers]
                for task, answers in zip(tasks, drawn, strict=True)
            ],
            "praise": [[one.phrases["praise"] for one in answers] for answers in found],
            "words": [[len(one.text.split()) for one in answers] for answers in drawn],
            "ended": [
                [one.finished and seen.ends for one, seen in zip(answers, seens, strict=True)]
                for answers, seens in zip(drawn, found, strict=True)
            ],
            "log ratio": (own - under_base).reshape(shape).tolist(),
        }
        for name, path in scorers.items():
            scorer, reader = reward_model.load(path)
            texts = [[one.text for one in answers] for answers in drawn]
            scores = score_responses(scorer, reader, asked, texts)
            values[name] = [one.tolist() for one in scores]
        (folder / "values.json").write_text(json.dumps(values), encoding="utf-8")

    decided_by = {"sampling": asdict(sampling), "prompts": len(asked), "version": VERSION}
    path = workshop.make(
        f"round-{number}-evaluation",
        decided_by | {"scorers": list(scorers)},
        [policy, *scorers.values()],
        write,
    )
    values = json.loads((path / "values.json").read_text(encoding="utf-8"))
    return {name: np.array(value, dtype=float) for name, value in values.items()}

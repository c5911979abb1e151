"""Rounds of post-training as in Llama 3 (sections 4.1 and 4.2): each a function of the last.

A round with number r goes from one policy to the next:

1. *Annotate.* The policy answers prompts twice each, and a judge says which answer is better.
2. *Reward model*, from the pre-trained checkpoint, on the annotations of all rounds so far.
3. *Rejection sampling.* The policy answers other prompts several times each, and the reward model
   keeps the best answer.
4. *SFT*, from the pre-trained checkpoint, on what was kept.
5. *DPO*, from there, on the annotations of this round.

The paper leaves much of this open; each choice is a setting of :class:`RoundRecipe`. Every step
leaves a folder that is named by a hash of all that decides it, appears whole or not at all, and is
not made twice: a run that was stopped goes on, and runs that begin alike share what they can.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import Message
from posttrain.data.reading import write_groups
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy.datasets import demonstration_set, messages, preference_set
from posttrain.policy.dpo import PreferenceConfig, optimize
from posttrain.policy.folders import (
    load_policy,
    preferences,
    read_lines,
    save_policy,
    write_lines,
)
from posttrain.policy.judges import Judge, Prompt
from posttrain.policy.prompts import DrawPrompts
from posttrain.policy.reward import QUIET, train_reward_model
from posttrain.policy.sampling import Sample, SamplingSettings, sample
from posttrain.policy.sft import FinetuningConfig, finetune
from posttrain.storage import cache

#: Raise when a step gives another result for the same settings.
VERSION = 2
#: What TRL's trainers do not do in a round, unless settings say otherwise.
QUIET_POLICY = QUIET | {"max_length": None}


@dataclass(frozen=True)
class RoundRecipe:
    """What every round does."""

    pairs: int = setting(400, "Prompts whose two answers are compared, in each round.")
    prompts: int = setting(200, "Prompts of rejection sampling, in each round.")
    samples: int = setting(10, "Answers to each of these (Llama 3: 10 to 30).")
    share: float = setting(1.0, "Share of prompts whose best answers are kept, the best-scored.")
    random_choice: bool = setting(
        False,
        "Keep a random answer to each prompt instead of the best, the control of that choice.",
    )
    temperature: float = setting(1.0, "Temperature of all sampling.")
    max_new_tokens: int = setting(256, "Longest answer, in tokens.")
    fresh_reward_model: bool = setting(
        True, "Train a reward model in every round, rather than in the first one only."
    )
    stages: list[str] = setting(["sft", "dpo"], "What trains the policy: sft, dpo, or both.")
    restart: bool = setting(
        True, "Start every round from the pre-trained checkpoint, rather than the last policy."
    )
    all_demonstrations: bool = setting(
        False, "SFT on what was kept in all rounds so far, rather than in this one."
    )
    all_preferences: bool = setting(
        False, "DPO on the annotations of all rounds so far, rather than of this one."
    )
    reward_model: dict = setting({}, "Training arguments of the reward model, in a --config file.")
    sft: dict = setting({}, "Training arguments of SFT, in a --config file.")
    dpo: dict = setting({}, "Training arguments of DPO, in a --config file.")
    seed: int = setting(0, "Seeds every random choice.")

    def __post_init__(self) -> None:
        at_least_one(self, "pairs", "prompts", "samples", "max_new_tokens")
        if not self.stages or not set(self.stages) <= {"sft", "dpo"}:
            raise UserError(f"stages must be some of sft and dpo, not {self.stages}")
        if not 0 < self.share <= 1:
            raise UserError(f"share must be above 0 and at most 1, not {self.share}")
        if self.restart and "sft" not in self.stages:
            raise UserError(
                "dpo alone would begin each round from the pre-trained checkpoint and forget the "
                "last; set restart to false"
            )


@dataclass(frozen=True)
class State:
    """What a round leaves to the next: folders, those of all rounds in their order.

    Annotations may begin with some that came before the first round, such as open data.
    """

    policy: Path
    annotations: tuple[Path, ...] = ()
    reward_models: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Workshop:
    """What rounds work with: a pre-trained checkpoint, prompts, a judge, and a place for results.

    ``base`` names the checkpoint in hashes, ``judged`` prompts and judge. ``truth`` is the gold
    quality of an answer, where it is known.
    """

    checkpoint: Path
    draw: DrawPrompts
    judge: Judge
    folder: Path
    base: str
    judged: str
    device: torch.device = torch.device("cpu")
    report: Callable[[str], None] = lambda text: None
    truth: Callable[[Prompt, str], float] | None = None

    def make(
        self,
        name: str,
        decided_by: Mapping[str, Any],
        inputs: Sequence[Path],
        write: Callable[[Path], None],
    ) -> Path:
        """The folder of a step's result, made unless it is there."""
        account = dict(decided_by) | {
            "step": name,
            "base": self.base,
            "judged": self.judged,
            "inputs": [path.name for path in inputs],
        }
        key = cache.key(account, "torch", "transformers", "trl", version=VERSION)

        def make(folder: Path) -> None:
            self.report(f"{name}: started")
            write(folder)
            text = json.dumps(account, indent=2, default=str)
            (folder / "step.json").write_text(text + "\n", encoding="utf-8")

        return cache.get_or_create(f"{name}-{key}", make, parent=self.folder)


def next_round(workshop: Workshop, recipe: RoundRecipe, state: State, number: int) -> State:
    """One round, from the state that the last one left."""
    annotations = (*state.annotations, annotate(workshop, recipe, state.policy, number))
    reward_models = state.reward_models
    if recipe.fresh_reward_model or not reward_models:
        reward_models = (*reward_models, fit_reward_model(workshop, recipe, annotations, number))
    kept = state.kept
    policy = workshop.checkpoint if recipe.restart else state.policy
    if "sft" in recipe.stages:
        chosen = keep_best(workshop, recipe, state.policy, reward_models[-1], number)
        kept = (*kept, chosen)
        shown = kept if recipe.all_demonstrations else kept[-1:]
        policy = fit_sft(workshop, recipe, policy, shown, number)
    if "dpo" in recipe.stages:
        compared = annotations if recipe.all_preferences else annotations[-1:]
        policy = fit_dpo(workshop, recipe, policy, compared, number)
    return State(policy, annotations, reward_models, kept)


def annotate(workshop: Workshop, recipe: RoundRecipe, policy: Path, number: int) -> Path:
    """Judged pairs of answers of a policy, ``pairs.jsonl``; prompts answered alike are left out."""
    prompts = workshop.draw(f"annotations {number}", recipe.pairs)
    settings = _sampling(recipe, samples=2, seed=[number, 1])

    def write(folder: Path) -> None:
        answers = [
            (first.text, second.text)
            for first, second in _sampled(workshop, policy, prompts, settings)
        ]
        apart = [i for i, (a, b) in enumerate(answers) if a != b and a and b]
        groups = workshop.judge.compare(
            [prompts[i] for i in apart],
            [answers[i] for i in apart],
            name=f"round-{number}",
            seed=_seed(recipe, number),
        )
        named = [
            replace(group, id=f"round-{number}-{place:06d}") for place, group in enumerate(groups)
        ]
        write_groups(folder / "pairs.jsonl", named)

    decided_by = {"sampling": asdict(settings), "prompts": recipe.pairs, "seed": recipe.seed}
    return workshop.make(f"round-{number}-annotations", decided_by, [policy], write)


def fit_reward_model(
    workshop: Workshop, recipe: RoundRecipe, annotations: Sequence[Path], number: int
) -> Path:
    """A reward model trained on some annotations, a plain Hugging Face folder."""

    def write(folder: Path) -> None:
        groups = [group for path in annotations for group in preferences(path)]
        model = train_reward_model(
            workshop.checkpoint, groups, recipe.reward_model, seed=_seed(recipe, number)
        )
        save_policy(model, workshop.checkpoint, folder)

    decided_by = {"training": recipe.reward_model, "seed": recipe.seed}
    return workshop.make(f"round-{number}-reward-model", decided_by, annotations, write)


def keep_best(
    workshop: Workshop, recipe: RoundRecipe, policy: Path, scorer: Path, number: int
) -> Path:
    """The best of a policy's answers to each prompt, ``demonstrations.jsonl``, and all of them."""
    prompts = workshop.draw(f"samples {number}", recipe.prompts)
    settings = _sampling(recipe, samples=recipe.samples, seed=[number, 2])

    def write(folder: Path) -> None:
        drawn = [_finished(one) for one in _sampled(workshop, policy, prompts, settings)]
        # A prompt to which no answer was finished has nothing to keep.
        answered = [i for i, samples in enumerate(drawn) if samples]
        if not answered:
            raise UserError(
                f"the policy finished none of its answers to {len(prompts)} prompts within "
                f"max_new_tokens={recipe.max_new_tokens}; raise that, or start from a policy that "
                "has learned to end its answers"
            )
        drawn, asked = [drawn[i] for i in answered], [prompts[i] for i in answered]
        model: Any
        model, tokenizer = reward_model.load(scorer)
        texts = [[one.text for one in samples] for samples in drawn]
        scores = score_responses(model.to(workshop.device), tokenizer, asked, texts)
        rows = [
            {"prompt": messages(prompt), "responses": answers, "scores": values.tolist()}
            for prompt, answers, values in zip(asked, texts, scores, strict=True)
        ]
        write_lines(folder / "samples.jsonl", rows)
        chosen = [int(values.argmax()) for values in scores]
        if recipe.random_choice:
            rng = np.random.default_rng(_seed(recipe, number, 3))
            chosen = [int(rng.integers(len(values))) for values in scores]
        heights = [row["scores"][place] for row, place in zip(rows, chosen, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: -heights[i])
        kept = sorted(order[: max(1, round(recipe.share * len(rows)))])
        write_lines(
            folder / "demonstrations.jsonl",
            [
                {
                    "prompt": rows[i]["prompt"],
                    "response": rows[i]["responses"][chosen[i]],
                    "score": heights[i],
                }
                for i in kept
            ],
        )

    decided_by = {
        "sampling": asdict(settings), "prompts": recipe.prompts, "share": recipe.share,
        "seed": recipe.seed,
    } | ({"random choice": True} if recipe.random_choice else {})  # fmt: skip
    return workshop.make(f"round-{number}-samples", decided_by, [policy, scorer], write)


def fit_sft(
    workshop: Workshop, recipe: RoundRecipe, start: Path, kept: Sequence[Path], number: int
) -> Path:
    """A policy trained on demonstrations, a plain Hugging Face folder."""

    def write(folder: Path) -> None:
        shown = [row for path in kept for row in read_lines(path / "demonstrations.jsonl")]
        prompts = [tuple(Message(**turn) for turn in row["prompt"]) for row in shown]
        data = demonstration_set(prompts, [row["response"] for row in shown])
        model, tokenizer = load_policy(start)
        with tempfile.TemporaryDirectory() as scratch:
            config = FinetuningConfig(
                scratch, **_arguments(workshop, recipe.sft, _seed(recipe, number))
            )
            finetune(model, tokenizer, data, config)
        save_policy(model, start, folder)

    decided_by = {"training": recipe.sft, "seed": recipe.seed}
    return workshop.make(f"round-{number}-sft", decided_by, [start, *kept], write)


def fit_dpo(
    workshop: Workshop, recipe: RoundRecipe, start: Path, annotations: Sequence[Path], number: int
) -> Path:
    """A policy trained on preferences, a plain Hugging Face folder."""

    def write(folder: Path) -> None:
        groups = [group for path in annotations for group in preferences(path)]
        model, tokenizer = load_policy(start)
        with tempfile.TemporaryDirectory() as scratch:
            config = PreferenceConfig(
                scratch, **_arguments(workshop, recipe.dpo, _seed(recipe, number))
            )
            optimize(model, tokenizer, preference_set(groups), config)
        save_policy(model, start, folder)

    decided_by = {"training": recipe.dpo, "seed": recipe.seed}
    return workshop.make(f"round-{number}-dpo", decided_by, [start, *annotations], write)


def _sampled(
    workshop: Workshop, policy: Path, prompts: Sequence[Prompt], settings: SamplingSettings
) -> list[list[Sample]]:
    model: Any
    model, tokenizer = load_policy(policy)
    return list(sample(model.to(workshop.device), tokenizer, prompts, settings))


def _finished(samples: Sequence[Sample]) -> list[Sample]:
    """Those that the policy ended, and that say something."""
    return [one for one in samples if one.finished and one.text]


def _sampling(recipe: RoundRecipe, *, samples: int, seed: Sequence[int]) -> SamplingSettings:
    return SamplingSettings(
        samples=samples,
        temperature=recipe.temperature,
        max_new_tokens=recipe.max_new_tokens,
        sampling_seed=_seed(recipe, *seed),
    )


def _seed(recipe: RoundRecipe, *numbers: int) -> int:
    """A seed of its own for each seed of the recipe, round and purpose."""
    seed = recipe.seed
    for number in numbers:
        seed = 100 * seed + number
    return seed


def _arguments(workshop: Workshop, given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    own = {"seed": seed, "use_cpu": workshop.device.type == "cpu"}
    return QUIET_POLICY | own | dict(given)

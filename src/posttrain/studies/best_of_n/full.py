"""Sampling from the policy, and reward models that score what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedModel

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.sources.simulator.gold import gold, inspect, task_of
from posttrain.errors import UserError
from posttrain.models import embedded, reward_model
from posttrain.policy import prompts
from posttrain.policy.averaging import average
from posttrain.policy.folders import load_policy
from posttrain.policy.sampling import SamplingSettings, sample
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import (
    TokenizedGroup,
    share_prompts,
    tokenize_groups,
    tokenize_responses,
)
from posttrain.studies.best_of_n.keys import World
from posttrain.studies.common.training import Recipe, train
from posttrain.training.collator import TrainingGroup, TrainingPair

#: Tokens of a row that a prompt's answers share.
ROW_TOKENS = 2048
#: Share of a size's pairs that each member of an ensemble is trained on.
MEMBER_SHARE = 0.8
#: Correlation of praise with the rest of quality, in each world.
CORRELATION = {World.PRAISE: 0.8, World.CONTROL: 0.0}


@dataclass(frozen=True)
class ChoosingSettings(Recipe):
    """Settings of studies in which reward models choose among the policy's samples."""

    prompts: int = setting(64, "Prompts that the policy answers.")
    samples: int = setting(1024, "Answers to each; the largest n.")
    max_new_tokens: int = setting(96, "Longest answer, in tokens.")
    seeds: int = setting(2, "Repetitions, each with pairs and models of its own.")
    test_pairs: int = setting(1000, "Held-out pairs that test a reward model.")
    learning_rate: float = setting(3e-3, "Peak learning rate of reward models.")
    pretraining_texts: int | None = setting(
        None, "Texts that the policy is pre-trained on; by default those of tiny-praise."
    )
    data_seed: int = setting(1, "Seeds prompts, samples and annotators.")
    resamples: int = setting(1000, "Bootstrap replicates.")

    def __post_init__(self) -> None:
        at_least_one(self, "prompts", "seeds", "test_pairs", "resamples")
        if self.samples < 2:
            raise UserError("samples must be 2 or more")


@dataclass(frozen=True)
class BestOfNSettings(ChoosingSettings):
    """Settings of the best-of-n study."""

    temperatures: list[float] = setting([0.6, 0.8, 1.0, 1.2, 1.4], "Temperatures to compare.")
    temperature_samples: int = setting(128, "Answers to each prompt at each of these.")
    sizes: list[int] = setting([250, 1000, 4000, 16_000], "Numbers of annotated pairs.")
    noises: list[float] = setting([0.0, 0.25], "Shares of these turned round, beside annotators'.")
    members: int = setting(4, "Reward models of an ensemble.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "members", "temperature_samples")
        if not self.sizes or not self.noises or min(self.sizes) < 2:
            raise UserError("give sizes of 2 or more, and noises")
        if not all(0 <= noise < 0.5 for noise in self.noises):
            raise UserError(f"noises must lie from 0 to below 0.5, not {self.noises}")


@dataclass(frozen=True)
class Samples:
    """What a policy said to each prompt, and how good it is; arrays are ``[prompts, samples]``."""

    prompts: list[tuple[Message, ...]]
    texts: list[list[str]]
    gold: np.ndarray
    praise: np.ndarray
    words: np.ndarray


def policy(settings: ChoosingSettings) -> Path:
    """The policy that is sampled from: pre-trained where praise goes with quality."""
    return embedded.praising(settings.pretraining_texts)


def draw_samples(settings: ChoosingSettings, count: int, temperature: float) -> Samples:
    """Samples of the policy, and what the simulator's truth says of each."""
    model, tokenizer = load_policy(policy(settings))
    asked = prompts.simulated(settings.data_seed)(prompts.EVALUATION, settings.prompts)
    sampling = SamplingSettings(
        samples=count,
        temperature=temperature,
        max_new_tokens=settings.max_new_tokens,
        sampling_seed=settings.data_seed,
    )
    texts = [[one.text for one in drawn] for drawn in sample(model, tokenizer, asked, sampling)]
    tasks = [task_of(prompt) for prompt in asked]
    found = [
        [(gold(task, text), inspect(task, text).phrases["praise"], len(text.split()))
         for text in answers]
        for task, answers in zip(tasks, texts, strict=True)
    ]  # fmt: skip
    values = np.array(found, dtype=float)
    return Samples(asked, texts, values[..., 0], values[..., 1], values[..., 2])


@dataclass(frozen=True)
class Answers:
    """Samples as a reward model reads them: each distinct one once, those of a prompt in one row.

    ``places`` are where the score of each sample stands, ``[prompts, samples]``.
    """

    rows: list[TokenizedGroup]
    places: np.ndarray


def tokenize_samples(settings: ChoosingSettings, drawn: Samples) -> Answers:
    """Tokenise samples for :func:`score_samples`."""
    tokenizer = AutoTokenizer.from_pretrained(policy(settings))
    pieces = []
    for prompt, texts in zip(drawn.prompts, drawn.texts, strict=True):
        distinct = list(dict.fromkeys(texts))
        group = tokenize_responses(tokenizer, prompt, distinct)
        known = dict(zip(distinct, group.responses, strict=True))
        pieces.append([(group.prompt, known[text]) for text in texts])
    rows = share_prompts((piece for own in pieces for piece in own), ROW_TOKENS)
    order = [(row.prompt, response) for row in rows for response in row.responses]
    place = {piece: number for number, piece in enumerate(order)}
    return Answers(rows, np.array([[place[piece] for piece in own] for own in pieces]))


def annotated(world: str, count: int, *, seed: int) -> list[RankedGroup]:
    """Annotated pairs of a world."""
    groups = simulate(count, seed=seed, praise=CORRELATION[World(world)])
    return [group.ranked for group in groups]


def score_samples(
    settings: BestOfNSettings, answers: Answers, world: str, noise: float, size: int, seed: int
) -> dict[str, np.ndarray]:
    """Train the members of an ensemble and let them score the policy's samples.

    Returns:
        ``samples``: scores of each member and, last, of the average of their weights,
        ``[members + 1, prompts, samples]``; ``test``: their scores of chosen and rejected of
        held-out pairs, ``[members + 1, 2, pairs]``.
    """
    checkpoint = policy(settings)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    pairs = annotated(world, size, seed=seed_for(settings, seed, 1))
    tokens = tokenize_groups(tokenizer, pairs).groups
    turned = np.random.default_rng([seed, round(1000 * noise)]).random(len(tokens)) < noise
    groups = [
        TrainingGroup(one, (TrainingPair(1, 0) if flip else TrainingPair(0, 1),))
        for one, flip in zip(tokens, turned, strict=True)
    ]
    members = []
    for member in range(settings.members):
        own = np.random.default_rng([seed, member]).permutation(len(groups))
        model, _ = train(
            checkpoint,
            [groups[i] for i in own[: max(1, round(MEMBER_SHARE * len(groups)))]],
            LAYOUTS["separate"],
            settings,
            learning_rate=settings.learning_rate,
            seed=100 * seed + member,
            head_seed=seed,
        )
        members.append(model)
    members.append(average(members))
    held = annotated(world, settings.test_pairs, seed=seed_for(settings, seed, 2))
    test = tokenize_groups(tokenizer, held).groups
    pad = tokenizer.pad_token_id
    return {
        "samples": np.array(
            [
                score_in_single(model, answers.rows, "exact", pad)[answers.places]
                for model in members
            ]
        ),
        "test": np.array(
            [score_in_single(model, test, "separate", pad).reshape(-1, 2).T for model in members]
        ),
    }


def score_in_single(
    model: PreTrainedModel, groups: Sequence[TokenizedGroup], layout: str, pad_token_id: int
) -> np.ndarray:
    """Scores by group and rank; only their order counts, for which single precision is enough."""
    single: Any = model.float()
    scores = reward_model.score(
        single,
        groups,
        pad_token_id=pad_token_id,
        layout=LAYOUTS[layout],
        batch_tokens=2 * ROW_TOKENS,
    )
    return scores.numpy()


def seed_for(settings: ChoosingSettings, seed: int, purpose: int) -> int:
    """A seed of its own for each repetition and purpose."""
    return 10_000 * settings.data_seed + 10 * seed + purpose

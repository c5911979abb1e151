"""People's pairs in parts, and what a policy answers to prompts of one of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from posttrain.config.fields import at_least_one, setting
from posttrain.data.splits import split_codes
from posttrain.errors import UserError
from posttrain.policy.datasets import messages
from posttrain.policy.folders import load_policy, read_lines, write_lines
from posttrain.policy.judges import Prompt
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.rounds import Workshop
from posttrain.policy.sampling import SamplingSettings, prompt_tokens, sample
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.groups import (
    DataSettings,
    StudyGroups,
    checkpoint_for,
    load_groups,
)

#: Raise when a step gives another result for the same settings.
VERSION = 2
#: Those of the data; the reward models of one choose, those of the other judge.
HALVES = (0, 1)


@dataclass(frozen=True)
class AnswerSettings:
    """Settings of the own-samples study that hold for every way to train reward models."""

    prompts: int = setting(200, "Prompts that are answered; no model is trained on theirs.")
    samples: int = setting(16, "Answers to each; the largest n.")
    max_new_tokens: int = setting(200, "Longest answer, in tokens.")
    max_tokens: int = setting(4096, "Longest prompt with a response; prompts are cut on the left.")
    size: int = setting(1000, "Most pairs that a half, or another source, trains on.")
    seeds: int = setting(3, "Reward models of each half of the pairs.")
    judges: list[str] = setting([], "Other sources, whose reward models judge as well.")
    half_precision: bool = setting(False, "Sample in bfloat16, which is faster.")
    sampling_batch: int = setting(512, "Answers that are drawn at a time; limits memory.")
    data_seed: int = setting(1, "Seeds the split and every random choice.")
    resamples: int = setting(1000, "Bootstrap replicates.")
    gpu: bool = setting(False, "Work on a GPU.")

    def __post_init__(self) -> None:
        at_least_one(self, "prompts", "size", "seeds", "resamples")
        if self.samples < 2:
            raise UserError("samples must be 2 or more")

    @property
    def device(self) -> torch.device:
        """Where policies answer and reward models score."""
        return torch.device("cuda" if self.gpu else "cpu")


class RewardModels(Protocol):
    """Several reward models of the same pairs."""

    def of_answers(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Scores of answers to each prompt, ``[models, prompts, samples]``."""
        ...

    def of_pairs(self, tokens: Sequence[TokenizedGroup]) -> np.ndarray:
        """Scores of chosen and rejected, ``[models, 2, pairs]``."""
        ...


@dataclass(frozen=True)
class Answers:
    """What a policy said: arrays are ``[prompts, samples]``."""

    texts: list[list[str]]
    words: np.ndarray
    ended: np.ndarray
    log_ratio: np.ndarray  #: Log-probability less that under the policy before training, in nats.


@dataclass(frozen=True)
class Experiment:
    """People's pairs in two halves and a part that no model is trained on, and where steps go."""

    checkpoint: Path
    settings: Any
    groups: StudyGroups
    halves: tuple[np.ndarray, np.ndarray]
    held: np.ndarray
    folder: Path

    @classmethod
    def prepare(cls, source: str, groups: StudyGroups, settings: Any, folder: Path) -> "Experiment":
        """Divide pairs by prompt.

        Raises:
            UserError: If there are too few prompts.
        """
        codes = np.unique([group.cluster_id for group in groups.ranked], return_inverse=True)[1]
        distinct = int(codes.max(initial=-1)) + 1
        if distinct < settings.prompts + 4:
            raise UserError(
                f"{source} has {distinct} groups of prompts; {settings.prompts} are to be answered "
                "and the rest trains two halves of reward models; lower prompts"
            )
        rest, held = split_codes(
            codes, test_fraction=settings.prompts / distinct, seed=settings.data_seed
        )
        first, second = split_codes(codes[rest], test_fraction=0.5, seed=settings.data_seed)
        halves = (capped(rest[first], settings), capped(rest[second], settings))
        return cls(checkpoint_for(source), settings, groups, halves, held, folder)

    @cached_property
    def workshop(self) -> Workshop:
        """Where steps are kept."""
        return Workshop(
            self.checkpoint,
            _not_here,
            _NoJudge(),
            self.folder,
            base=self.checkpoint.name,
            judged=self.groups.account["fingerprint"],
            device=self.settings.device,
        )

    def prompts(self, indices: np.ndarray) -> list[Prompt]:
        """The prompts of some groups, one of each cluster."""
        by_cluster: dict[str, Prompt] = {}
        for k in indices.tolist():
            group = self.groups.ranked[k]
            by_cluster.setdefault(group.cluster_id, tuple(group.prompt))
        return list(by_cluster.values())

    def asked(self) -> list[Prompt]:
        """The prompts on which choices and policies are judged."""
        return self.prompts(self.held)


def capped(indices: np.ndarray, settings: AnswerSettings) -> np.ndarray:
    """As many of some pairs as a reward model may train on, ascending."""
    drawn = np.random.default_rng(settings.data_seed).permutation(indices)
    return np.sort(drawn[: settings.size])


def _not_here(*_: Any, **__: Any) -> Any:
    raise AssertionError("no step of this study draws prompts or asks a judge")


class _NoJudge:
    compare = staticmethod(_not_here)


def load(source: str, settings: AnswerSettings) -> StudyGroups:
    """People's pairs of a source, as SmolLM2 reads them."""
    data = DataSettings(max_tokens=settings.max_tokens, data_seed=settings.data_seed)
    return load_groups(source, checkpoint_for(source), data, edits=False)


def answer(
    experiment: Experiment, policy: Path, prompts: Sequence[Prompt], purpose: str
) -> Answers:
    """Samples of a policy, kept in a folder."""
    settings = experiment.settings
    sampling = SamplingSettings(
        samples=settings.samples,
        max_new_tokens=settings.max_new_tokens,
        sampling_seed=settings.data_seed,
        sampling_batch=settings.sampling_batch,
    )

    def write(folder: Path) -> None:
        model: Any
        model, tokenizer = load_policy(policy)
        dtype = torch.bfloat16 if settings.half_precision else model.dtype
        drawn = list(sample(model.to(settings.device, dtype), tokenizer, prompts, sampling))
        rows = [
            (tokens, one.tokens)
            for tokens, answers in zip(prompt_tokens(tokenizer, prompts), drawn, strict=True)
            for one in answers
        ]
        ratio = np.zeros(len(rows))
        if policy != experiment.checkpoint:
            after, before = (
                log_probabilities(load_policy(path)[0].to(settings.device), rows, batch_size=16)
                for path in (policy, experiment.checkpoint)
            )
            ratio = after - before
        write_lines(
            folder / "answers.jsonl",
            [
                {
                    "texts": [one.text for one in answers],
                    "ended": [one.finished for one in answers],
                    "log ratio": ratio[
                        place * settings.samples : (place + 1) * settings.samples
                    ].tolist(),
                }
                for place, answers in enumerate(drawn)
            ],
        )

    inputs = [] if policy == experiment.checkpoint else [policy]
    decided_by = {
        "sampling": asdict(sampling), "prompts": [messages(prompt) for prompt in prompts],
        "bfloat16": settings.half_precision, "version": VERSION,
    }  # fmt: skip
    path = experiment.workshop.make(f"answers-{purpose}", decided_by, inputs, write)
    if settings.gpu:
        torch.cuda.empty_cache()  # the next one at work on this GPU needs it
    rows = read_lines(path / "answers.jsonl")
    return Answers(
        [row["texts"] for row in rows],
        np.array([[len(text.split()) for text in row["texts"]] for row in rows], dtype=float),
        np.array([row["ended"] for row in rows], dtype=float),
        np.array([row["log ratio"] for row in rows]),
    )

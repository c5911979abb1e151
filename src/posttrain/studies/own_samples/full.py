"""Reward models of two halves of the data, and the policies that learn from one half's."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.reading import write_groups
from posttrain.data.splits import split, split_codes
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy.datasets import messages
from posttrain.policy.folders import load_policy, read_lines, save_policy, write_lines
from posttrain.policy.judges import Prompt, RewardJudge
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.rounds import RoundRecipe, Workshop, fit_dpo, fit_sft
from posttrain.policy.sampling import SamplingSettings, prompt_tokens, sample
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.groups import DataSettings, StudyGroups, checkpoint_for, load_groups
from posttrain.studies.common.training import Recipe, train
from posttrain.studies.own_samples.keys import Policy
from posttrain.training.collator import TrainingGroup

#: Raise when a step gives another result for the same settings.
VERSION = 1
#: Who judges: the reward models of the other half.
HALVES = (0, 1)


@dataclass(frozen=True)
class OwnSamplesSettings(Recipe):
    """Settings of the own-samples study."""

    prompts: int = setting(200, "Prompts that are answered; no model is trained on theirs.")
    samples: int = setting(16, "Answers to each; the largest n.")
    max_new_tokens: int = setting(200, "Longest answer, in tokens.")
    max_tokens: int = setting(1024, "Longest prompt with a response; prompts are cut on the left.")
    seeds: int = setting(3, "Reward models of each half of the pairs.")
    learning_rates: list[float] = setting([1e-4, 3e-4], "Peak learning rates to choose from.")
    validation_share: float = setting(0.25, "Share of a half's groups that judge learning rates.")
    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    judges: list[str] = setting([], "Other sources, whose reward models judge as well.")
    policies: list[str] = setting([], "Ways to train the policy, which take a GPU.")
    pairs_per_prompt: int = setting(4, "Pairs of answers to each prompt, for DPO.")
    sft_rate: float = setting(1e-5, "Peak learning rate of SFT (Llama 3: 1e-5).")
    dpo_rate: float = setting(1e-5, "Peak learning rate of DPO (Llama 3: 1e-5).")
    sampling_batch: int = setting(512, "Answers that are drawn at a time; limits memory.")
    data_seed: int = setting(1, "Seeds the split and every random choice.")
    resamples: int = setting(1000, "Bootstrap replicates.")

    def __post_init__(self) -> None:
        at_least_one(self, "prompts", "seeds", "pairs_per_prompt", "resamples")
        if self.samples < 2 * self.pairs_per_prompt or self.samples < 2:
            raise UserError("samples must be 2 or more, and twice pairs_per_prompt")
        known = [str(policy) for policy in Policy if policy != Policy.START]
        if unknown := [policy for policy in self.policies if policy not in known]:
            raise UserError(f"unknown policies {unknown}; known: {', '.join(known)}")
        if not self.learning_rates:
            raise UserError("give learning_rates")

    @property
    def device(self) -> torch.device:
        """Where policies answer and reward models score."""
        return torch.device("cuda" if self.gpu else "cpu")


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

    source: str
    checkpoint: Path
    settings: OwnSamplesSettings
    groups: StudyGroups
    halves: tuple[np.ndarray, np.ndarray]
    held: np.ndarray
    folder: Path

    @classmethod
    def prepare(
        cls, source: str, groups: StudyGroups, settings: OwnSamplesSettings, folder: Path
    ) -> "Experiment":
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
        return cls(
            source,
            checkpoint_for(source),
            settings,
            groups,
            (rest[first], rest[second]),
            held,
            folder,
        )

    @cached_property
    def workshop(self) -> Workshop:
        """Where steps are kept."""
        return Workshop(
            self.checkpoint,
            lambda purpose, count: self.prompts(self.halves[int(purpose)])[:count],
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


class _NoJudge:
    def compare(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("reward models compare here")


def load(source: str, settings: OwnSamplesSettings) -> StudyGroups:
    """People's pairs of a source, as SmolLM2 reads them."""
    data = DataSettings(max_tokens=settings.max_tokens, data_seed=settings.data_seed)
    return load_groups(source, checkpoint_for(source), data, edits=False)


def fit(experiment: Experiment, half: int) -> list[Path]:
    """Reward models of a half, at the rate that ranks a part of it best; plain folders."""
    settings = experiment.settings
    indices = experiment.halves[half]
    ranked = [experiment.groups.ranked[k] for k in indices]
    fitting, judged = split(
        ranked, test_fraction=settings.validation_share, seed=settings.data_seed
    )

    def trained(places: np.ndarray, rate: float, seed: int) -> tuple[Any, int]:
        groups = [TrainingGroup.with_all_pairs(experiment.groups.tokens[k]) for k in places]
        return train(
            experiment.checkpoint, groups, LAYOUTS["separate"], settings,
            learning_rate=rate, seed=seed,
        )  # fmt: skip

    decided_by = {
        name: value for name, value in asdict(settings).items() if name in _OF_REWARD_MODELS
    } | {"half": half, "version": VERSION}

    def write_rate(folder: Path) -> None:
        losses = []
        for rate in settings.learning_rates:
            model, pad = trained(indices[fitting], rate, settings.data_seed)
            tokens = [experiment.groups.tokens[k] for k in indices[judged]]
            scores = reward_model.score(
                model, tokens, pad_token_id=pad, layout=LAYOUTS["separate"]
            ).unflatten(0, (-1, 2))
            gap = (scores[:, 0] - scores[:, 1]).double()
            losses.append(float(-torch.nn.functional.logsigmoid(gap).mean()))
        lines = [
            {"rate": rate, "loss": loss}
            for rate, loss in zip(settings.learning_rates, losses, strict=True)
        ]
        write_lines(folder / "rates.jsonl", lines)

    rates = experiment.workshop.make(f"rates-{half}", decided_by, [], write_rate)
    best = min(read_lines(rates / "rates.jsonl"), key=lambda row: row["loss"])["rate"]

    def one(member: int) -> Path:
        def write(folder: Path) -> None:
            model, _ = trained(indices, best, 100 * settings.data_seed + 10 * half + member)
            save_policy(model, experiment.checkpoint, folder)

        made = decided_by | {"rate": best, "member": member}
        return experiment.workshop.make(f"reward-model-{half}", made, [], write)

    return Parallel(n_jobs=settings.processes)(
        delayed(one)(member) for member in range(settings.seeds)
    )


#: Settings that decide reward models.
_OF_REWARD_MODELS = {
    "batch_size", "epochs", "top_layers", "gpu", "bf16", "learning_rates", "validation_share",
    "max_tokens", "data_seed", "prompts",
}  # fmt: skip


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
        drawn = list(sample(model.to(settings.device), tokenizer, prompts, sampling))
        rows = [
            (tokens, one.tokens)
            for tokens, answers in zip(prompt_tokens(tokenizer, prompts), drawn, strict=True)
            for one in answers
        ]
        before: Any
        before, _ = load_policy(experiment.checkpoint)
        # Both sides from the same code, so that a policy that did not move is at zero.
        ratio = np.zeros(len(rows))
        if policy != experiment.checkpoint:
            ratio = log_probabilities(model, rows, batch_size=16) - log_probabilities(
                before.to(settings.device), rows, batch_size=16
            )
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
        "version": VERSION,
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


def scores(
    settings: OwnSamplesSettings,
    models: Sequence[Path],
    prompts: Sequence[Prompt],
    texts: Sequence[Sequence[str]],
) -> np.ndarray:
    """Scores by each model, ``[models, prompts, samples]``."""
    found = []
    for path in models:
        model: Any
        model, tokenizer = reward_model.load(path)
        values = score_responses(model.to(settings.device), tokenizer, prompts, texts)
        found.append(np.array(values))
    return np.array(found)


def train_policies(experiment: Experiment, half: int, scorer: Path) -> dict[str, Path]:
    """Policies that learn from a reward model what to say, on the prompts of its half.

    SFT is on the best answer to each; DPO on pairs of answers, of which the reward model prefers
    one.
    """
    settings, workshop = experiment.settings, experiment.workshop
    asked = experiment.prompts(experiment.halves[half])
    said = answer(experiment, experiment.checkpoint, asked, f"half-{half}")

    def write_best(folder: Path) -> None:
        (values,) = scores(settings, [scorer], asked, said.texts)
        rows = []
        for prompt, texts, ended, own in zip(asked, said.texts, said.ended, values, strict=True):
            finished = [i for i, text in enumerate(texts) if ended[i] and text]
            if finished:
                best = max(finished, key=lambda i: own[i])
                rows.append({"prompt": messages(prompt), "response": texts[best]})
        write_lines(folder / "demonstrations.jsonl", rows)

    def write_pairs(folder: Path) -> None:
        both = [
            (prompt, (texts[i], texts[i + 1]))
            for prompt, texts in zip(asked, said.texts, strict=True)
            for i in range(0, 2 * settings.pairs_per_prompt, 2)
            if texts[i] != texts[i + 1] and texts[i] and texts[i + 1]
        ]
        model: Any
        model, tokenizer = reward_model.load(scorer)
        judge = RewardJudge(model.to(settings.device), tokenizer)
        pairs = judge.compare([one for one, _ in both], [pair for _, pair in both], name="", seed=0)
        write_groups(folder / "pairs.jsonl", pairs)

    decided_by = {"samples": settings.samples, "pairs": settings.pairs_per_prompt, "half": half}
    best = workshop.make(f"best-{half}", decided_by, [scorer], write_best)
    pairs = workshop.make(f"pairs-{half}", decided_by, [scorer], write_pairs)
    recipe = RoundRecipe(
        sft=_COMMON | {"learning_rate": settings.sft_rate, "num_train_epochs": 3},
        dpo=_COMMON | {"learning_rate": settings.dpo_rate, "num_train_epochs": 1},
        seed=settings.data_seed,
    )
    long = RoundRecipe(dpo=recipe.dpo | {"num_train_epochs": 4}, seed=settings.data_seed)
    base = experiment.checkpoint

    def sft() -> Path:
        return fit_sft(workshop, recipe, base, [best], half)

    made = {
        Policy.SFT: sft,
        Policy.DPO: lambda: fit_dpo(workshop, recipe, base, [pairs], half),
        Policy.DPO_LONG: lambda: fit_dpo(workshop, long, base, [pairs], half),
        Policy.BOTH: lambda: fit_dpo(workshop, recipe, sft(), [pairs], half),
    }
    found = {}
    for policy in settings.policies:
        found[policy] = made[Policy(policy)]()
        answer(experiment, found[policy], experiment.asked(), f"after-{half}")
    return found


#: How SFT and DPO are trained, beside what settings say.
_COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
    "warmup_steps": 5,
}  # fmt: skip

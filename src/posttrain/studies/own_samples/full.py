"""Whole reward models, and the policies that learn from one of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed

from posttrain.config.fields import at_least_one, setting
from posttrain.data.reading import write_groups
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy.datasets import messages
from posttrain.policy.folders import read_lines, save_policy, write_lines
from posttrain.policy.judges import Prompt, RewardJudge
from posttrain.policy.rounds import RoundRecipe, fit_dpo, fit_sft
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.groups import StudyGroups
from posttrain.studies.common.training import Recipe, train
from posttrain.studies.own_samples.data import VERSION, AnswerSettings, Experiment, answer
from posttrain.studies.own_samples.keys import Policy
from posttrain.training.collator import TrainingGroup


@dataclass(frozen=True)
class OwnSamplesSettings(AnswerSettings, Recipe):
    """Settings of the own-samples study with whole models."""

    learning_rates: list[float] = setting([1e-4, 3e-4], "Peak learning rates to choose from.")
    validation_share: float = setting(0.25, "Share of a half's groups that judge learning rates.")
    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    policies: list[str] = setting([], "Ways to train the policy, which take a GPU.")
    pairs_per_prompt: int = setting(4, "Pairs of answers to each prompt, for DPO.")
    sft_rate: float = setting(1e-5, "Peak learning rate of SFT (Llama 3: 1e-5).")
    dpo_rate: float = setting(1e-5, "Peak learning rate of DPO (Llama 3: 1e-5).")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "pairs_per_prompt")
        if self.samples < 2 * self.pairs_per_prompt:
            raise UserError("samples must be twice pairs_per_prompt or more")
        known = [*map(str, Policy)]
        if unknown := [policy for policy in self.policies if policy not in known]:
            raise UserError(f"unknown policies {unknown}; known: {', '.join(known)}")
        if not self.learning_rates:
            raise UserError("give learning_rates")


@dataclass(frozen=True)
class WholeModels:
    """Reward models in folders (see :class:`.data.RewardModels`)."""

    paths: list[Path]
    device: torch.device

    def of_answers(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Scores of answers to each prompt, ``[models, prompts, samples]``."""
        found = [score_responses(*self._load(path), prompts, texts) for path in self.paths]
        return np.array(found)

    def of_pairs(self, tokens: Sequence[TokenizedGroup]) -> np.ndarray:
        """Scores of chosen and rejected, ``[models, 2, pairs]``."""
        found = []
        for path in self.paths:
            model, tokenizer = self._load(path)
            values = reward_model.score(
                model, tokens, pad_token_id=tokenizer.pad_token_id, layout=LAYOUTS["separate"]
            )
            found.append(values.reshape(-1, 2).T.numpy(force=True))
        return np.array(found)

    def _load(self, path: Path) -> tuple[Any, Any]:
        model: Any
        model, tokenizer = reward_model.load(path)
        return model.to(self.device), tokenizer


def fit(experiment: Experiment, groups: StudyGroups, indices: np.ndarray, name: str) -> WholeModels:
    """Reward models of some pairs, at the rate that ranks a part of them best."""
    settings = experiment.settings
    ranked = [groups.ranked[k] for k in indices]
    fitting, judged = split(
        ranked, test_fraction=settings.validation_share, seed=settings.data_seed
    )

    def trained(places: np.ndarray, rate: float, seed: int) -> tuple[Any, int]:
        chosen = [TrainingGroup.with_all_pairs(groups.tokens[k]) for k in places]
        return train(
            experiment.checkpoint, chosen, LAYOUTS["separate"], settings,
            learning_rate=rate, seed=seed,
        )  # fmt: skip

    decided_by = {
        setting: value
        for setting, value in asdict(settings).items()
        if setting in _OF_REWARD_MODELS
    } | {"pairs": name, "version": VERSION}

    def write_rate(folder: Path) -> None:
        losses = []
        for rate in settings.learning_rates:
            model, pad = trained(indices[fitting], rate, settings.data_seed)
            tokens = [groups.tokens[k] for k in indices[judged]]
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

    rates = experiment.workshop.make(f"rates-{name}", decided_by, [], write_rate)
    best = min(read_lines(rates / "rates.jsonl"), key=lambda row: row["loss"])["rate"]

    def one(member: int) -> Path:
        def write(folder: Path) -> None:
            model, _ = trained(indices, best, 100 * settings.data_seed + member)
            save_policy(model, experiment.checkpoint, folder)

        made = decided_by | {"rate": best, "member": member}
        return experiment.workshop.make(f"reward-model-{name}", made, [], write)

    paths = Parallel(n_jobs=settings.processes)(
        delayed(one)(member) for member in range(settings.seeds)
    )
    return WholeModels(paths, settings.device)


#: Settings that decide reward models.
_OF_REWARD_MODELS = {
    "batch_size", "epochs", "top_layers", "gpu", "bf16", "learning_rates", "validation_share",
    "max_tokens", "data_seed", "prompts", "size",
}  # fmt: skip


def train_policies(experiment: Experiment, half: int, scorer: Path) -> dict[str, Path]:
    """Policies that learn from a reward model what to say, on the prompts of its half.

    SFT is on the best answer to each; DPO on pairs of answers, of which the reward model prefers
    one.
    """
    settings, workshop = experiment.settings, experiment.workshop
    asked = experiment.prompts(experiment.halves[half])
    said = answer(experiment, experiment.checkpoint, asked, f"half-{half}")

    def write_best(folder: Path) -> None:
        (values,) = WholeModels([scorer], settings.device).of_answers(asked, said.texts)
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

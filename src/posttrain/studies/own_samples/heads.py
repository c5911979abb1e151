"""Reward models that are linear heads on frozen features, which a CPU can afford."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from posttrain.config.fields import setting
from posttrain.models.features import FeatureSettings, features
from posttrain.policy.judges import Prompt
from posttrain.rows.tokenization import TokenizedGroup, tokenize_responses
from posttrain.studies.common.groups import StudyGroups
from posttrain.studies.common.heads import inner_folds, tuned_heads
from posttrain.studies.common.settings import FrozenSettings
from posttrain.studies.own_samples.data import AnswerSettings, Experiment

#: Share of the pairs that each head is fitted on.
MEMBER_SHARE = 0.8


@dataclass(frozen=True)
class HeadSettings(FrozenSettings, AnswerSettings):
    """Settings of the own-samples study with frozen features.

    Outer folds and a shared penalty play no part here.
    """

    max_new_tokens: int = setting(128, "Longest answer, in tokens.")
    size: int = setting(500, "Most pairs that a half, or another source, trains on.")
    seeds: int = setting(5, "Heads of each half, each of other pairs among its own.")
    half_precision: bool = setting(True, "Sample in bfloat16, which is faster.")
    sampling_batch: int = setting(128, "Answers that are drawn at a time; limits memory.")
    max_tokens: int = setting(4096, "Longest prompt with a response; prompts are cut on the left.")
    penalties: list[float] = setting(
        [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0], "L2 penalties to choose from."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        AnswerSettings.__post_init__(self)


@dataclass(frozen=True)
class Heads:
    """Linear heads on features (see :class:`.data.RewardModels`); ``[models, features]``."""

    checkpoint: Path
    kind: FeatureSettings
    heads: Tensor

    def of_answers(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> np.ndarray:
        """Scores of answers to each prompt, ``[models, prompts, samples]``."""
        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        distinct = [list(dict.fromkeys(own)) for own in texts]
        groups = [
            tokenize_responses(tokenizer, prompt, own)
            for prompt, own in zip(prompts, distinct, strict=True)
        ]
        scores = self._score(groups)
        places: list[list[int]] = []
        start = 0
        for own, all_texts in zip(distinct, texts, strict=True):
            place = {text: start + number for number, text in enumerate(own)}
            places.append([place[text] for text in all_texts])
            start += len(own)
        return scores[:, places]

    def of_pairs(self, tokens: Sequence[TokenizedGroup]) -> np.ndarray:
        """Scores of chosen and rejected, ``[models, 2, pairs]``."""
        return self._score(tokens).reshape(len(self.heads), -1, 2).swapaxes(1, 2)

    def _score(self, groups: Sequence[TokenizedGroup]) -> np.ndarray:
        return (self.heads @ features(self.checkpoint, groups, self.kind).T).numpy()


def fit(experiment: Experiment, groups: StudyGroups, indices: np.ndarray, name: str) -> Heads:
    """Heads of some pairs, each with a penalty of its own, tuned on what it is fitted on."""
    settings: HeadSettings = experiment.settings
    kind = FeatureSettings(settings.layer, settings.pooling)
    states = features(experiment.checkpoint, [groups.tokens[k] for k in indices], kind)
    pairs = states.unflatten(0, (-1, 2))
    names = np.array([groups.ranked[k].cluster_id for k in indices])
    heads = []
    for seed in range(settings.seeds):
        drawn = np.random.default_rng([settings.data_seed, seed]).permutation(len(indices))
        members = np.sort(drawn[: max(2, round(MEMBER_SHARE * len(indices)))])
        own = pairs[torch.from_numpy(members)]
        scale = own.flatten(0, 1).std(dim=0).clamp_min(1e-6)
        fitted, places = tuned_heads(
            (own[:, 0] - own[:, 1]) / scale,
            margins=torch.zeros(1, len(members)),
            weights=torch.ones(1, len(members)),
            penalties=settings.penalties,
            fold=inner_folds(names[members], settings.inner_folds),
            judged=np.ones(len(members), dtype=bool),
        )
        heads.append(fitted[0, int(places[0])] / scale)
    return Heads(experiment.checkpoint, kind, torch.stack(heads))

"""The margin study on human data: linear heads on frozen features.

Every group is tested once: folds are drawn by group (debates of ``ukpconvarg``, sentences of
``seeda``), and each fold's heads never see its groups. Inside a fold's training groups, subsets of
growing size are drawn, and the penalty is tuned on them by an inner cross-validation, again by
group. All arms × penalties × inner folds of one subset are fitted in one batch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from posttrain.config.fields import setting
from posttrain.data.splits import folds
from posttrain.errors import UserError
from posttrain.evaluation.metrics import COLUMNS, sufficient_statistics
from posttrain.models.features import FeatureSettings, features
from posttrain.rows.tokenization import Limits, tokenize_group
from posttrain.studies.common.groups import without_edit
from posttrain.studies.common.heads import inner_folds, tuned_heads
from posttrain.studies.common.settings import FrozenSettings
from posttrain.studies.margin.outcome import ARMS, Outcome, RatedPairs, length_baseline


@dataclass(frozen=True)
class HeadSettings(FrozenSettings):
    """Settings of the study with frozen features."""

    sizes: list[int] = setting([300, 1000, 3000, 10_000], "Numbers of annotated training pairs.")
    seeds: int = setting(3, "How many subsets of each size are drawn.")
    shared_penalty: float = setting(
        1e-3, "The penalty that all arms share: weak, as in an ablation that tunes nothing."
    )
    resamples: int = setting(1000, "Bootstrap replicates.")


def run(pairs: RatedPairs, checkpoint: Path, settings: HeadSettings) -> Outcome:
    """Fit and test all heads.

    Raises:
        UserError: If the shared penalty is not one of the penalties, a size exceeds the smallest
            training fold, or a fit did not converge.
    """
    winners, losers, trimmed = _pair_features(pairs, checkpoint, settings)
    splits = folds(pairs.groups, folds=settings.folds)
    smallest = min(len(training) for training, _ in splits)
    if max(settings.sizes) > smallest:
        raise UserError(
            f"size {max(settings.sizes)} exceeds the {smallest} pairs of the smallest training "
            "fold; lower sizes or raise folds"
        )
    grid = len(settings.penalties)
    shape = (len(ARMS), len(settings.sizes), settings.seeds)
    sums = np.zeros((*shape, grid, pairs.group_count, COLUMNS))
    tuned = np.zeros((*shape, pairs.group_count), dtype=int)
    examples = np.zeros((len(ARMS), grid, 2, len(pairs.groups)))
    for training, test in splits:
        test_groups = np.unique(pairs.codes[test])
        for seed in range(settings.seeds):
            order = np.random.default_rng(seed).permutation(training)
            for s, size in enumerate(settings.sizes):
                scored, best = _fit_subset(pairs, order[:size], test, winners, losers, settings)
                sums[:, s, seed] += sufficient_statistics(
                    scored[:, :, 0],
                    scored[:, :, 1],
                    pairs.strengths[test],
                    pairs.codes[test],
                    pairs.group_count,
                )
                tuned[:, s, seed, test_groups] = best[:, None]
                if seed == 0 and size == settings.sizes[-1]:
                    examples[:, :, :, test] = scored
    return Outcome(
        grid=tuple(settings.penalties),
        grid_name="penalty",
        shared=settings.penalties.index(settings.shared_penalty),
        sizes=tuple(settings.sizes),
        sums=sums,
        tuned=tuned,
        examples=examples,
        example_codes=pairs.codes,
        baselines=length_baseline(pairs, resamples=settings.resamples),
        training={"groups with a trimmed prompt": trimmed},
    )


def _pair_features(
    pairs: RatedPairs, checkpoint: Path, settings: HeadSettings
) -> tuple[Tensor, Tensor, int]:
    """Features of chosen and rejected, each ``[pairs, features]``, and how many were cut."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    # Only chosen > rejected is rated; an edited response takes no part.
    rated = [without_edit(group) for group in pairs.groups]
    limits = Limits(settings.max_tokens)
    groups = [tokenize_group(tokenizer, group, limits) for group in rated]
    response_features = features(
        checkpoint, groups, FeatureSettings(settings.layer, settings.pooling)
    )
    winners, losers = response_features.unflatten(0, (-1, 2)).unbind(1)
    return winners, losers, sum(group.trimmed > 0 for group in groups)


def _fit_subset(
    pairs: RatedPairs,
    subset: np.ndarray,
    test: np.ndarray,
    winners: Tensor,
    losers: Tensor,
    settings: HeadSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit all arms and penalties on one subset.

    Returns:
        Scores of the test pairs, ``[arms, grid, 2, test pairs]``, and the index of each arm's
        tuned penalty, ``[arms]``.
    """
    seen = torch.cat([winners[subset], losers[subset]])
    # A head has no intercept, so centring changes no difference; it gives scores a common origin.
    mean, scale = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
    differences = (winners[subset] - losers[subset]) / scale
    strengths = pairs.strengths[subset].tolist()
    heads, best = tuned_heads(
        differences,
        margins=torch.stack([arm.margins(strengths) for arm in ARMS]),
        weights=torch.stack([arm.weights(strengths) for arm in ARMS]),
        penalties=settings.penalties,
        fold=inner_folds(pairs.codes[subset], settings.inner_folds),
        # All pairs count, whatever the arm trains on, because all arms are judged on all pairs.
        judged=np.ones(len(subset), dtype=bool),
    )
    responses = torch.stack([(side[test] - mean) / scale for side in (winners, losers)])
    scored = torch.einsum("apf,wnf->apwn", heads, responses)
    return scored.numpy(), best

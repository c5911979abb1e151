"""The study of helpfulness and safety on human data: linear heads on frozen features.

Every group is tested once: folds are drawn by group, and each fold's heads never see its groups.
Penalties are tuned for each arm by an inner cross-validation on what it trains on. Candidates,
which no head is trained on, are scored by the heads of every fold; these are calibrated on the
pairs of their own fold, which they have not seen.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from posttrain.config.fields import at_least_one, setting
from posttrain.data.splits import folds
from posttrain.errors import UserError
from posttrain.evaluation import calibration
from posttrain.evaluation.calibration import Calibration
from posttrain.models.features import FeatureSettings, features
from posttrain.studies.common.heads import inner_folds, tuned_heads, typical_value
from posttrain.studies.common.settings import FrozenSettings
from posttrain.studies.tradeoff.data import DOMAINS, TradeoffData, account_of
from posttrain.studies.tradeoff.outcome import (
    ARMS,
    CALIBRATED,
    TUNINGS,
    ArmOutcome,
    Outcome,
    TestPairs,
    TradeoffSettings,
    most_groups,
)


@dataclass(frozen=True)
class HeadSettings(FrozenSettings, TradeoffSettings):
    """Settings of the study with frozen features."""

    arms: list[str] = setting(
        [arm for arm in ARMS if not ARMS[arm].auxiliary], "What heads are trained on."
    )
    size: int = setting(1000, "Training groups of a head; one arm has twice as many.")
    seeds: int = setting(3, "Repetitions, each with other training groups.")
    pairs: int = setting(750, "Most pairs of a source to train and test on.")
    folds: int = setting(5, "Outer folds, by group.")
    penalties: list[float] = setting(
        [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0, 30.0], "L2 penalties to choose from."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        TradeoffSettings.__post_init__(self)
        at_least_one(self, "pairs", "folds", "inner_folds")
        if any(ARMS[arm].auxiliary for arm in self.arms):
            raise UserError(
                "the auxiliary loss needs to know which responses are safe, which the human data "
                "do not say; leave its arm out"
            )


@dataclass(frozen=True)
class WorldFeatures:
    """Features of a world."""

    groups: Tensor  #: Of chosen and rejected of each group, ``[groups, 2, features]``.
    candidates: Tensor  #: Of each candidate, ``[responses, features]``.


def compute_features(
    checkpoint: Path, world: TradeoffData, settings: HeadSettings
) -> WorldFeatures:
    """Features of all responses, cached by source."""
    kind = FeatureSettings(settings.layer, settings.pooling)
    parts: dict[str, Tensor] = {}
    for name in dict.fromkeys(world.sources.tolist()):
        tokens = [world.tokens[k] for k in np.flatnonzero(world.sources == name).tolist()]
        parts[name] = features(checkpoint, tokens, kind)
    size = next(iter(parts.values())).shape[1]
    groups = torch.zeros(len(world.tokens), 2, size)
    for name, part in parts.items():
        groups[torch.from_numpy(world.sources == name)] = part.unflatten(0, (-1, 2))
    return WorldFeatures(groups, features(checkpoint, world.candidates.tokens, kind))


def run(checkpoint: Path, world: TradeoffData, settings: HeadSettings) -> Outcome:
    """Fit and test all heads.

    Raises:
        UserError: If there are too few training groups, a fit did not converge, or a head cannot
            be calibrated (see :func:`.calibration.fit`).
    """
    domains = world.domains
    splits = folds(world.ranked, folds=settings.folds, seed=settings.data_seed)
    needed = most_groups(settings.size, settings.arms)
    # Before features are computed, which takes long.
    for training, _ in splits:
        for domain in DOMAINS:
            available = int((domains[training] == domain).sum())
            if needed[domain] > available:
                raise UserError(
                    f"the arms need {needed[domain]} training groups of {domain}, and a fold has "
                    f"{available}; lower size or raise pairs"
                )
    world_features = compute_features(checkpoint, world, settings)
    everything = np.arange(len(world.tokens))
    pairs = {
        arm: np.zeros((len(TUNINGS), settings.seeds, len(everything), 2)) for arm in settings.arms
    }
    candidates: dict[str, list[np.ndarray]] = {arm: [] for arm in settings.arms}
    calibrations: dict[str, list[Calibration]] = {arm: [] for arm in settings.arms}
    tuned: dict[str, list[int]] = {arm: [] for arm in settings.arms}
    for seed in range(settings.seeds):
        for training, test in splits:
            random = np.random.default_rng(seed)
            orders = {
                domain: random.permutation(training[domains[training] == domain])
                for domain in DOMAINS
            }
            for arm in settings.arms:
                counts = ARMS[arm].counts(settings.size)
                members = np.concatenate([orders[name][: counts[name]] for name in DOMAINS])
                heads, place, scale = _fit(world_features, world, members, settings)
                tuned[arm].append(place)
                scored = (world_features.groups[test] / scale) @ heads.T
                pairs[arm][:, seed, test] = scored.movedim(-1, 0).numpy()
                candidates[arm].append(((world_features.candidates / scale) @ heads[0]).numpy())
                if arm in CALIBRATED:
                    own = test[domains[test] == CALIBRATED[arm]]
                    calibrations[arm].append(calibration.fit(*pairs[arm][0, seed, own].T))
    tested = TestPairs.from_data(world, everything)
    return Outcome(
        tested,
        world.candidates,
        {
            arm: ArmOutcome(pairs[arm], np.stack(candidates[arm]), calibrations[arm])
            for arm in settings.arms
        },
        pd.DataFrame(
            [(arm, *typical_value(settings.penalties, places)) for arm, places in tuned.items()],
            columns=["arm", "penalty", "at edge"],
        ),
        account_of(world) | {"test pairs": len(everything), "clusters": tested.clusters},
    )


def _fit(
    world_features: WorldFeatures, world: TradeoffData, members: np.ndarray, settings: HeadSettings
) -> tuple[Tensor, int, Tensor]:
    """Heads with the tuned and with the shared penalty, ``[2, features]``.

    Also the index of the tuned penalty, and by what features are divided first.
    """
    known = world_features.groups[members]
    scale = known.flatten(0, 1).std(dim=0).clamp_min(1e-6)
    differences = (known[:, 0] - known[:, 1]) / scale
    names = [world.ranked[i].cluster_id for i in members]
    heads, places = tuned_heads(
        differences,
        margins=torch.zeros(1, len(members)),
        weights=torch.ones(1, len(members)),
        penalties=settings.penalties,
        fold=inner_folds(names, settings.inner_folds),
        judged=np.ones(len(members), dtype=bool),
    )
    place = int(places[0])
    return heads[0, [place, settings.penalties.index(settings.shared_penalty)]], place, scale

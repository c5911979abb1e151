"""Training the arms of the recipe study: the tiny Llama in full, on simulated pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from transformers import PreTrainedModel

from posttrain.config.fields import at_least_one, setting
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.models import reward_model
from posttrain.policy.averaging import average
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.common.groups import DataSettings, Prepared
from posttrain.studies.common.training import Recipe, train
from posttrain.studies.recipe import starts
from posttrain.studies.recipe.keys import Combined, Dropped, Start
from posttrain.training.collator import TrainingGroup, TrainingPair

#: Models that are averaged, at most.
MEMBERS = 8
#: Share of the training pairs that each of them is trained on.
MEMBER_SHARE = 0.8
#: Share of the pairs that are dropped.
DROPPED_SHARE = 0.25


@dataclass(frozen=True)
class RecipeSettings(Recipe, DataSettings):
    """Settings of the recipe study."""

    groups: int = setting(8000, "Groups to simulate.")
    sizes: list[int] = setting([300, 3000], "Numbers of training pairs of each start.")
    size: int = setting(2000, "Training pairs where pairs are dropped or models averaged.")
    test_size: int = setting(2000, "Test pairs, at most.")
    seeds: int = setting(6, "Repetitions, each with other pairs, order and score head.")
    learning_rates: list[float] = setting([1e-3, 3e-3, 1e-2], "Peak learning rates to choose from.")
    noises: list[float] = setting([0.0, 0.2], "Shares of training pairs turned round.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    validation_share: float = setting(0.2, "Share of training groups that judge learning rates.")

    def __post_init__(self) -> None:
        at_least_one(self, "size", "test_size", "seeds", "resamples")
        if not self.learning_rates or not self.sizes or min(self.sizes) < 1:
            raise UserError("give learning_rates, and sizes of 1 or more")
        if not self.noises or not all(0 <= noise < 0.5 for noise in self.noises):
            raise UserError(f"noises must lie from 0 to below 0.5, not {self.noises}")


#: A trained model and the id of its padding token.
Fitted = tuple[PreTrainedModel, int]


@dataclass(frozen=True)
class Experiment:
    """Prepared pairs and settings: what all trainings share."""

    prepared: Prepared
    settings: RecipeSettings

    def subset(self, seed: int, size: int) -> np.ndarray:
        """Training pairs of a seed."""
        return np.random.default_rng(seed).permutation(self.prepared.training)[:size]

    def divided(self, subset: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of a subset to fit, and those that judge; no split group is in both."""
        ranked = [self.prepared.ranked[i] for i in subset]
        fitting, held = split(ranked, test_fraction=self.settings.validation_share, seed=seed)
        return subset[fitting], subset[held]

    def fit(
        self,
        pairs: np.ndarray,
        *,
        start: str = Start.PRETRAINED,
        rate: float,
        seed: int,
        head_seed: int | None = None,
        turned: np.ndarray | None = None,
    ) -> Fitted:
        """Train on some pairs; those ``turned``, of all pairs, the wrong way round."""
        groups = [
            TrainingGroup(
                self.prepared.tokens[i],
                (TrainingPair(1, 0) if turned is not None and turned[i] else TrainingPair(0, 1),),
            )
            for i in pairs
        ]
        return train(
            starts.checkpoint(start), groups, LAYOUTS["separate"], self.settings,
            learning_rate=rate, seed=seed, head_seed=head_seed,
        )  # fmt: skip

    def score(self, model: PreTrainedModel, pad_token_id: int, pairs: np.ndarray) -> np.ndarray:
        """Scores of chosen and rejected, ``[2, pairs]``."""
        tokens = [self.prepared.tokens[i] for i in pairs]
        scores = reward_model.score(model, tokens, pad_token_id=pad_token_id, batch_tokens=2048)
        return scores.unflatten(0, (-1, 2)).T.numpy()

    def best_rate(
        self, subset: np.ndarray, seed: int, fit: Callable[[np.ndarray, float], Fitted]
    ) -> float:
        """The learning rate with the best accuracy on held-out pairs of a subset.

        ``fit`` trains on those that are not held out, at a learning rate.
        """
        rates = self.settings.learning_rates
        if len(rates) == 1:
            return rates[0]
        fitting, held = self.divided(subset, seed)
        accuracies = [_accuracy(self.score(*fit(fitting, rate), held)) for rate in rates]
        return rates[int(np.argmax(accuracies))]


def _accuracy(scores: np.ndarray) -> float:
    winners, losers = scores
    return float(np.mean((winners > losers) + 0.5 * (winners == losers)))


def by_start(experiment: Experiment, size: int, seed: int) -> dict[str, np.ndarray]:
    """Test scores of a model from each start, ``[1, 2, pairs]``, at its own learning rate."""
    subset = experiment.subset(seed, size)

    def scores(start: str) -> np.ndarray:
        def fit(pairs: np.ndarray, rate: float) -> Fitted:
            return experiment.fit(pairs, start=start, rate=rate, seed=seed)

        rate = experiment.best_rate(subset, seed, fit)
        return experiment.score(*fit(subset, rate), experiment.prepared.test)[None]

    return {str(start): scores(start) for start in Start}


def by_dropped(experiment: Experiment, seed: int) -> dict[str, np.ndarray]:
    """Test scores of models trained without some of the pairs, ``[1, 2, pairs]``."""
    subset = experiment.subset(seed, experiment.settings.size)
    alike = similarities(experiment.prepared)

    def kept(pairs: np.ndarray, dropped: str) -> np.ndarray:
        count = round(DROPPED_SHARE * len(pairs))
        if dropped == Dropped.NONE:
            return pairs
        if dropped == Dropped.RANDOM:
            return np.random.default_rng(seed).permutation(pairs)[count:]
        return pairs[np.sort(np.argsort(-alike[pairs], kind="stable")[count:])]

    def scores(dropped: str) -> np.ndarray:
        def fit(pairs: np.ndarray, rate: float) -> Fitted:
            return experiment.fit(kept(pairs, dropped), rate=rate, seed=seed)

        rate = experiment.best_rate(subset, seed, fit)
        return experiment.score(*fit(subset, rate), experiment.prepared.test)[None]

    return {str(dropped): scores(dropped) for dropped in Dropped}


def similarities(prepared: Prepared) -> np.ndarray:
    """How alike chosen and rejected are, word by word, from 0 to 1, ``[groups]``.

    It is the ratio of :class:`difflib.SequenceMatcher`: twice the words in common over all words.
    """
    pairs = [(group.chosen.split(), group.rejected.split()) for group in prepared.ranked]
    return np.array([SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in pairs])


def by_combination(experiment: Experiment, noise: float, seed: int) -> dict[str, np.ndarray]:
    """Test scores of several models, and of what is made of them, each ``[models, 2, pairs]``.

    Members differ in the pairs that they see (:data:`MEMBER_SHARE` of them) and in their order;
    they start from one score head, or from heads of their own.
    """
    settings, test = experiment.settings, experiment.prepared.test
    subset = experiment.subset(seed, settings.size)
    random = np.random.default_rng([seed, round(1000 * noise)])
    turned = random.random(len(experiment.prepared.ranked)) < noise
    fitting, held = experiment.divided(subset, seed)
    rate = experiment.best_rate(
        subset,
        seed,
        lambda pairs, rate: experiment.fit(pairs, rate=rate, seed=seed, turned=turned),
    )

    def members(own_heads: bool) -> list[Fitted]:
        return [
            experiment.fit(
                np.random.default_rng([seed, m]).permutation(fitting)[
                    : round(MEMBER_SHARE * len(fitting))
                ],
                rate=rate,
                seed=1000 * seed + m,
                head_seed=None if own_heads else seed,
                turned=turned,
            )
            for m in range(MEMBERS)
        ]

    def scored(models: Sequence[Fitted], pairs: np.ndarray) -> np.ndarray:
        return np.array([experiment.score(*model, pairs) for model in models])

    together = members(own_heads=False)
    singles = scored(together, test)
    # Members are judged by labels as noisy as those that they were trained on.
    flip = np.where(turned[held], -1, 1)
    judged = [(flip * (one[0] - one[1]) > 0).mean() for one in scored(together, held)]
    scores: dict[str, np.ndarray] = {
        Combined.SINGLE: singles,
        Combined.BEST: singles[[int(np.argmax(judged))]],
    }
    for count, mean, ensemble in (
        (2, Combined.AVERAGE_2, Combined.ENSEMBLE_2),
        (4, Combined.AVERAGE_4, Combined.ENSEMBLE_4),
        (8, Combined.AVERAGE_8, Combined.ENSEMBLE_8),
    ):
        scores[mean] = scored([averaged(together[:count])], test)
        scores[ensemble] = singles[:count].mean(axis=0, keepdims=True)
    apart = members(own_heads=True)
    scores[Combined.OWN_AVERAGE] = scored([averaged(apart)], test)
    scores[Combined.OWN_ENSEMBLE] = scored(apart, test).mean(axis=0, keepdims=True)
    whole = experiment.fit(fitting, rate=rate, seed=1000 * seed, head_seed=seed, turned=turned)
    scores[Combined.ALL_DATA] = scored([whole], test)
    return scores


def averaged(models: Sequence[Fitted]) -> Fitted:
    """The average of some models, and its padding token."""
    return average([model for model, _ in models]), models[0][1]

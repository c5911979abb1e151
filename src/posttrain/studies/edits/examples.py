"""Single triples: scores before and after training on edits, and how each pair moves them.

A small gradient step on one pair's loss changes the scores of all three responses, not only those
of the pair, because responses share words, a prompt and the model's weights. To first order, a step
on winner w over loser l with score difference Δ changes the score of response k in proportion to

    σ(−Δ) (G[k, w] − G[k, l]),    G[j, k] = ∇r_j · ∇r_k,

where ∇r_j is the gradient of the score of response j by all trained weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import RESPONSES
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.models import reward_model
from posttrain.models.architecture import freeze_below
from posttrain.models.float64 import compute_in_double
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.groups import DataSettings, checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.common.training import Recipe, train
from posttrain.studies.edits.data import EditGroups, choose, load_edits, training_groups
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.metrics import KINDS, edit_metrics
from posttrain.studies.edits.outcome import ARMS

ARM = ARMS[ArmName.ALL]


@dataclass(frozen=True)
class ExampleSettings(Recipe, DataSettings):
    """Settings of the examples."""

    edited_share: float = setting(1.0, "Share of simulated groups that may carry an edit.")
    size: int = setting(500, "Training groups, all with an edit.")
    test_size: int = setting(500, "Test groups with an edit, at most.")
    shown: int = setting(3, "Test groups to show.")
    words: int = setting(60, "Longest response to show, in words.")
    learning_rate: float = setting(3e-3, "Peak learning rate.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    seed: int = setting(0, "Seeds the score head and the order of groups.")

    def __post_init__(self) -> None:
        at_least_one(self, "size", "test_size", "shown", "words", "resamples")


@dataclass(frozen=True)
class HumanExampleSettings(ExampleSettings):
    """The same with defaults for human data: SmolLM2's top layers, which a CPU can train."""

    size: int = setting(150, "Training groups, all with an edit.")
    test_size: int = setting(100, "Test groups with an edit, at most.")
    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    batch_size: int = setting(16, "Groups per step.")
    learning_rate: float = setting(1e-4, "Peak learning rate.")


def measure(source: str, settings: ExampleSettings, cache_dir: Path | None) -> Measured:
    """Train on all pairs of edited groups, and look at a few held-out ones before and after.

    Returns:
        The tables

        - ``accuracy``: after training, by ``metric``, on all test groups with an edit, with 95 %
          intervals over split groups;
        - ``examples``: by ``example`` and ``role`` (prompt, edited, chosen, rejected), ``text`` and
          the score ``before`` and ``after``;
        - ``moves``: by ``example`` and ``pair``, how a step on that pair moves ``edited``,
          ``chosen`` and ``rejected`` before training; the largest of an example is 1.

    Raises:
        UserError: If the data has too few edited groups, or none that is short enough to show.
    """
    checkpoint = checkpoint_for(source)
    groups = load_edits(source, checkpoint, settings)
    training, test = split(
        groups.ranked, test_fraction=settings.test_share, seed=settings.data_seed
    )
    with_edit = np.random.default_rng(settings.seed).permutation(
        training[groups.edits[training] >= 0]
    )
    if len(with_edit) < settings.size:
        raise UserError(
            f"size {settings.size} exceeds the {len(with_edit)} training groups with an edit; "
            "lower size or use more groups"
        )
    judged = np.random.default_rng(settings.seed).permutation(test[groups.edits[test] >= 0])
    judged = judged[: settings.test_size]
    shown = _shown(groups, judged, settings)

    before, _ = reward_model.load(checkpoint, seed=settings.seed)
    compute_in_double(before)
    freeze_below(before, settings.top_layers)
    chosen = choose(with_edit, groups.edits, ARM, settings.size, 1.0)
    after, pad_token_id = train(
        checkpoint, training_groups(groups, ARM, chosen), LAYOUTS["exact"], settings,
        learning_rate=settings.learning_rate, seed=settings.seed,
    )  # fmt: skip
    tokens = [groups.tokens[i] for i in judged]
    scores = {
        stage: reward_model.score(
            model, tokens, pad_token_id=pad_token_id, layout=LAYOUTS["exact"]
        ).numpy()
        for stage, model in (("before", before), ("after", after))
    }
    place = {int(i): 3 * k for k, i in enumerate(judged)}
    texts, moves = [], []
    for number, i in enumerate(shown, start=1):
        group, first = groups.ranked[i], place[int(i)]
        texts.append((number, "prompt", group.prompt[-1].content, np.nan, np.nan))
        for k, (role, text) in enumerate(zip(RESPONSES, group.responses, strict=True)):
            both = (scores[stage][first + k] for stage in ("before", "after"))
            texts.append((number, role, text, *both))
        moves += [(number, *row) for row in _moves(before, groups.tokens[i], pad_token_id)]
    return Measured(
        data=groups.account
        | {"test groups with an edit": len(judged), "edits trained on": len(chosen.edited)},
        tables={
            "accuracy": _accuracy(groups, judged, scores["after"], settings.resamples),
            "examples": pd.DataFrame(texts, columns=["example", "role", "text", "before", "after"]),
            "moves": pd.DataFrame(moves, columns=["example", "pair", *RESPONSES]),
        },
    )


def _shown(groups: EditGroups, judged: np.ndarray, settings: ExampleSettings) -> list[int]:
    """The first groups that are short enough, one a prompt."""
    firsts: dict[str, int] = {}
    for i in judged:
        group = groups.ranked[i]
        if max(len(text.split()) for text in group.responses) <= settings.words:
            firsts.setdefault(group.cluster_id, int(i))
    if not firsts:
        raise UserError(
            f"no test group with an edit has responses of at most {settings.words} words; raise "
            "words"
        )
    return list(firsts.values())[: settings.shown]


def score_kernel(
    model: PreTrainedModel, group: TokenizedGroup, *, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """Scores of a group, ``[responses]``, and G of the module, ``[responses, responses]``.

    Weights that are not trained do not count.
    """
    batch = lay_out([group], LAYOUTS["exact"], pad_token_id=pad_token_id).to(model.device)
    scores = reward_model.forward_scores(model, batch)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = []
    for score in scores:
        parts = torch.autograd.grad(score, weights, retain_graph=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    stacked = torch.stack(gradients)
    return scores.detach(), stacked @ stacked.T


def pair_moves(scores: Tensor, kernel: Tensor, winner: int, loser: int) -> Tensor:
    """How a small step on one pair moves all scores, up to the step size; ``[responses]``."""
    slack = torch.sigmoid(scores[loser] - scores[winner])
    return slack * (kernel[:, winner] - kernel[:, loser])


def _moves(
    model: PreTrainedModel, group: TokenizedGroup, pad_token_id: int
) -> list[tuple[Any, ...]]:
    scores, kernel = score_kernel(model, group, pad_token_id=pad_token_id)
    pairs = [tuple(map(RESPONSES.index, kind.split(" > "))) for kind in KINDS]
    moves = torch.stack([pair_moves(scores, kernel, *pair) for pair in pairs])
    moves = moves / moves.abs().max()
    return [(kind, *row.tolist()) for kind, row in zip(KINDS, moves, strict=True)]


def _accuracy(
    groups: EditGroups, judged: np.ndarray, scores: np.ndarray, resamples: int
) -> pd.DataFrame:
    """Accuracy by kind of pair; before training it would be a coin flip, that of a random head."""
    pairs = groups.pairs(judged)
    draws = Resamples.draw(pairs.group_count, 1, count=resamples)
    measured = draws.measure(pairs.sums(scores)[None], edit_metrics)
    table = TidyTable("metric")
    table.add_metrics(metrics={str(kind): measured[kind] for kind in KINDS})
    return table.frame()


STUDY = Study(
    "edit-examples",
    "what training on edits does to single triples",
    measure,
    simulated=ExampleSettings,
    human=HumanExampleSettings,
)

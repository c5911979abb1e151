"""The study of one training run: what ``posttrain train`` bought, against what costs less.

A finished run is judged on the groups that it held out, beside two baselines on the same pairs: the
longer response, and linear heads on frozen features of the model it started from, fitted on the
groups that it trained on and tuned by cross-validation among them. Differences are paired.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME

from posttrain.config.fields import setting
from posttrain.data.columns import parse_columns
from posttrain.data.mixing import parse_mix
from posttrain.data.preferences import RankedGroup
from posttrain.data.store import Stored, stored
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.evaluation.metrics import Metric, sufficient_statistics
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.evidence import records
from posttrain.models import embedded, reward_model
from posttrain.models.features import FeatureSettings, Pooling, features
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import Limits, TokenizedGroup, TooLongError, tokenize_group
from posttrain.studies.common.heads import inner_folds, tuned_heads
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable, difference
from posttrain.studies.training_run.keys import Scorer

#: A group with its token ids.
Tokens = tuple[RankedGroup, TokenizedGroup]
METRICS: tuple[str, ...] = (
    Metric.ACCURACY,
    Metric.ACCURACY_1,
    Metric.ACCURACY_2,
    Metric.ACCURACY_3,
    Metric.ACCURACY_4,
    Metric.LOG_LIKELIHOOD,
)


@dataclass(frozen=True)
class TrainingRunSettings:
    """Settings of the study."""

    runs: str = setting("runs/output", "Folder of the run's folder; --source names the run.")
    penalties: list[float] = setting(
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0], "The heads' L2 penalties."
    )
    inner_folds: int = setting(3, "Folds of the training groups, for tuning the heads.")
    layer: int | None = setting(
        None, "How many layers of the backbone the heads read; by default four fifths of them."
    )
    pooling: Pooling = setting("mean", "How hidden states become one vector.")
    resamples: int = setting(1000, "Bootstrap replicates.")


def measure(source: str, settings: TrainingRunSettings, cache_dir: Path | None) -> Measured:
    """Judge the finished run whose folder the source names.

    Returns:
        Tables: ``history`` (what each log said, by ``step``; empty if nothing was logged),
        ``accuracy`` (each of :data:`METRICS` of the trained model and the baselines, with
        intervals), ``differences`` (the trained model minus each baseline), ``groups`` (accuracy by
        held-out ``group``). Data: the run's own account. Environment: the run's own, with the
        machine that judged it as ``judged``.

    Raises:
        UserError: If there is no such finished run, it held nothing out, or it does
            not reproduce the accuracy that it reported.
    """
    started = time.time()
    folder = Path(settings.runs) / source
    try:
        account = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no finished run; posttrain train makes one") from None
    chosen = account["settings"]
    checkpoint = Path(embedded.find(chosen["model"]))
    if settings.layer is None:
        layers = AutoConfig.from_pretrained(checkpoint).get_text_config().num_hidden_layers
        settings = replace(settings, layer=layers * 4 // 5)
    model, tokenizer = reward_model.load(folder)
    limits = limits_for(
        model, LAYOUTS["separate"], max_tokens=chosen["max_tokens"], skip_too_long=True
    )
    training, held_out = (_fitting(part, tokenizer, limits) for part in _groups(chosen, folder))
    ranked = [group for group, _ in held_out]
    scores: dict[str, np.ndarray] = {
        Scorer.TRAINED: _trained_scores(model, tokenizer, ranked, limits)
    }
    scores[Scorer.LENGTH] = np.array(
        [[len(g.chosen), len(g.rejected)] for g in ranked], dtype=float
    )
    scores |= _head_scores(checkpoint, training, held_out, chosen["min_strength"], settings)
    measured, by_group = _measure(scores, ranked, settings.resamples)
    _check_reproduced(measured[Scorer.TRAINED][Metric.ACCURACY][0], account["evaluation"], folder)
    return Measured(
        settings={
            "run": account["settings"],
            "training": account["training"],
            # Where the folder lay says nothing about what was run.
            "study": {name: value for name, value in asdict(settings).items() if name != "runs"},
        },
        data=account["data"] | {"steps": account["steps"], "clusters": len(by_group)},
        tables={
            "history": _history(folder),
            "accuracy": _table(measured),
            "differences": _table(
                {
                    name: difference(measured[Scorer.TRAINED], values)
                    for name, values in measured.items()
                    if name != Scorer.TRAINED
                }
            ),
            "groups": by_group,
        },
        environment=account["environment"] | {"judged": records.environment(started)},
    )


def _check_reproduced(measured: float, reported: dict[str, Any], folder: Path) -> None:
    accuracy = reported.get("accuracy")
    # A sharded run was evaluated by the trainer, on the pairs of its pairing.
    if accuracy is not None and abs(measured - accuracy["estimate"]) > 0.01:
        raise UserError(
            f"on the held-out groups, the model of {folder} is right in {measured:.1%} of pairs, "
            f"and said so of {accuracy['estimate']:.1%} when it was trained: the data have "
            "changed, or the folder; train again"
        )


def _groups(chosen: dict[str, Any], folder: Path) -> tuple[Stored, Stored]:
    """What the run trained on and what it held out, as :mod:`posttrain.commands.train` has it."""
    # Records of earlier versions know no least difference, and no columns.
    names = ("skip_bad", "min_difference")
    read_by: dict[str, Any] = {name: chosen[name] for name in names if name in chosen}
    read_by["columns"] = parse_columns(chosen.get("columns"))
    training = stored(chosen["data"], **read_by)
    if chosen["eval_data"]:
        held_out = stored(chosen["eval_data"], **read_by)
    elif chosen["eval_fraction"]:
        training, held_out = training.split(
            test_fraction=chosen["eval_fraction"], seed=chosen["split_seed"]
        )
    else:
        raise UserError(f"the run in {folder} held nothing out that it could be judged by")
    # Records of earlier versions know no mix.
    if chosen.get("mix") is not None:
        training = training.mixed(parse_mix(chosen["mix"]), seed=chosen["split_seed"])
    return training, held_out


def _fitting(
    groups: Iterable[RankedGroup], tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> list[Tokens]:
    """Groups whose responses are not too long, as in the run's own evaluation, tokenised."""
    fitting = []
    for group in groups:
        try:
            tokens = tokenize_group(tokenizer, group, limits, keep_equal=True)
        except TooLongError:
            continue
        fitting.append((group, tokens))
    return fitting


def _trained_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    groups: list[RankedGroup],
    limits: Limits,
) -> np.ndarray:
    """Scores of chosen and rejected, ``[groups, 2]``."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    scored = score_groups(model, tokenizer, groups, LAYOUTS["separate"], limits)
    return np.array([[group.scores["chosen"], group.scores["rejected"]] for group in scored])


def _head_scores(
    checkpoint: Path,
    training: list[Tokens],
    held_out: list[Tokens],
    min_strength: int,
    settings: TrainingRunSettings,
) -> dict[str, np.ndarray]:
    """The same by heads: on the strengths that the run trained on, and on all of them."""
    assert settings.layer is not None
    tokens = [tokenized for _, tokenized in training + held_out]
    # An edited response takes no part.
    counts = [len(group.responses) for group in tokens]
    rated = [
        group.in_order((count - 2, count - 1)) for group, count in zip(tokens, counts, strict=True)
    ]
    response_features = features(
        checkpoint, rated, FeatureSettings(settings.layer, settings.pooling)
    )
    sides = response_features.unflatten(0, (-1, 2)).double()
    seen = sides[: len(training)].flatten(0, 1)
    # A head has no intercept, so centring changes no difference.
    sides = (sides - seen.mean(dim=0)) / seen.std(dim=0).clamp_min(1e-6)
    strong = np.array([(group.strength or 4) >= min_strength for group, _ in training])
    arms = (
        {Scorer.HEAD: strong}
        if strong.all()
        else {Scorer.HEAD: strong, Scorer.HEAD_ALL: np.ones_like(strong)}
    )
    names = [group.cluster_id for group, _ in training]
    weights = torch.from_numpy(np.stack(list(arms.values()))).to(sides)
    fitted = sides[: len(training)]
    heads, best = tuned_heads(
        fitted[:, 0] - fitted[:, 1],
        margins=torch.zeros_like(weights),
        weights=weights,
        penalties=settings.penalties,
        fold=inner_folds(names, settings.inner_folds),
        judged=strong,
    )
    tested: Tensor = sides[len(training) :]
    return {
        name: torch.einsum("gsf,f->gs", tested, heads[k, best[k]]).numpy()
        for k, name in enumerate(arms)
    }


def _measure(
    scores: dict[str, np.ndarray], groups: list[RankedGroup], resamples: int
) -> tuple[dict[str, dict[str, np.ndarray]], pd.DataFrame]:
    """Replicates of every metric of every scorer, and accuracies by held-out group."""
    names, codes = np.unique([group.cluster_id for group in groups], return_inverse=True)
    strengths = np.array([group.strength or 0 for group in groups])
    drawn = Resamples.draw(len(names), 1, count=resamples)
    sums = {
        name: sufficient_statistics(scored[:, 0], scored[:, 1], strengths, codes, len(names))
        for name, scored in scores.items()
    }
    measured = {
        name: {metric: drawn.measure(summed[None])[metric] for metric in METRICS}
        for name, summed in sums.items()
    }
    rows = []
    for number, name in enumerate(names):
        right = {
            scorer: float((scored[:, 0] > scored[:, 1])[codes == number].mean())
            for scorer, scored in scores.items()
        }
        rows.append({"group": str(name), "pairs": int((codes == number).sum())} | right)
    return measured, pd.DataFrame(rows)


def _table(measured: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    table = TidyTable("scorer", "metric")
    for name, by_metric in measured.items():
        for metric, replicates in by_metric.items():
            # A length is no log-odds, so its likelihood says nothing.
            if (name, metric) != (Scorer.LENGTH, Metric.LOG_LIKELIHOOD):
                table.add(name, metric, replicates=replicates)
    return table.frame()


def _history(folder: Path) -> pd.DataFrame:
    """What each log said while the run trained."""
    columns = ["step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm", "score_mean"]
    columns += ["score_std", "ties", "pairs_per_second", "tokens_per_second", "padding"]
    # Runs of earlier versions kept it in their checkpoints only.
    earlier = sorted(
        folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: p.stat().st_mtime
    )
    existing = [path for path in (*earlier, folder / TRAINER_STATE_NAME) if path.exists()]
    if not existing:
        return pd.DataFrame(columns=columns, dtype=float)
    state = json.loads(existing[-1].read_text(encoding="utf-8"))
    logs = [entry for entry in state["log_history"] if "loss" in entry]
    return pd.DataFrame(logs).reindex(columns=columns)


STUDY = Study(
    "training",
    "what a finished run of posttrain train bought (--source: the run's name)",
    measure,
    simulated=TrainingRunSettings,
    human=TrainingRunSettings,
)

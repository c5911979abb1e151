"""The study of one training run: what ``posttrain train`` bought, against what costs less.

A finished run is judged on the groups that it held out, beside two baselines on the same pairs: the
longer response, and linear heads on frozen features of the model it started from, fitted on the
groups that it trained on and tuned by cross-validation among them. Differences are paired.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor
from transformers import AutoTokenizer

from posttrain import checkpoints, records, reward_model
from posttrain.dataset import Stored, stored
from posttrain.evaluation import Resamples, interval, sums_by_group
from posttrain.preferences import RankedGroup
from posttrain.probe import FeatureSettings, Pooling, features
from posttrain.rows import LAYOUTS
from posttrain.scoring import limits_for, score_groups
from posttrain.settings import setting
from posttrain.studies.heads import tuned_heads
from posttrain.tokenization import tokenize_group

TRAINED = "the trained model"
LENGTH = "the longer response"
HEAD = "a head on frozen features"
HEAD_ALL = "a head, also on weak pairs"
METRICS = ("accuracy", "accuracy 1", "accuracy 2", "accuracy 3", "accuracy 4", "log-likelihood")


@dataclass(frozen=True)
class TrainingRunSettings:
    """Settings of the study."""

    runs: str = setting("runs/output", "Folder of the run's folder; --source names the run.")
    penalties: list[float] = setting(
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0], "The heads' L2 penalties."
    )
    inner_folds: int = setting(3, "Folds of the training groups, for tuning the heads.")
    layer: int = setting(24, "How many layers of the backbone the heads read.")
    pooling: Pooling = setting("mean", "How hidden states become one vector.")
    resamples: int = setting(1000, "Bootstrap replicates.")


def settings_for(source: str) -> type[TrainingRunSettings]:
    """The settings, whatever the run."""
    return TrainingRunSettings


def run(
    source: str, *, settings: TrainingRunSettings | None = None, profile: str = "custom"
) -> records.Record:
    """Judge a finished run.

    Args:
        source: Name of the run's folder.
        settings: Default ones if not given.
        profile: Label of how much was run.

    Returns:
        The record, not yet saved. Tables: ``history`` (what each log said, by ``step``),
        ``accuracy`` (each of :data:`METRICS` of the trained model and the baselines, with
        intervals), ``differences`` (the trained model minus each baseline), ``groups`` (accuracy by
        held-out ``group``). Data: the run's own account. Environment: the run's own, with the
        machine that judged it as ``judged``.

    Raises:
        ValueError: If there is no such finished run, it held nothing out, or it does
            not reproduce the accuracy that it reported.
    """
    started = time.time()
    settings = settings or TrainingRunSettings()
    folder = Path(settings.runs) / source
    try:
        account = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no finished run; posttrain train makes one") from None
    training, held_out = _groups(account, folder)
    scores = {TRAINED: _trained_scores(folder, held_out, account["settings"])}
    scores[LENGTH] = np.array([[len(g.chosen), len(g.rejected)] for g in held_out], dtype=float)
    scores |= _head_scores(training, held_out, account["settings"], settings)
    measured, by_group = _measure(scores, held_out, settings.resamples)
    found, reported = measured[TRAINED]["accuracy"][0], account["evaluation"]["accuracy"]
    if abs(found - reported["estimate"]) > 0.01:
        raise ValueError(
            f"on the held-out groups, the model of {folder} is right in {found:.1%} of pairs, and "
            f"said so of {reported['estimate']:.1%} when it was trained: the data have changed, or "
            "the folder; train again"
        )
    state = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda p: p.stat().st_mtime)
    return records.Record(
        study="training",
        source=source,
        profile=profile,
        settings={
            "run": account["settings"],
            "training": account["training"],
            # Where the folder lay says nothing about what was run.
            "study": {name: value for name, value in asdict(settings).items() if name != "runs"},
        },
        data=account["data"] | {"steps": account["steps"]},
        tables={
            "history": _history(json.loads(state[-1].read_text(encoding="utf-8"))),
            "accuracy": _table(measured),
            "differences": _table(
                {
                    name: {metric: measured[TRAINED][metric] - values[metric] for metric in values}
                    for name, values in measured.items()
                    if name != TRAINED
                }
            ),
            "groups": by_group,
        },
        environment=account["environment"] | {"judged": records.environment(started)},
    )


def _groups(account: dict[str, Any], folder: Path) -> tuple[list[RankedGroup], list[RankedGroup]]:
    """What the run trained on and what it held out, as far as annotators compared them."""
    chosen = account["settings"]
    found = stored(chosen["data"], skip_bad=chosen["skip_bad"])
    held_out: Stored
    if chosen["eval_data"]:
        held_out = stored(chosen["eval_data"], skip_bad=chosen["skip_bad"])
    elif chosen["eval_fraction"]:
        found, held_out = found.split(
            test_fraction=chosen["eval_fraction"], seed=chosen["split_seed"]
        )
    else:
        raise ValueError(f"the run in {folder} held nothing out that it could be judged by")
    return list(found), list(held_out)


def _trained_scores(folder: Path, groups: list[RankedGroup], chosen: dict[str, Any]) -> np.ndarray:
    """Scores of chosen and rejected, ``[groups, 2]``."""
    model, tokenizer = reward_model.load(folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    layout = LAYOUTS["separate"]
    limits = limits_for(model, layout, max_tokens=chosen["max_tokens"])
    scored = score_groups(model, tokenizer, groups, layout, limits)
    return np.array([[one.scores["chosen"], one.scores["rejected"]] for one in scored])


def _head_scores(
    training: list[RankedGroup],
    held_out: list[RankedGroup],
    chosen: dict[str, Any],
    settings: TrainingRunSettings,
) -> dict[str, np.ndarray]:
    """The same by heads: on the strengths that the run trained on, and on all of them."""
    checkpoint = Path(checkpoints.find(chosen["model"]))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokens = [
        tokenize_group(tokenizer, group, max_tokens=chosen["max_tokens"], keep_equal=True)
        for group in training + held_out
    ]
    # An edited response takes no part.
    counts = [len(group.responses) for group in tokens]
    rated = [
        group.in_order((count - 2, count - 1)) for group, count in zip(tokens, counts, strict=True)
    ]
    found = features(checkpoint, rated, FeatureSettings(settings.layer, settings.pooling))
    sides = found.unflatten(0, (-1, 2)).double()
    seen = sides[: len(training)].flatten(0, 1)
    # A head has no intercept, so centring changes no difference.
    sides = (sides - seen.mean(dim=0)) / seen.std(dim=0).clamp_min(1e-6)
    strong = np.array([(group.strength or 4) >= chosen["min_strength"] for group in training])
    arms = {HEAD: strong} if strong.all() else {HEAD: strong, HEAD_ALL: np.ones_like(strong)}
    fold = np.zeros(len(training), dtype=int)
    names = [group.group for group in training]
    for number, (_, held) in enumerate(GroupKFold(settings.inner_folds).split(fold, groups=names)):
        fold[held] = number
    weights = torch.from_numpy(np.stack(list(arms.values()))).to(sides)
    fitted = sides[: len(training)]
    heads, best = tuned_heads(
        fitted[:, 0] - fitted[:, 1],
        margins=torch.zeros_like(weights),
        weights=weights,
        penalties=settings.penalties,
        fold=fold,
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
    names, codes = np.unique([group.group for group in groups], return_inverse=True)
    strengths = np.array([group.strength or 0 for group in groups])
    drawn = Resamples.draw(len(names), 1, count=resamples)
    sums = {
        name: sums_by_group(found[:, 0], found[:, 1], strengths, codes, len(names))
        for name, found in scores.items()
    }
    measured = {
        name: {metric: drawn.measure(found[None])[metric] for metric in METRICS}
        for name, found in sums.items()
    }
    rows = []
    for number, name in enumerate(names):
        right = {
            scorer: float((found[:, 0] > found[:, 1])[codes == number].mean())
            for scorer, found in scores.items()
        }
        rows.append({"group": str(name), "pairs": int((codes == number).sum())} | right)
    return measured, pd.DataFrame(rows)


def _table(measured: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    rows = [
        (name, metric, *interval(replicates))
        for name, found in measured.items()
        for metric, replicates in found.items()
        # A length is no log-odds, so its likelihood says nothing.
        if not (name == LENGTH and metric == "log-likelihood")
    ]
    return pd.DataFrame(rows, columns=["scorer", "metric", "estimate", "low", "high"])


def _history(state: dict[str, Any]) -> pd.DataFrame:
    """What each log said while the run trained."""
    columns = ["step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm", "score_mean"]
    columns += ["score_std", "ties", "pairs_per_second", "tokens_per_second", "padding"]
    logs = [entry for entry in state["log_history"] if "loss" in entry]
    return pd.DataFrame(logs).reindex(columns=columns)

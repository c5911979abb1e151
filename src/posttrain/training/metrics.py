"""What a training run logs of the scores it sees, and of its own speed."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from posttrain.evaluation import metrics


def sums_over_pairs(winners: Tensor, losers: Tensor, strengths: Tensor) -> np.ndarray:
    """Sums that metrics are computed from (see :func:`.sufficient_statistics`), of one group."""
    winning, losing, rated = (t.double().cpu().numpy() for t in (winners, losers, strengths))
    return metrics.sufficient_statistics(
        winning, losing, rated, np.zeros(len(rated), dtype=int), 1
    )[0]


def score_metrics(sums: np.ndarray) -> dict[str, float]:
    """What is logged of sums over pairs.

    ``accuracy`` over all pairs and ``accuracy_1`` to ``accuracy_4`` by strength, as far as it
    occurs (ties count half); ``ties``, their share; ``score_mean`` and ``score_std`` of all
    responses in pairs; ``difference_rms``, the root mean square of winner minus loser.
    """
    found = metrics.metrics(sums)
    of = metrics.SUMS.split(sums)
    mean, square = (of.powers / (2 * of.count[0]))[:2]
    by_strength = {f"accuracy_{s}": float(found[f"{metrics.Metric.ACCURACY} {s}"]) for s in "1234"}
    return {
        "accuracy": float(found[metrics.Metric.ACCURACY]),
        **{name: value for name, value in by_strength.items() if not np.isnan(value)},
        "ties": float(found[metrics.Metric.TIES]),
        "score_mean": float(mean),
        "score_std": float(max(square - mean**2, 0.0) ** 0.5),
        "difference_rms": float(found[metrics.Metric.SPREAD]),
    }


class RecentSteps:
    """Scores and work of the steps since the last log.

    Scores stay on their device until then, so that no step waits for them.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._winners: list[Tensor] = []
        self._losers: list[Tensor] = []
        self._strengths: list[Tensor] = []
        self._tokens = 0
        self._slots = 0
        self._away = 0.0
        self._began = time.perf_counter()

    def add(self, winners: Tensor, losers: Tensor, batch: Mapping[str, Any]) -> None:
        """Take note of scores ``[pairs]`` and the micro-batch, with its number of ``tokens``."""
        self._winners.append(winners.detach())
        self._losers.append(losers.detach())
        self._strengths.append(batch["strengths"])
        self._tokens += batch["tokens"]
        self._slots += batch["input_ids"].numel()

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Numbers to log, over all processes; then start again.

        Those of :func:`score_metrics`; ``pairs_per_second``; ``tokens_per_second``, padding not
        counted; ``padding``, its share of what was computed.
        """
        sums = np.zeros(metrics.COLUMNS)
        if self._winners:
            parts = (self._winners, self._losers, self._strengths)
            sums = sums_over_pairs(*(torch.cat(part) for part in parts))
        seconds = time.perf_counter() - self._began - self._away
        totals = torch.tensor([*sums, self._tokens, self._slots], dtype=torch.float64)
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(totals.to(accelerator.device), "sum")
        *whole, tokens, slots = totals.tolist()
        self._start()
        return score_metrics(np.array(whole)) | {
            "pairs_per_second": metrics.SUMS.split(np.array(whole)).count[0] / seconds,
            "tokens_per_second": tokens / seconds,
            "padding": 1 - tokens / slots,
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time within does not count as training's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._away += time.perf_counter() - began

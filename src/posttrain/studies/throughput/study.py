"""The throughput study: what a single row saves in time, measured against what it saves in tokens.

Every method of :data:`.throughput.methods.METHODS` trains the same model on the same groups of
random tokens, for each number of responses and each ratio of the prompt's length to a response's.
The methods take turns, a few steps at a time, so that a machine that slows down slows all of them.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.utils import logging

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.throughput.bench import Bench, ThroughputSettings, now
from posttrain.studies.throughput.keys import Speed
from posttrain.studies.throughput.methods import METHODS, SEPARATE, TRL, Method


def measure(source: str, settings: ThroughputSettings, cache_dir: Path | None) -> Measured:
    """Time all methods.

    Args:
        source: Tells this record from others of the same checkpoint and device; ``simulator``, the
            default of all studies, is left out, for what is computed are random tokens.
        settings: Those of the study.
        cache_dir: Not used.

    Returns:
        The source is checkpoint, label and device, for instance ``smollm2-cpu``. Tables are those
        of :func:`rounds` (``steps``), :func:`summarise` (``speed``) and, if settings ask for it,
        :func:`measure_memory` (``memory``). Data are ``parameters`` of the model and
        ``matmul_flops``, see :func:`matmul_flops`.
    """
    label = None if source == SIMULATOR else source
    bench = Bench.load(settings)
    peak = matmul_flops(bench.model.dtype)
    steps = rounds(bench)
    tables = {"steps": steps, "speed": summarise(steps, peak)}
    if settings.memory:
        tables["memory"] = measure_memory(bench)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Measured(
        data={"parameters": bench.model.num_parameters(), "matmul_flops": float(f"{peak:.4g}")},
        tables=tables,
        source="-".join(filter(None, (Path(settings.checkpoint).name, label, device))),
    )


def matmul_flops(dtype: torch.dtype, *, trials: int = 5) -> float:
    """Floating-point operations per second of a large square matrix product, the best of trials.

    The yardstick for a method's own: no model computes faster than its matrix products.
    """
    # On a GPU a product takes a millisecond; several make its start and the wait for it negligible.
    device, size, products = ("cuda", 8192, 20) if torch.cuda.is_available() else ("cpu", 2048, 1)
    factor = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty_like(factor)

    def seconds() -> float:
        start = now()
        for _ in range(products):
            torch.mm(factor, factor, out=product)
        return (now() - start) / products

    seconds()  # The first sets up libraries and lets the clock rate rise.
    return 2 * size**3 / min(seconds() for _ in range(trials))


def rounds(bench: Bench) -> pd.DataFrame:
    """Time all methods in all configurations.

    Returns:
        One row for each timed step: ``ratio``, ``responses``, ``method``, ``round``, ``step``,
        times and loss of :meth:`.StepTimer.steps` and the counts of :meth:`.Bench.work`. The same
        step has the same groups for every method and in every round.
    """
    rows = []
    settings = bench.settings
    timed = range(settings.warmup_steps, settings.warmup_steps + settings.steps)
    for ratio, responses in product(settings.ratios, settings.responses):
        groups = bench.groups(ratio, responses, steps=timed.stop + 1)
        work = {method: bench.work(method, groups) for method in METHODS}
        for number in range(settings.rounds):
            # There and back, so that a steady drift favours no method.
            for method in METHODS[:: -1 if number % 2 else 1]:
                times = bench.train(method, groups)
                head = {
                    "ratio": ratio, "responses": responses, "method": method.name, "round": number
                }  # fmt: skip
                rows += [
                    head | {"step": step} | times[step - 1] | work[method][step] for step in timed
                ]
    return pd.DataFrame(rows)


def summarise(steps: pd.DataFrame, matmul_flops: float) -> pd.DataFrame:
    """Speeds of each method, and ratios of speeds.

    Args:
        steps: What :func:`measure` returns.
        matmul_flops: What :func:`matmul_flops` returns.

    Returns:
        One row for each ``ratio``, ``responses``, ``method`` and ``metric``, with an ``estimate``
        and its range from ``low`` to ``high``. The estimate is a median.

        Over steps: ``pairs per second``; ``tokens per second``, repeated prompts included and
        padding not; ``share of matmul peak``; ``share of weight update`` in time, which no layout
        can save. Over rounds, each of which gives a median: ``speed-up over TRL`` and ``speed-up
        over separate rows`` in pairs per second; ``relative tokens per second``, the method's over
        those of separate rows, which is the share of the token saving that becomes speed. One
        number each: ``padding``, its share of a batch; ``loss difference from TRL``, the largest
        absolute one of any step, which is rounding where a method computes the same.

        ``share of matmul peak`` is what the field calls model-FLOP utilisation (MFU): operations of
        forward and backward pass over time and peak, recomputation not counted. But the peak is
        ``matmul_flops``, measured, where others take the data sheet's, which is higher; and padding
        and masked pairs of tokens do not count. Tokens that a method repeats do.
    """
    rows: list[tuple[Any, ...]] = []
    for (ratio, responses), part in steps.groupby(["ratio", "responses"], sort=False):
        methods = {str(name): frame for name, frame in part.groupby("method", sort=False)}
        trl, separate = methods[TRL.name], methods[SEPARATE.name]
        for name, frame in methods.items():
            fewer_tokens = separate["tokens"].sum() / frame["tokens"].sum()
            over_separate = _speed_up(frame, separate)
            losses = [table.set_index(["round", "step"])["loss"] for table in (frame, trl)]
            metrics = {
                "pairs per second": frame["pairs"] / frame["seconds"],
                "tokens per second": frame["tokens"] / frame["seconds"],
                "share of matmul peak": frame["flops"] / frame["seconds"] / matmul_flops,
                "share of weight update": frame["update_seconds"] / frame["seconds"],
                "padding": pd.Series([1 - frame["tokens"].sum() / frame["slots"].sum()]),
                Speed.OVER_TRL: _speed_up(frame, trl),
                Speed.OVER_SEPARATE: over_separate,
                Speed.TOKENS: over_separate / fewer_tokens,
                "loss difference from TRL": pd.Series([(losses[0] - losses[1]).abs().max()]),
            }
            rows += [
                (ratio, responses, name, metric, values.median(), values.min(), values.max())
                for metric, values in metrics.items()
            ]
    head = ["ratio", "responses", "method", "metric"]
    return pd.DataFrame(rows, columns=[*head, "estimate", "low", "high"])


def _speed_up(frame: pd.DataFrame, reference: pd.DataFrame) -> pd.Series:
    """How many times faster than the reference, for each round; both train on the same pairs."""
    median = [table.groupby("round")["seconds"].median() for table in (reference, frame)]
    return median[0] / median[1]


def measure_memory(bench: Bench, methods: Sequence[Method] = METHODS) -> pd.DataFrame:
    """Peak memory of each method, over two steps: AdamW's moments come with the first.

    On a CPU each method has a process of its own, see :meth:`.Bench.peak_memory`.

    Returns:
        One row for each number of responses and method, at one ratio: ``ratio``, ``responses``,
        ``method`` and ``gigabytes`` (10⁹ bytes) beside the weights, so of activations, gradients
        and moments.
    """
    rows = []
    settings = bench.settings
    for responses, method in product(settings.responses, methods):
        if torch.cuda.is_available():
            taken = _peak_memory(bench, method, responses)
        else:
            with ProcessPoolExecutor(1, get_context("spawn"), _be_quiet) as alone:
                taken = alone.submit(_load_and_peak_memory, settings, method, responses).result()
        rows.append((settings.memory_ratio, responses, method.name, taken / 1e9))
    return pd.DataFrame(rows, columns=["ratio", "responses", "method", "gigabytes"])


def _be_quiet() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _load_and_peak_memory(settings: ThroughputSettings, method: Method, responses: int) -> int:
    return _peak_memory(Bench.load(settings), method, responses)


def _peak_memory(bench: Bench, method: Method, responses: int) -> int:
    groups = bench.groups(bench.settings.memory_ratio, responses, steps=3)
    return bench.peak_memory(method, groups)


STUDY = Study(
    "throughput",
    "how fast row layouts train, against TRL's RewardTrainer (--source: a label)",
    measure,
    simulated=ThroughputSettings,
    human=ThroughputSettings,
)

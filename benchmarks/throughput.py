"""How many pairs a second a reward model trains on, in every kind of rows.

Run: python benchmarks/throughput.py [--workloads pairs triples seeda] [--checkpoint smollm2]

Methods (:data:`.throughput_methods.METHODS`) take turns on the same pairs, an optimiser step each,
so that a machine that slows down slows all of them; ratios are formed within a round. Results go to
a run record in ``--output``, which is written after each workload: called again, the same command
adds the workloads that are missing.

Workloads: ``pairs``, ``triples``, ``five`` (five responses, all ten pairs, a record each) and
``many`` (the best of 32 short responses against each other one) are random tokens, the first three
at Llama 3's average lengths; ``triples@2048`` has prompts of so many tokens and ``triples@256x64``
responses of so many. Others are sets of human preferences in the folder that POSTTRAIN_DATA names.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import throughput_methods as ways
import torch
from throughput_methods import METHODS, Bench, Setting
from throughput_workloads import LONG, Workload, sample, trl_tokens

from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.studies.packing.keys import Speed, Way
from posttrain.studies.packing.speed import speed_table

#: Layers and rounds of long workloads.
LONG_LAYERS, LONG_ROUNDS = 6, 3
#: What is measured by default.
WORKLOADS = (
    "pairs", "triples", "five", "many", "seeda", "finegrained_rlhf", "ukpconvarg",
    "pairs@284", "pairs@1704",
    *(f"triples@{tokens}" for tokens in (256, 512, 1024, 2048, 4096, 8192)),
)  # fmt: skip
#: Seconds of TRL's share of a round, at most: on data sets, and on random tokens.
SECONDS = {"data set": 480.0, "random tokens": 40.0}


@dataclass(frozen=True)
class Plan:
    """How workloads are measured.

    ``seconds`` None: :data:`SECONDS`; ``layers`` None: all, :data:`LONG_LAYERS` for long workloads.
    """

    methods: Sequence[str]
    rounds: int = 5
    seconds: float | None = None
    memory: bool = True
    layers: int | None = None

    def layers_for(self, workload: Workload) -> int | None:
        """With how many layers a workload is measured; None: all."""
        return self.layers or (LONG_LAYERS if workload.is_long else None)


def warm_up(methods: Sequence[str], bench: Bench) -> float:
    """Set kernels up with a few pairs; how many of TRL's tokens the first method does a second."""
    prompts = Workload.named("pairs@512x128").prompts(bench.model, bench.tokenizer, seed=0)
    few = [group for (group,) in prompts[: 16 if torch.cuda.is_available() else 1]]
    rows = {name: METHODS[name].rows(few, bench.setting.max_tokens_per_device) for name in methods}
    for name in methods[::-1]:
        bench.turn(METHODS[name], rows[name])
    return trl_tokens(few) / bench.turn(METHODS[methods[0]], rows[methods[0]]).seconds


def measure(workload: Workload, plan: Plan, bench: Bench, rate: float) -> dict[str, pd.DataFrame]:
    """Measure one workload, given what :func:`warm_up` returns.

    Returns:
        Tables ``turns``, a row for each; ``speed``, tidy, of :func:`summarise`; ``workloads``, one
        row that says what was measured.
    """
    prompts = workload.prompts(bench.model, bench.tokenizer, bench.setting.seed)
    everything = [group for groups in prompts for group in groups]
    names = [name for name in plan.methods if METHODS[name].is_exact or workload.lengths]
    if not names:
        raise UserError(f"{workload.name}: causal rows are timed on random tokens only")
    most_tokens, setting = bench.setting.max_tokens_per_device, bench.setting
    groups = sample(prompts, rate * (plan.seconds or SECONDS[workload.kind]))
    rows = {name: METHODS[name].rows(groups, most_tokens) for name in names}
    pairs = sum(rows[names[0]]["pair_count"])
    print(
        f"{workload.name}: {pairs:,} pairs, {trl_tokens(groups):,} tokens in TRL's rows", flush=True
    )
    if torch.cuda.is_available():
        # There, kernels are made for the shapes that they meet.
        for name in names:
            bench.turn(METHODS[name], rows[name])
    turns: list[dict[str, Any]] = []
    rounds = min(plan.rounds, LONG_ROUNDS) if workload.is_long else plan.rounds
    for number in range(rounds):
        # There and back, so that a steady drift favours no method.
        for name in names[:: -1 if number % 2 else 1]:
            turn = bench.turn(METHODS[name], rows[name])
            turns.append({"method": name, "round": number} | asdict(turn))
        times = [f"{turn['method']} {turn['seconds']:.1f} s" for turn in turns[-len(names) :]]
        print(f"  round {number}: {', '.join(times)}", flush=True)
    table = pd.DataFrame(turns)
    memory = {}
    for name in names if plan.memory else ():
        peak = table.loc[table["method"] == name, "memory"].max()
        if bench.device.type == "cpu":
            peak = ways.memory_alone(setting, name, rows[name])
        memory[name] = peak / 1e9
    peak = ways.matmul_flops(bench.model.dtype)
    speed = summarise(
        table,
        work={name: METHODS[name].work(rows[name]) for name in names},
        flops={name: bench.flops(*METHODS[name].work(rows[name])) / peak for name in names},
        whole={
            name: trl_tokens(everything)
            / METHODS[name].work(METHODS[name].rows(everything, most_tokens))[0]
            for name in names
        },
        pairs=pairs,
        trl_tokens=trl_tokens(groups),
        memory=memory,
    )
    size = {
        "kind": workload.kind,
        "prompts": len({group.tokens.prompt for group in groups}),
        "records": len(groups),
        "pairs": pairs,
        "responses": sum(rows[names[-1]]["response_count"]) / len(rows[names[-1]]),
        "prompt tokens": float(np.mean([len(group.tokens.prompt) for group in groups])),
        "response tokens": float(
            np.mean([len(ids) for group in groups for ids in group.tokens.responses])
        ),
        "prompts of the whole set": len(prompts),
        "pairs of the whole set": sum(len(group.pairs) for group in everything),
        "layers": bench.model.config.num_hidden_layers,
        "rounds": rounds,
        "matmul FLOP/s": peak,
        "commit": records.machine()["commit"],
    }
    tables = {"turns": table, "speed": speed, "workloads": pd.DataFrame([size])}
    return {
        name: pd.concat([pd.Series(workload.name, table.index, name="workload"), table], axis=1)
        for name, table in tables.items()
    }


def summarise(
    turns: pd.DataFrame,
    *,
    work: Mapping[str, tuple[float, float]],
    flops: Mapping[str, float],
    whole: Mapping[str, float],
    pairs: int,
    trl_tokens: int,
    memory: Mapping[str, float],
) -> pd.DataFrame:
    """Metrics of each method (:class:`.packing.keys.Speed`).

    Args:
        turns: One row for each ``method`` and ``round`` with its ``seconds``, ``loss`` and
            ``slots``, tokens with padding.
        work: What each method's :meth:`.Method.work` returns.
        flops: Operations of a step, in seconds at the measured peak of matrix products.
        whole: How many times fewer tokens than TRL each computes on the whole set.
        pairs: Pairs of a step.
        trl_tokens: Tokens that TRL computes.
        memory: Peak memory in 10⁹ bytes, where it was measured.

    Returns:
        One row for each ``method`` and ``metric``: ``estimate``, the median over rounds, and its
        range from ``low`` to ``high``. Ratios of speeds are formed within a round.
        ``relative tokens per second`` are the method's over those of separate rows: the share of
        the saving in tokens that becomes speed. The ``share of matmul peak`` is what the field
        calls model-FLOP utilisation, but of the measured peak; neither padding nor masked pairs of
        tokens count. The ``loss difference`` is the largest absolute one from the first method.
    """
    by_method = {
        name: part.set_index("round") for name, part in turns.groupby("method", sort=False)
    }
    first = by_method[turns["method"][0]]
    rows = []
    for name, part in by_method.items():
        seconds, tokens = part["seconds"], work[name][0]
        found = {
            Speed.PAIRS: pairs / seconds,
            Speed.TOKENS: tokens,
            Speed.PADDING: 1 - tokens / part["slots"],
            Speed.PEAK: flops[name] / seconds,
            Speed.FEWER_TOKENS: trl_tokens / tokens,
            Speed.FEWER_TOKENS_WHOLE: whole[name],
            Speed.LOSS: (part["loss"] - first["loss"]).abs().max(),
        }
        if Way.TRL in by_method:
            found[Speed.OVER_TRL] = by_method[Way.TRL]["seconds"] / seconds
        if Way.SEPARATE in by_method:
            over = by_method[Way.SEPARATE]["seconds"] / seconds
            found[Speed.OVER_SEPARATE] = over
            found[Speed.RELATIVE_TOKENS] = over * tokens / work[Way.SEPARATE][0]
        if name in memory:
            found[Speed.MEMORY] = memory[name]
        for metric, given in found.items():
            values = pd.Series(given)
            rows.append((name, str(metric), values.median(), values.min(), values.max()))
    return pd.DataFrame(rows, columns=["method", "metric", "estimate", "low", "high"])


def run(
    workloads: Sequence[Workload], plan: Plan, setting: Setting, folder: Path
) -> records.Record:
    """Measure what a record in the folder does not have yet; it is written after each workload.

    Raises:
        UserError: If the record there was measured with other settings or on another machine.
    """
    started = time.time()
    machine = records.environment(started)
    record = records.Record(
        study="throughput",
        source=Path(setting.checkpoint).name,
        profile="gpu" if torch.cuda.is_available() else "real",
        settings={name: value for name, value in asdict(setting).items() if name != "layers"},
        data={},
        tables={},
        environment=machine,
    )
    path = folder / f"{record.name}.json"
    if path.exists():
        old = records.load(path)
        here = (record.settings, *(machine[name] for name in ("device", "threads", "versions")))
        there = (old.settings, *(old.environment.get(n) for n in ("device", "threads", "versions")))
        if here != there:
            raise UserError(f"{path} holds other measurements; name another folder with --output")
        record = old
    benches: dict[int | None, tuple[Bench, float]] = {}
    for workload in workloads:
        if workload.name in set(record.tables.get("workloads", {"workload": ()})["workload"]):
            print(f"{workload.name}: measured before")
            continue
        layers = plan.layers_for(workload)
        if layers not in benches:
            benches.clear()  # One model at a time has room.
            bench = Bench(replace(setting, layers=layers))
            benches[layers] = bench, warm_up(plan.methods, bench)
        tables = measure(workload, plan, *benches[layers])
        seconds = record.environment["seconds"] + time.time() - started
        started = time.time()
        record = replace(
            record,
            environment=record.environment | {"seconds": round(seconds, 1)},
            tables={
                name: pd.concat([record.tables[name], table], ignore_index=True)
                if name in record.tables
                else table
                for name, table in tables.items()
            },
        )
        records.save(record, folder)
        with pd.option_context("display.width", 250, "display.max_columns", None):
            print(speed_table(record, workload.name), flush=True)
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    on_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workloads", nargs="+", default=WORKLOADS, metavar="WORKLOAD", help="default: all")
    add(
        "--methods", nargs="+", choices=list(METHODS), metavar="METHOD",
        help=f"some of {', '.join(METHODS)}; default: all but flex",
    )  # fmt: skip
    add("--rounds", type=int, default=5, help="turns of each method (default: 5)")
    add(
        "--seconds", type=float,
        help="most seconds of TRL's turn (default: 480 on data sets, 40 on random tokens)",
    )  # fmt: skip
    add(
        "--checkpoint", default="smollm2",
        help="smollm2, tiny, a folder, a name on the Hugging Face hub, or llama-1b: random weights "
        "in the shape of Llama-3.2-1B (default: smollm2)",
    )  # fmt: skip
    add(
        "--max_tokens_per_device", type=int, default=32768 if on_cuda else 4096,
        help="most tokens computed at once, padding included (default: 4096, on CUDA 32768)",
    )  # fmt: skip
    add(
        "--layers", type=int,
        help="first layers to compute with, for workloads that take TRL long (default: all, and "
        f"{LONG_LAYERS} for prompts of {LONG} tokens or more)",
    )  # fmt: skip
    add("--no_memory", action="store_true", help="do not measure peak memory")
    add("--output", type=Path, default=Path("results"), help="folder of the record")
    given = parser.parse_args(arguments)
    ways.quiet()
    methods = given.methods or [name for name in METHODS if name != Way.FLEX]
    if ways.RewardTrainer is None and Way.TRL in methods:
        print("trl is not installed; its RewardTrainer is left out")
        methods = [name for name in methods if name != Way.TRL]
    if not methods or given.rounds < 1:
        parser.error("give a method that is installed, and one round or more")
    dtype = "bfloat16" if on_cuda else "float32"
    try:
        run(
            [Workload.named(name) for name in given.workloads],
            Plan(methods, given.rounds, given.seconds, not given.no_memory, given.layers),
            Setting(given.checkpoint, dtype, given.max_tokens_per_device),
            given.output,
        )
    except (UserError, OSError) as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

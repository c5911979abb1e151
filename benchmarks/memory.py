"""How much memory it takes to prepare, plan and read training data, by number of groups.

Run: python benchmarks/memory.py [--groups 10000 100000 1000000] [--processes 2] [--output results]

Simulated groups go through the steps of `posttrain train` before the first forward pass: they are
read into Arrow, tokenised by several processes, split, planned into steps, and read step by step. A
process of its own does it for each size, with a cache of its own, and reports the most memory that
was its own at any time: anonymous pages, as files that are mapped into memory take none that others
need. Prints a table and writes a run record to the folder that --output names. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from posttrain.data import store
from posttrain.evidence import records


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size in a process of its own, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    known = parser.parse_args(arguments)
    if known.measure is not None:
        print(json.dumps(measure(known.measure, known.processes)))
        return 0
    started = time.time()
    rows = []
    for count in known.groups:
        with tempfile.TemporaryDirectory() as cache:
            command = [sys.executable, __file__, "--measure", str(count)]
            command += ["--processes", str(known.processes)]
            done = subprocess.run(
                command, env=os.environ | {"POSTTRAIN_CACHE": cache}, capture_output=True, text=True
            )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return 1
        rows.append({"groups": count} | json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    record = records.Record(
        study="memory",
        source="simulator",
        profile="custom",
        settings={"processes": known.processes},
        data={},
        tables={"megabytes": pd.DataFrame(rows)},
        environment=records.environment(started),
    )
    print(f"wrote {records.save(record, known.output)}")
    return 0


def measure(count: int, processes: int) -> dict[str, float]:
    """Peaks of the process's own memory in each phase, in 10⁶ bytes, and seconds in all."""
    from posttrain.data.store import stored
    from posttrain.models import embedded, reward_model
    from posttrain.rows.layout import LAYOUTS
    from posttrain.rows.tokenization import Limits
    from posttrain.training.dataset import tokenized
    from posttrain.training.pairing import Pairing
    from posttrain.training.sampler import Sizes, StepSampler

    store.quiet()
    _, tokenizer = reward_model.load(embedded.tiny(embedded.TinySettings(texts=600)))
    peak = Peak()
    began = time.perf_counter()
    found = {"at start": peak.take()}
    groups = stored([f"simulator:{count}"])
    training, _ = groups.split(test_fraction=0.01, seed=0)
    found["reading"] = peak.take()
    rows = tokenized(training, tokenizer, Pairing(), Limits(), processes=processes).rows
    found["tokens"] = peak.take()
    sizes = Sizes.from_dataset(rows, LAYOUTS["exact"], shared_rows=False)
    for step in StepSampler(sizes, groups_per_step=512, max_tokens_per_device=16384):
        rows.__getitems__([group for batch in step.micro_batches for group in batch.groups])
    found["training"] = peak.take()
    return found | {"seconds": time.perf_counter() - began}


class Peak:
    """Samples the anonymous memory of this process every twentieth of a second."""

    def __init__(self) -> None:
        self._most = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, _own_memory())
            time.sleep(0.05)

    def take(self) -> float:
        """The peak since the last call, in 10⁶ bytes."""
        most, self._most = max(self._most, _own_memory()), 0.0
        return most


def _own_memory() -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no RssAnon; this benchmark needs Linux")


if __name__ == "__main__":
    sys.exit(main())

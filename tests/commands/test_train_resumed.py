"""Interrupted runs of ``posttrain train`` end at the weights of whole ones, or are refused.

Each test also looks at which steps were computed after the interruption: a run that started at its
beginning again would end at the same weights.
"""

import datetime
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

import posttrain_with_fsdp
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from forked import die, forked
from safetensors.torch import load_file, save_file
from tiny_runs import assert_equal_weights, options, refusal, train
from transformers import AutoTokenizer, Trainer

from posttrain.commands import run_folder
from posttrain.data.reading import write_groups
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.models import reward_model
from posttrain.training import checkpoints, saving, trainer
from posttrain.training.checkpoints import (
    MANIFEST,
    checkpoints_in,
    last_whole_checkpoint,
    write_manifest,
)
from posttrain.training.trainer import RankingTrainer


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, cache):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(cache))


@pytest.fixture
def executed(monkeypatch):
    """The steps that this process computes from now on."""
    steps = []
    step = RankingTrainer.training_step

    def recorded(self, *arguments):
        steps.append(self.state.global_step + 1)
        return step(self, *arguments)

    monkeypatch.setattr(RankingTrainer, "training_step", recorded)
    return steps


#: Where a run is killed, as what is called there once for each checkpoint.
PLACES = {
    "while it is written": (Trainer, "_save_optimizer_and_scheduler"),
    "before its manifest": (checkpoints, "write_manifest"),
    "after its manifest": (checkpoints, "rotate"),
}


def killed(model, folder, *, place, checkpoint, **changes):
    """Start a run in a process of its own that is killed at a place of its nth checkpoint."""
    owner, name = PLACES[place]

    def run():
        called = []
        function = getattr(owner, name)

        def counted(*arguments, **named):
            called.append(name)
            return (die if len(called) == checkpoint else function)(*arguments, **named)

        setattr(owner, name, counted)
        return train(model, folder, **changes)

    assert forked(run) == -signal.SIGKILL
    assert not (folder / "config.json").exists()


@pytest.mark.parametrize(
    ("place", "checkpoint", "first"),
    [
        ("before its manifest", 1, 1),
        ("while it is written", 2, 4),
        ("after its manifest", 2, 7),
        # All steps were done, and the model was not saved yet.
        ("after its manifest", 4, 11),
    ],
)
def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    trained, tiny_checkpoint, tmp_path, executed, place, checkpoint, first
):
    folder = tmp_path / "killed"
    killed(tiny_checkpoint, folder, place=place, checkpoint=checkpoint)
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert executed == list(range(first, 11))
    assert_equal_weights(trained, folder)


def test_a_command_that_is_killed_at_any_time_goes_on(trained, tiny_checkpoint, tmp_path, executed):
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "posttrain", *map(str, options(tiny_checkpoint, folder))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint-3" / MANIFEST).exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    last = int(last_whole_checkpoint(folder).name.removeprefix("checkpoint-"))
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert executed == list(range(last + 1, 11))
    assert_equal_weights(trained, folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float32"},
        {"lora_rank": 4},
        # Shuffled responses, and a second epoch in the middle of which it goes on.
        {"layout": "causal", "num_train_epochs": 2, "groups_per_step": 48},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_runs_go_on_as_if_nothing_had_happened(tiny_checkpoint, tmp_path, executed, changes):
    assert train(tiny_checkpoint, tmp_path / "whole", **changes) == 0
    executed.clear()
    folder = tmp_path / "killed"
    killed(tiny_checkpoint, folder, place="after its manifest", checkpoint=2, **changes)
    assert train(tiny_checkpoint, folder, "--resume", **changes) == 0
    assert executed == list(range(7, 11))
    assert_equal_weights(tmp_path / "whole", folder)


def test_a_single_checkpoint_is_removed_once_the_next_one_is_whole(
    trained, tiny_checkpoint, tmp_path, executed
):
    folder = tmp_path / "killed"
    changes = {"save_total_limit": 1}
    killed(tiny_checkpoint, folder, place="before its manifest", checkpoint=2, **changes)
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-6", "checkpoint-3"]
    assert train(tiny_checkpoint, folder, "--resume", **changes) == 0
    assert executed == list(range(4, 11))
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-10"]
    assert_equal_weights(trained, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    trained, tiny_checkpoint, tmp_path, caplog, executed, name
):
    folder = interrupted(trained, tmp_path)
    last, before = checkpoints_in(folder)[:2]
    damaged = last / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with caplog.at_level("INFO", logger="posttrain"):
        assert train(tiny_checkpoint, folder, "--resume") == 0
    assert f"not resuming from {last}: {damaged} has" in caplog.text
    assert f"resuming from {before}" in caplog.text
    assert executed == [10]
    assert_equal_weights(trained, folder)


def test_a_run_without_any_whole_checkpoint_starts_at_its_beginning(
    trained, tiny_checkpoint, tmp_path, caplog, executed
):
    folder = interrupted(trained, tmp_path)
    for path in checkpoints_in(folder):
        (path / MANIFEST).unlink()
    with caplog.at_level("INFO", logger="posttrain"):
        assert train(tiny_checkpoint, folder, "--resume") == 0
    assert "holds no whole checkpoint; starting at the beginning" in caplog.text
    assert executed == list(range(1, 11))
    assert_equal_weights(trained, folder)


def limited_in(owner, name, *, call):
    """Let files of this process not grow beyond 20 kB from the nth call of a function on."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    function, called = getattr(owner, name), []

    def limited(*arguments, **named):
        called.append(name)
        if len(called) == call:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return function(*arguments, **named)

    setattr(owner, name, limited)


@pytest.mark.parametrize(
    ("owner", "name", "call", "words", "first"),
    [
        (Trainer, "_save_checkpoint", 2, "checkpoint-6 could not be written", 4),
        (saving, "save", 1, "the model could not be written to", 11),
    ],
    ids=["a checkpoint", "the model"],
)
def test_a_full_disk_is_named_and_leaves_earlier_checkpoints_whole(
    trained, tiny_checkpoint, tmp_path, capfd, executed, owner, name, call, words, first
):
    folder = tmp_path / "full"

    def run():
        limited_in(owner, name, call=call)
        return train(tiny_checkpoint, folder)

    assert forked(run) == 1
    error = capfd.readouterr().err
    assert words in error
    assert "make room and go on from" in error
    assert "Traceback" not in error
    assert last_whole_checkpoint(folder).name == f"checkpoint-{first - 1}"
    assert not (folder / "config.json").exists()
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert executed == list(range(first, 11))
    assert_equal_weights(trained, folder)


def interrupted(trained, tmp_path):
    """A copy of a run as if it had been interrupted before its model was saved."""
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "config.json").unlink()
    return folder


def test_a_run_is_resumed_with_its_own_settings_only(trained, tiny_checkpoint, capsys):
    message = refusal(
        capsys, train(tiny_checkpoint, trained, "--resume", learning_rate=1e-3, layout="separate")
    )
    assert "learning_rate (0.002 → 0.001)" in message
    assert "layout ('exact' → 'separate')" in message


def test_a_date_in_a_template_stays_that_of_the_day_on_which_a_run_was_started(
    tiny_checkpoint, tmp_path, monkeypatch, executed
):
    class Day(datetime.date):
        @classmethod
        def today(cls):
            return cls(*day)

    monkeypatch.setattr(run_folder.datetime, "date", Day)
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    template = model / "chat_template.jinja"
    dated = "<|system|> {{ strftime_now('%d %b %Y') }} <|end|> " + template.read_text()
    template.write_text(dated)
    day = (2026, 2, 3)
    assert train(model, folder, max_steps=4, save_steps=2) == 0
    shutil.rmtree(folder / "checkpoint-4")
    executed.clear()
    day = (2027, 4, 5)
    assert train(model, folder, "--resume", max_steps=4, save_steps=2) == 0
    assert executed == [3, 4]
    for written in (folder, folder / "checkpoint-4"):
        assert (
            (written / "chat_template.jinja").read_text().startswith("<|system|> {{ '03 Feb 2026'")
        )
    other = tmp_path / "other"
    assert train(model, other, max_steps=1) == 0
    assert "'05 Apr 2027'" in (other / "chat_template.jinja").read_text()


def test_a_run_is_not_resumed_on_another_model_of_the_same_name(tiny_checkpoint, tmp_path, capsys):
    model, folder = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_checkpoint, model)
    assert train(model, folder, max_steps=2, save_steps=2, lora_rank=2) == 0
    content = load_file(model / "model.safetensors")
    save_file({name: 1.5 * weight for name, weight in content.items()}, model / "model.safetensors")
    message = refusal(
        capsys, train(model, folder, "--resume", max_steps=2, save_steps=2, lora_rank=2)
    )
    assert "model of the run in" in message
    assert "other contents" in message


def test_there_must_be_a_run_to_resume(tiny_checkpoint, tmp_path, capsys):
    message = refusal(capsys, train(tiny_checkpoint, tmp_path / "none", "--resume"))
    assert "holds no run to resume" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be read"),
        (b'{"settings": {', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"{}", "does not hold the settings of a run"),
        (b"[]", "does not hold the settings of a run"),
        (b"null", "does not hold the settings of a run"),
        (b'{"settings": {}}', "does not hold the settings of a run"),
        (b'{"settings": [], "training": {}}', "does not hold the settings of a run"),
        (b'{"settings": {}, "training": {}, "data": 3}', "does not hold the settings of a run"),
        (b'{"settings": {}, "training": {}, "day": 3}', "does not hold the settings of a run"),
        (b'{"settings": {}, "training": {}, "day": "x"}', "does not hold the settings of a run"),
    ],
)
def test_broken_settings_of_a_run_are_named(tiny_checkpoint, tmp_path, capsys, content, problem):
    (tmp_path / "settings.json").write_bytes(content)
    message = refusal(capsys, train(tiny_checkpoint, tmp_path, "--resume"))
    assert message.startswith(f"posttrain: {tmp_path / 'settings.json'} {problem}")
    assert "restore it, or start another run" in message


def write(path, *, seed):
    write_groups(path, [group.ranked for group in simulate(60, seed=seed)])
    return path


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("training data", "data"),
        ("evaluation data", "eval_data"),
        ("tokenizer and chat template", "chat_template"),
    ],
)
def test_a_run_does_not_go_on_with_other_data_of_the_same_name(
    tiny_checkpoint, tmp_path, capsys, executed, name, option
):
    folder, template = tmp_path / "run", tmp_path / "template.jinja"
    template.write_text(AutoTokenizer.from_pretrained(tiny_checkpoint).chat_template)
    changes = {
        "data": write(tmp_path / "data.jsonl", seed=3),
        "eval_data": write(tmp_path / "held_out.jsonl", seed=4),
        "chat_template": template,
        "max_steps": 2,
        "save_steps": 1,
    }
    assert train(tiny_checkpoint, folder, **changes) == 0
    (folder / "config.json").unlink()
    shutil.rmtree(folder / "checkpoint-2")
    changed, before = changes[option], changes[option].read_text()
    if option == "chat_template":
        changed.write_text("{# another one #}" + before)
    else:
        write(changed, seed=5)
    executed.clear()
    message = refusal(capsys, train(tiny_checkpoint, folder, "--resume", **changes))
    assert message.startswith(f"posttrain: {name} of the run in {folder} have other contents")
    assert executed == []
    changed.write_text(before)
    assert train(tiny_checkpoint, folder, "--resume", **changes) == 0
    assert executed == [2]


def test_a_run_that_has_not_noted_its_data_does_so_when_it_goes_on(
    trained, tiny_checkpoint, tmp_path, executed
):
    folder = interrupted(trained, tmp_path)
    settings = json.loads((folder / "settings.json").read_text())
    assert set(settings["data"]) == {
        "training data", "evaluation data", "tokenizer and chat template", "model",
    }  # fmt: skip
    bare = {name: part for name, part in settings.items() if name != "data"}
    (folder / "settings.json").write_text(json.dumps(bare))
    assert train(tiny_checkpoint, folder, "--resume") == 0
    assert json.loads((folder / "settings.json").read_text()) == settings
    assert executed == []


def with_fsdp(function):
    """Call a function where accelerate spreads weights over processes, of which this is one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    posttrain_with_fsdp.enable()
    # Those of runs that this process is a copy of.
    for kept in (AcceleratorState, PartialState, GradientState):
        kept._shared_state.clear()
    return function()


def test_adapters_are_refused_with_fsdp(tiny_checkpoint, tmp_path, capfd):
    folder = tmp_path / "run"
    assert forked(with_fsdp, lambda: train(tiny_checkpoint, folder, lora_rank=4)) == 1
    error = capfd.readouterr().err
    assert "posttrain: lora_rank=4 does not go with FSDP" in error
    assert "use DDP" in error
    assert not any(folder.iterdir())


def test_a_run_without_fsdp_does_not_go_on_with_it(trained, tiny_checkpoint, tmp_path, capfd):
    folder = interrupted(trained, tmp_path)
    assert forked(with_fsdp, lambda: train(tiny_checkpoint, folder, "--resume")) == 1
    error = capfd.readouterr().err
    assert f"posttrain: {folder / 'checkpoint-10'} was written with one process or DDP" in error
    assert "cannot be read with FSDP" in error
    assert "Traceback" not in error


def test_a_run_with_fsdp_does_not_go_on_without_it(trained, tiny_checkpoint, tmp_path, capsys):
    folder = interrupted(trained, tmp_path)
    last = folder / "checkpoint-10"
    (last / "optimizer.pt").unlink()
    for name in ("optimizer_0", "pytorch_model_fsdp_0"):
        (last / name).mkdir()
        (last / name / ".metadata").touch()
    write_manifest(last)
    message = refusal(capsys, train(tiny_checkpoint, folder, "--resume"))
    assert message.startswith(f"posttrain: {last} was written with FSDP")
    assert "cannot be read with one process or DDP" in message


def test_scores_keep_full_precision_where_fsdp_computes_in_half(tiny_checkpoint, tmp_path):
    """Accelerate would round the head and its scores to bfloat16."""
    found = tmp_path / "found.pt"

    def watched():
        seen = {}
        apply, forward = reward_model._apply_head, trainer.forward_scores

        def apply_head(head, states):
            hook = head.register_forward_hook(
                lambda head, _, out: seen.update(head=head.weight.dtype)
            )
            seen["states"], seen["inner"] = states.dtype, apply(head, states)
            hook.remove()
            return seen["inner"]

        def forward_scores(*arguments):
            seen["outer"] = forward(*arguments)
            return seen["outer"]

        reward_model._apply_head, trainer.forward_scores = apply_head, forward_scores
        changes = {"dtype": "float32", "bf16": "true", "max_steps": 2}
        status = train(tiny_checkpoint, tmp_path / "run", **changes)
        seen = {
            name: one.detach() if isinstance(one, torch.Tensor) else one
            for name, one in seen.items()
        }
        torch.save(seen, found)
        return status

    assert forked(with_fsdp, watched) == 0
    seen = torch.load(found)
    assert seen["states"] == torch.bfloat16
    assert seen["head"] == torch.float32
    assert torch.equal(seen["outer"], seen["inner"])
    assert seen["outer"].dtype == torch.float32
    assert not torch.equal(seen["outer"].bfloat16().float(), seen["outer"])

"""Checkpoints: one with its manifest is trusted, and what happens to it later is found out."""

import json
import logging
import os
import shutil

import pytest

from posttrain.storage import files
from posttrain.training import checkpoints
from posttrain.training.checkpoints import (
    MANIFEST,
    BackgroundManifests,
    check_launcher,
    checkpoints_in,
    last_whole_checkpoint,
    rotate,
    verify_manifest,
    write_manifest,
)

FILES = {
    "model.safetensors": b"weights" * 100,
    "trainer_state.json": b'{"global_step": 5}',
    "rng_state.pth": bytes(range(256)),
    "empty": b"",
    "shards/0/part.distcp": b"half of the weights",
}


def write(folder, listed=True):
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if listed:
        write_manifest(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    return write(tmp_path / "checkpoint-5")


def test_a_manifest_lists_every_file_with_size_and_hash(checkpoint):
    listed = json.loads((checkpoint / MANIFEST).read_text())
    assert {name: entry["bytes"] for name, entry in listed.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    # printf '' | sha256sum
    assert listed["empty"]["sha256"].startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert len({entry["sha256"] for entry in listed.values()}) == len(FILES)
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted(
        [MANIFEST, "shards", *(name for name in FILES if "/" not in name)]
    )


def test_a_checkpoint_with_its_manifest_is_whole(checkpoint):
    assert verify_manifest(checkpoint) is None


def test_a_checkpoint_may_be_moved(checkpoint, tmp_path):
    assert verify_manifest(shutil.move(checkpoint, tmp_path / "elsewhere")) is None


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(checkpoint, name):
    (checkpoint / name).unlink()
    assert verify_manifest(checkpoint) == f"{checkpoint / name} is missing"


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_a_truncated_file_is_named(checkpoint, name):
    size = len(FILES[name])
    for left in (0, size - 1):
        with (checkpoint / name).open("r+b") as file:
            file.truncate(left)
        assert (
            verify_manifest(checkpoint) == f"{checkpoint / name} has {left} bytes instead of {size}"
        )


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_changed_bytes_are_found(checkpoint, name):
    content = bytearray(FILES[name])
    content[len(content) // 2] ^= 1
    (checkpoint / name).write_bytes(content)
    assert (
        verify_manifest(checkpoint) == f"{checkpoint / name} has other contents than were written"
    )


def test_sizes_are_readable(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1234567))
    write_manifest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(4096))
    assert verify_manifest(tmp_path).endswith("has 4,096 bytes instead of 1,234,567")


def test_a_file_in_place_of_a_folder_is_found(checkpoint):
    (checkpoint / "empty").unlink()
    (checkpoint / "empty").mkdir()
    assert verify_manifest(checkpoint) == f"{checkpoint / 'empty'} is missing"


def test_a_missing_manifest_says_that_writing_was_interrupted(tmp_path):
    folder = write(tmp_path / "checkpoint-5", listed=False)
    assert verify_manifest(folder) == f"{folder / MANIFEST} is missing: writing it was interrupted"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"empty": {"bytes": 0,', b"\xff\xfe", b"null", b"[]", b"{}", b"7", b'"manifest"',
     b'{"empty": 3}', b'{"empty": {}}', b'{"empty": {"bytes": 0}}', b'{"empty": {"sha256": ""}}'],
)  # fmt: skip
def test_a_broken_manifest_is_named(checkpoint, content):
    (checkpoint / MANIFEST).write_bytes(content)
    assert verify_manifest(checkpoint).startswith(f"{checkpoint / MANIFEST} ")


def test_a_manifest_that_is_cut_anywhere_is_broken(checkpoint):
    content = (checkpoint / MANIFEST).read_bytes()
    for size in range(0, len(content), 7):
        (checkpoint / MANIFEST).write_bytes(content[:size])
        assert verify_manifest(checkpoint).startswith(f"{checkpoint / MANIFEST} ")


def test_a_manifest_that_could_not_be_written_does_not_spoil_the_next_one(monkeypatch, tmp_path):
    folder = write(tmp_path / "checkpoint-5", listed=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            write_manifest(folder)
    assert verify_manifest(folder) == f"{folder / MANIFEST} is missing: writing it was interrupted"
    # What a run that was killed there leaves is no file of the checkpoint.
    (folder / f".partial-12345-{MANIFEST}").write_text("{")
    write_manifest(folder)
    assert not list(folder.glob(".*"))
    assert verify_manifest(folder) is None
    assert set(json.loads((folder / MANIFEST).read_text())) == set(FILES)


def test_a_checkpoint_that_is_written_again_is_listed_again(checkpoint):
    (checkpoint / "trainer_state.json").write_bytes(b'{"global_step": 10}')
    assert verify_manifest(checkpoint) is not None
    write_manifest(checkpoint)
    assert verify_manifest(checkpoint) is None


def test_checkpoints_come_latest_first_by_number(tmp_path):
    for name in ("checkpoint-5", "checkpoint-100", "checkpoint-20", "checkpoint-final", "runs",
                 "checkpoint-", "checkpoint-7b", "my-checkpoint-9"):  # fmt: skip
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-300").touch()
    found = [path.name for path in checkpoints_in(tmp_path)]
    assert found == ["checkpoint-100", "checkpoint-20", "checkpoint-5"]
    assert checkpoints_in(tmp_path / "gone") == []


def test_the_latest_whole_checkpoint_is_resumed_from(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for step in (5, 10, 100):
        write(tmp_path / f"checkpoint-{step}")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert caplog.messages == [f"resuming from {tmp_path / 'checkpoint-100'}"]


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for step in (5, 10, 15, 100):
        write(tmp_path / f"checkpoint-{step}", listed=step != 100)
    (tmp_path / "checkpoint-15" / "rng_state.pth").unlink()
    os.truncate(tmp_path / "checkpoint-10" / "model.safetensors", 3)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    hundred, fifteen, ten, five = caplog.records
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3 + ["INFO"]
    for record, step, problem in (
        (
            hundred,
            100,
            f"{tmp_path}/checkpoint-100/{MANIFEST} is missing: writing it was interrupted",
        ),
        (fifteen, 15, f"{tmp_path}/checkpoint-15/rng_state.pth is missing"),
        (ten, 10, f"{tmp_path}/checkpoint-10/model.safetensors has 3 bytes instead of 700"),
    ):
        assert record.getMessage() == f"not resuming from {tmp_path}/checkpoint-{step}: {problem}"
    assert five.getMessage() == f"resuming from {tmp_path}/checkpoint-5"


@pytest.mark.parametrize("steps", [(), (5, 10)])
def test_without_a_whole_checkpoint_a_run_starts_at_its_beginning(tmp_path, caplog, steps):
    caplog.set_level(logging.INFO)
    for step in steps:
        write(tmp_path / f"checkpoint-{step}", listed=False)
    assert last_whole_checkpoint(tmp_path) is None
    assert len(caplog.messages) == len(steps) + 1
    assert caplog.messages[-1] == (
        f"{tmp_path} holds no whole checkpoint; starting at the beginning"
    )


def names(folder):
    return {path.name for path in checkpoints_in(folder)}


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (None, {5, 10, 15, 20}),
        (0, {5, 10, 15, 20}),
        (5, {5, 10, 15, 20}),
        (3, {10, 15, 20}),
        (2, {15, 20}),
        (1, {20}),
    ],
)
def test_the_oldest_checkpoints_are_removed(tmp_path, limit, left):
    for step in (5, 10, 15, 20):
        write(tmp_path / f"checkpoint-{step}")
    (tmp_path / "runs").mkdir()
    rotate(tmp_path, limit, keep={tmp_path / "checkpoint-20"})
    assert names(tmp_path) == {f"checkpoint-{step}" for step in left}
    assert (tmp_path / "runs").exists()


def test_checkpoints_without_a_manifest_are_removed_first_whatever_their_number(tmp_path):
    for step in (5, 10, 15, 20):
        write(tmp_path / f"checkpoint-{step}", listed=step != 20)
    rotate(tmp_path, 3, keep={tmp_path / "checkpoint-15"})
    assert names(tmp_path) == {"checkpoint-5", "checkpoint-10", "checkpoint-15"}
    rotate(tmp_path, 2, keep={tmp_path / "checkpoint-15"})
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-15"}


def test_what_is_to_be_kept_counts_and_stays_beyond_the_limit(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path / f"checkpoint-{step}")
    rotate(tmp_path, 1, keep={tmp_path / "checkpoint-5", tmp_path / "checkpoint-15"})
    assert names(tmp_path) == {"checkpoint-5", "checkpoint-15"}


@pytest.mark.parametrize(
    ("state", "by_fsdp"),
    [("optimizer_0/a", True), ("optimizer.bin", True), ("optimizer.pt", False)],
)
def test_a_checkpoint_is_read_by_what_wrote_it(tmp_path, state, by_fsdp):
    (tmp_path / state).parent.mkdir(exist_ok=True)
    (tmp_path / state).touch()
    check_launcher(tmp_path, sharded=by_fsdp)
    with pytest.raises(ValueError, match="was written with") as refused:
        check_launcher(tmp_path, sharded=not by_fsdp)
    fsdp = "with FSDP (accelerate launch --config_file runs/accelerate/fsdp2.yaml)"
    writer, reader = str(refused.value).split(" and cannot be read ")
    assert fsdp in (writer if by_fsdp else reader)
    assert "with one process or DDP" in (reader if by_fsdp else writer)


def test_a_checkpoint_without_an_optimiser_is_not_gone_on_from(tmp_path):
    with pytest.raises(ValueError, match="holds no state of the optimiser"):
        check_launcher(write(tmp_path / "checkpoint-5"), sharded=False)


def test_manifests_are_written_one_after_the_other(tmp_path, monkeypatch):
    order = []

    def slow(folder):
        order.append(("begin", folder.name))
        write_manifest(folder)
        order.append(("end", folder.name))

    monkeypatch.setattr(checkpoints, "write_manifest", slow)
    folders = [write(tmp_path / f"checkpoint-{step}", listed=False) for step in (1, 2)]
    manifests = BackgroundManifests()
    for folder, limit in zip(folders, (None, 1), strict=True):
        manifests.start(folder, limit, keep={folder})
    manifests.wait()
    assert order == [(what, f"checkpoint-{k}") for k in (1, 2) for what in ("begin", "end")]
    # The older one went once the newer one was listed.
    assert checkpoints_in(tmp_path) == [folders[1]]
    assert verify_manifest(folders[1]) is None


def test_a_manifest_that_the_disk_does_not_take_is_an_error_when_it_is_waited_for(
    tmp_path, monkeypatch
):
    def full(folder):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "write_manifest", full)
    earlier = write(tmp_path / "checkpoint-1")
    folder = write(tmp_path / "checkpoint-2", listed=False)
    manifests = BackgroundManifests()
    manifests.start(folder, None, keep={folder})
    with pytest.raises(OSError, match=r"could not be written .*no space left.*earlier checkpoints"):
        manifests.wait()
    manifests.wait()  # it is said once
    assert checkpoints_in(tmp_path) == [earlier]

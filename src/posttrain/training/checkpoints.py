"""Checkpoints that an interrupted run can trust.

Trainer writes the files of a checkpoint one after the other, so a run that is killed meanwhile
leaves a folder that looks like a checkpoint. Here the last thing written is a *manifest*, the
list of its files with their sizes and hashes, and a run is resumed only from a folder that agrees
with it.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from posttrain.errors import UserError
from posttrain.storage.files import whole_file

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """List the files of a finished checkpoint in it, atomically."""
    # One that a run left which was killed here is no file of the checkpoint.
    for partial in folder.glob(f".partial-*-{MANIFEST}"):
        partial.unlink()
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    with whole_file(folder / MANIFEST) as file:
        json.dump(files, file, indent=1)


def verify_manifest(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if it is as it was written."""
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except FileNotFoundError:
        return f"{folder / MANIFEST} is missing: writing it was interrupted"
    except (OSError, ValueError) as error:
        return f"{folder / MANIFEST} cannot be read ({error})"
    except (AttributeError, KeyError, TypeError):
        files = {}
    if not files:
        return f"{folder / MANIFEST} lists no files with their sizes and hashes"
    for name, (size, sha256) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size:,} bytes instead of {size:,}"
        if _hash(path) != sha256:
            return f"{path} has other contents than were written"
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """Folders of checkpoints, whole or not, the latest first."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that is as it was written, or None; others are named in the log."""
    for path in checkpoints_in(folder):
        problem = verify_manifest(path)
        if problem is None:
            logger.info("resuming from %s", path)
            return path
        logger.warning("not resuming from %s: %s", path, problem)
    logger.info("%s holds no whole checkpoint; starting at the beginning", folder)
    return None


def rotate(folder: Path, limit: int | None, *, keep: Set[Path]) -> None:
    """Remove checkpoints beyond a limit: first those without a manifest, then the oldest.

    Those to ``keep`` stay in any case, and count. With a ``limit`` of None or 0 all stay.
    """
    others = [path for path in checkpoints_in(folder) if path not in keep]
    others.sort(key=lambda path: not (path / MANIFEST).exists())
    for path in others[max(limit - len(keep), 0) :] if limit else ():
        shutil.rmtree(path, ignore_errors=True)


class BackgroundManifests:
    """Writes manifests while training goes on, one after the other.

    Reading a large checkpoint again takes minutes, in which all other processes would wait for this
    one. Moving finished folders into place instead would take no time, but a file that is damaged
    later would not be noticed. Until its manifest is there, a checkpoint counts as not written, and
    those before it stay.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def start(self, folder: Path, limit: int | None, *, keep: Set[Path]) -> None:
        """List a checkpoint's files, then remove others beyond the limit (see :func:`rotate`)."""
        self.wait()
        self._pending = self._threads.submit(_finish, folder, limit, keep)

    def wait(self) -> None:
        """Wait for what was started; an ``OSError`` if the disk does not take it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _finish(folder: Path, limit: int | None, keep: Set[Path]) -> None:
    try:
        write_manifest(folder)
    except OSError as error:
        raise discard(folder, error) from error
    rotate(folder.parent, limit, keep=keep)


def discard(folder: Path, error: Exception) -> OSError:
    """Remove a checkpoint that could not be written; returns the error to raise."""
    # What is there of it would fill the disk that is to be written again.
    shutil.rmtree(folder, ignore_errors=True)
    return OSError(
        f"{folder} could not be written ({error}); earlier checkpoints are whole: make room and go "
        "on from them (--resume)"
    )


def check_launcher(checkpoint: Path, *, sharded: bool) -> None:
    """Refuse a checkpoint that processes started in another way have written.

    ``sharded`` says whether this run spreads weights over processes (FSDP). One without the
    optimiser's state is refused, too.
    """
    # As accelerate names them, in parts and in one piece, and Trainer.
    by_fsdp = any((checkpoint / name).exists() for name in ("optimizer_0", "optimizer.bin"))
    by_others = (checkpoint / "optimizer.pt").exists()
    if not by_fsdp and not by_others:
        raise UserError(
            f"{checkpoint} holds no state of the optimiser (save_only_model), so a run cannot go "
            "on from it as if nothing had happened; start another one in another output_dir"
        )
    if by_fsdp != sharded:
        fsdp = "FSDP (accelerate launch --config_file runs/accelerate/fsdp2.yaml)"
        plain = "one process or DDP"
        before, now = (fsdp, plain) if by_fsdp else (plain, fsdp)
        raise UserError(
            f"{checkpoint} was written with {before} and cannot be read with {now}; resume it with "
            "what it was started with, or start another run in another output_dir"
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

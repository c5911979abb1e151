"""Which run a folder holds: settings and data, so that it goes on as the same run or not at all."""

import datetime
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.evaluation.calibration import FILE as CALIBRATION
from posttrain.storage.files import whole_file
from posttrain.training import saving
from posttrain.training.checkpoints import checkpoints_in

SETTINGS = "settings.json"

#: Settings that change how a run is computed and watched, but not what it computes.
FREE = (
    "resume", "overwrite_output_dir", "processes", "resamples", "output_dir",
    "max_tokens_per_device", "disable_tqdm", "report_to", "run_name", "project", "trackio",
    "push_to_hub", "dataset_num_proc",
)  # fmt: skip
FREE_BEGINNINGS = ("logging_", "log_", "save_", "eval_s", "dataloader_", "hub_", "ddp_", "fsdp")

#: With early stopping, those of them that decide which model remains.
CHOOSING = ("eval_steps", "eval_strategy", "save_steps", "save_strategy")

#: Files beside the weights that speak of a model which is no longer there once it is replaced.
OF_THE_MODEL = (CALIBRATION, "run.json", "trainer_state.json", "loss.png", "accuracy.png")

_ANOTHER = "start another run in another output_dir"


def claim(folder: Path, described: dict[str, Any], *, main: bool) -> datetime.date:
    """Make sure that a folder can hold this run, before anything is read; nothing is written.

    A new run needs a folder without one, unless it may overwrite that; a run to resume needs its
    own. ``described`` are all settings as JSON has them, ``settings`` and ``training``. Only the
    ``main`` process looks for another run. Returns the day on which the run was started.

    Raises:
        UserError: If the folder holds another run, or what is no run of this package.
    """
    today = datetime.date.today()
    settings = described["settings"]
    if settings["resume"] and settings["overwrite_output_dir"]:
        raise UserError("resume and overwrite_output_dir exclude each other; give one of them")
    if not settings["resume"]:
        holds_run = _holds_run(folder)
        if main and holds_run and settings["overwrite_output_dir"]:
            _check_removable(folder, settings["model"])
        elif main and holds_run:
            raise UserError(
                f"{folder} holds a run already; go on with it (--resume), replace it "
                "(--overwrite_output_dir), or choose another output_dir"
            )
        elif main:
            _check_free(folder)
        return today
    before = _read(folder)
    stops_early = described["training"].get("early_stopping_patience") is not None
    changed = [
        f"{name} ({before[part].get(name)!r} → {value!r})"
        for part in ("settings", "training")
        for name, value in described[part].items()
        if not _is_free(name, stops_early) and before[part].get(name) != value
    ]
    if changed:
        raise UserError(
            f"the run in {folder} was started with other settings: {', '.join(changed)}; resume it "
            f"with its own, or {_ANOTHER}"
        )
    return datetime.date.fromisoformat(before["day"]) if "day" in before else today


def _is_free(name: str, stops_early: bool) -> bool:
    if stops_early and name in CHOOSING:
        return False
    return name in FREE or name.startswith(FREE_BEGINNINGS)


def claim_data(
    folder: Path,
    described: dict[str, Any],
    contents: Mapping[str, str | None],
    day: datetime.date,
    *,
    main: bool,
) -> None:
    """Say in a folder which run it holds, or make sure that a run goes on with the same data.

    ``contents`` are hashes of data and tokenizer by name; the rest is as for :func:`claim`, which
    comes first and returns the ``day``. All has been found good by now, so a run that is to be
    overwritten is removed. Only the ``main`` process writes.
    """
    if not described["settings"]["resume"]:
        if main:
            if _holds_run(folder):
                _remove_run(folder)
            _write(folder, described | {"day": day.isoformat(), "data": contents})
        return
    kept = _read(folder)
    # A run of an earlier version that was stopped before its data were read has not noted them.
    before = kept.get("data")
    if before is None:
        if main:
            _write(folder, kept | {"data": contents})
        return
    changed = [name for name, content in contents.items() if before.get(name) != content]
    if changed:
        raise UserError(
            f"{' and '.join(changed)} of the run in {folder} have other contents than when it was "
            f"started, under the same names; resume it with what they were, or {_ANOTHER}"
        )


def _check_free(folder: Path) -> None:
    """Refuse a folder in which a run would replace files of the user's."""
    if (folder / SETTINGS).exists():
        _read(folder)
        return
    others = [*folder.glob("*.safetensors"), folder / "README.md", folder / "run.json"]
    for path in others:
        if path.exists():
            raise UserError(
                f"{folder} holds {path.name}, which the run would replace; choose another "
                "output_dir, or move that file away"
            )


def _holds_run(folder: Path) -> bool:
    return (folder / saving.CONFIG).exists() or bool(checkpoints_in(folder))


def _check_removable(folder: Path, model: str) -> None:
    """Refuse to remove what no run of this package has left, or what the new run starts from."""
    if not (folder / SETTINGS).exists():
        raise UserError(
            f"{folder} holds a model that no run of posttrain has left there ({SETTINGS} is "
            "missing), so it is not overwritten; choose another output_dir, or remove it yourself"
        )
    _read(folder)
    if Path(model).exists() and Path(model).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"the run starts from {model}, which overwrite_output_dir would remove; choose another "
            "output_dir"
        )


def _remove_run(folder: Path) -> None:
    """Remove what a run has left: checkpoints, weights and the account of them.

    Other files, and the rest of the run's, which the next one replaces, stay.
    """
    # First what makes it a model, so that nothing half removed is taken for one.
    (folder / saving.CONFIG).unlink(missing_ok=True)
    for checkpoint in checkpoints_in(folder):
        shutil.rmtree(checkpoint)
    for path in (*folder.glob("*.safetensors*"), *(folder / name for name in OF_THE_MODEL)):
        path.unlink(missing_ok=True)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    with whole_file(folder / SETTINGS) as file:
        json.dump(content, file, indent=2)


def _read(folder: Path) -> dict[str, Any]:
    """What :func:`_write` has written."""
    path = folder / SETTINGS
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run to resume; start one without --resume") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or {_ANOTHER}") from None
    try:
        datetime.date.fromisoformat(noted.get("day", "2000-01-01"))
    except (AttributeError, TypeError, ValueError):
        noted = None
    parts = ("settings", "training", "data")
    # Data are noted once they have been read.
    if not isinstance(noted, dict) or not all(
        isinstance(noted.get(part, {} if part == "data" else None), dict) for part in parts
    ):
        raise UserError(f"{path} does not hold the settings of a run; restore it, or {_ANOTHER}")
    return noted

"""From TRL's settings to those of ``posttrain train``, and what became of them in words."""

import glob
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.data_files import (
    DataFilesPatternsDict,
    EmptyDatasetError,
    get_data_patterns,
)

from posttrain.config.trl import SETTINGS
from posttrain.data.sources.named import ON_HUB, is_file
from posttrain.errors import UserError

logger = logging.getLogger(__name__)

#: Those of which only the name is another one.
RENAMED = {
    "model_name_or_path": "model",
    "torch_dtype": "dtype",
    "attn_implementation": "attention",
    "dataset_num_proc": "processes",
}
#: What TRL takes where a setting is not given.
BATCH_SIZE, LORA_RANK = 8, 16


def translated(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of ``posttrain train`` that say what some of TRL's say.

    What becomes of each is logged. ``ours`` are the settings that are given by the names of this
    package, as they stand in a file or as text.

    Raises:
        UserError: If one of TRL's is not supported, or they make no sense together.
    """
    given = {name: value for name, value in theirs.items() if value is not None}
    made: dict[str, Any] = {}
    for name, value in given.items():
        one = SETTINGS[name]
        if one.fate == "refused" and value != one.harmless:
            raise UserError(f"{name}={value!r} of TRL is not supported here: {one.remark}")
        if one.fate == "no effect":
            logger.info("%s has no effect here: %s", name, one.remark)
        if one.fate == "same":
            made[name] = value
    renamed = {name: present for name, present in RENAMED.items() if name in given}
    made |= {present: given[name] for name, present in renamed.items()}
    if renamed:
        pairs = ", ".join(f"{name} is {present}" for name, present in renamed.items())
        logger.info("TRL's settings have other names here: %s", pairs)
    return made | _lengths(given, ours) | _steps(given) | _adapters(given) | _data(given, ours)


def _lengths(given: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "max_length" in given:
        made["max_tokens"] = given["max_length"]
        if "skip_too_long" not in ours:
            made["skip_too_long"] = True
        logger.info(
            "max_length %d: max_tokens is that; TRL leaves out all pairs that are longer, here "
            "prompts are cut on the left to fit, and only groups whose responses alone are longer "
            "are left out (skip_too_long)", given["max_length"],
        )  # fmt: skip
    if "chat_template_path" in given:
        path = Path(given["chat_template_path"])
        if path.is_dir():
            path = path / "chat_template.jinja"
        if not path.is_file():
            raise UserError(
                f"chat_template_path {given['chat_template_path']}: there is no file {path}; give "
                "a file with a Jinja template, or a folder with chat_template.jinja"
            )
        made["chat_template"] = str(path)
    return made


def _steps(given: Mapping[str, Any]) -> dict[str, Any]:
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if not any(name in given for name in names):
        return {}
    batch, accumulated = given.get(names[0], BATCH_SIZE), given.get(names[1], 1)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as accelerate and torchrun say it
    for name, value in zip(names, (batch, accumulated), strict=True):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    pairs = batch * accumulated * processes
    logger.info(
        "%s %d × %s %d on %s: pairs_per_step is %d; memory is limited by max_tokens_per_device",
        names[0], batch, names[1], accumulated,
        "1 process" if processes == 1 else f"{processes} processes", pairs,
    )  # fmt: skip
    return {"pairs_per_step": pairs}


def _adapters(given: Mapping[str, Any]) -> dict[str, Any]:
    whole = [name for name in given.get("lora_modules_to_save", ()) if name != "score"]
    if whole:
        raise UserError(
            f"lora_modules_to_save names {whole[0]}, and beside adapters only the score head is "
            "trained whole, with or without that setting; leave it out"
        )
    if not given.get("use_peft"):
        if "lora_r" in given:
            logger.warning(
                "lora_r has no effect without use_peft, as in TRL, so all weights are trained; for "
                "adapters set lora_rank, or use_peft"
            )
        return {}
    rank = given.get("lora_r", LORA_RANK)
    if rank < 1:
        raise UserError(f"lora_r must be at least 1, not {rank}; leave use_peft out to train all")
    logger.info("use_peft: lora_rank is %d; adapters are merged into the model at the end", rank)
    return {"lora_rank": rank}


def _data(given: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    name = given.get("dataset_name")
    about = [one for one in given if one.startswith("dataset_") and one != "dataset_num_proc"]
    if name is None:
        about = [one for one in about if one != "dataset_streaming"]
        if about:
            raise UserError(
                f"{about[0]} says which part of dataset_name is meant, which is not given; with "
                "data, name the part in it: OWNER/NAME/CONFIG:SPLIT"
            )
        return {}
    config, part = given.get("dataset_config"), given.get("dataset_train_split", "train")
    test = given.get("dataset_test_split", "test")
    asked = ours.get("eval_strategy", "no") != "no" or "early_stopping_patience" in ours
    evaluated = asked and "eval_data" not in ours
    local = is_file(name) or Path(name).is_dir()
    if local and config is not None:
        raise UserError(
            f"dataset_config {config} is of data sets on the hub, and {name} is on this machine; "
            "leave it out, or name the folder of that configuration"
        )
    if is_file(name):
        splits = {"train": [name]}
    elif Path(name).is_dir():
        splits = _splits(Path(name))
    elif (match := ON_HUB.fullmatch(name)) and not any(match.group("subset", "at", "split")):
        whole = name if config is None else f"{name}/{config}"
        splits = {one: [f"{whole}:{one}"] for one in (part, test)}
    else:
        raise UserError(
            f"dataset_name {name!r} is no folder, no file that is read here, and no OWNER/NAME of "
            "the Hugging Face hub; see data for what else is read"
        )
    if part not in splits:
        known = ", ".join(splits)
        raise UserError(f"{name} has no split {part!r} (dataset_train_split); it has {known}")
    made: dict[str, Any] = {"data": splits[part]}
    logger.info("dataset_name %s: data is %s", name, ", ".join(splits[part]))
    if not evaluated:
        return made
    if test in splits:
        logger.info("dataset_test_split %s: eval_data is %s", test, ", ".join(splits[test]))
        return made | {"eval_data": splits[test]}
    if "dataset_test_split" in given:
        known = ", ".join(splits)
        raise UserError(f"{name} has no split {test!r} (dataset_test_split); it has {known}")
    logger.info("%s has no split 'test': eval_fraction of its groups are held out", name)
    return made


def _splits(folder: Path) -> dict[str, list[str]]:
    """The files of a folder by split, as ``datasets.load_dataset`` finds them."""
    # Its paths have links resolved.
    root = folder.resolve()
    try:
        patterns = get_data_patterns(glob.escape(str(root)))
        found = DataFilesPatternsDict.from_patterns(patterns).resolve(glob.escape(str(root)))
    except (EmptyDatasetError, FileNotFoundError):
        found = {}
    splits = {
        str(split): files
        for split, paths in found.items()
        if (
            files := [
                str(folder / Path(path).relative_to(root)) for path in paths if is_file(str(path))
            ]
        )
    }
    if not splits:
        raise UserError(
            f"{folder} holds no files of data (.jsonl, .jsonl.gz, .csv, .parquet); files by split "
            "are named such as train.jsonl, or data/train-00000-of-00001.parquet"
        )
    return splits

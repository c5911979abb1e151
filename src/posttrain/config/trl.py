"""The settings of ``trl reward``, and what becomes of each of them here.

:data:`SETTINGS` is the whole account: ``posttrain train`` reads it, the book's page *From TRL*
shows it, and a test compares it with TRL's own dataclasses. What it does not list is one of
transformers' ``TrainingArguments``, which mean the same here, or are refused by
:class:`.training.config.RankingConfig`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_origin

from posttrain.config.fields import typed
from posttrain.errors import UserError

Fate = Literal["same", "translated", "no effect", "refused"]


@dataclass(frozen=True)
class Setting:
    """What becomes of one of TRL's settings.

    Attributes:
        fate: Same name and meaning, translated, accepted without effect, or refused.
        remark: What to know about it; of a refused one, the reason and what to do instead.
        here: Settings of this package that are set instead, and so must not be given beside it.
        kind: Its type, where this package's own settings cannot read it: they lack it, or null.
        harmless: The value of a refused one that asks for nothing.
    """

    fate: Fate
    remark: str
    here: tuple[str, ...] = ()
    kind: Any = None
    harmless: Any = False


def _translated(remark: str, *here: str, kind: Any = str) -> Setting:
    return Setting("translated", remark, here, kind)


def _same(remark: str, kind: Any = None) -> Setting:
    return Setting("same", remark, (), kind)


def _without_effect(remark: str, kind: Any = bool) -> Setting:
    return Setting("no effect", remark, (), kind)


def _refused(remark: str, kind: Any = bool, harmless: Any = False) -> Setting:
    return Setting("refused", remark, (), kind, harmless)


#: By name, in the order of the book's table.
SETTINGS: dict[str, Setting] = {
    # What is trained.
    "model_name_or_path": _translated("", "model"),
    "model_revision": _same("a branch, tag or commit, of a name on the hub only"),
    "dtype": _same(
        "TRL: float32; here as stored with LoRA, otherwise at least float32; no float16", str
    ),
    "torch_dtype": _translated("an older name of dtype", "dtype"),
    "attn_implementation": _translated(
        "also shared_prefix, by default where it can be", "attention"
    ),
    "trust_remote_code": _refused(
        "code of a checkpoint is never run; take a class of transformers"
    ),
    "model_init_kwargs": _refused(
        "give dtype, attn_implementation and model_revision by themselves", dict, {}
    ),
    "chat_template_path": _translated(
        "a file, or a folder with chat_template.jinja", "chat_template"
    ),
    "eos_token": _refused(
        "the chat template ends responses; set eos_token in the model's tokenizer_config.json",
        str,
        None,
    ),
    "pad_token": _same("needed where there is none: one that ends responses is refused"),
    "disable_dropout": _same("TRL: true, LoRA's dropout included; here false, and LoRA's apart"),
    # Data.
    "dataset_name": _translated(
        "a file, a folder with files by split, or owner/name on the hub", "data"
    ),
    "dataset_config": _translated("becomes data OWNER/NAME/CONFIG", "data"),
    "dataset_train_split": _translated(
        "becomes data OWNER/NAME:SPLIT, or a folder's files", "data"
    ),
    "dataset_test_split": _translated(
        "where eval_strategy asks for evaluation; without such a split, or without eval_strategy, "
        "eval_fraction of the training data is held out",
        "eval_data",
    ),
    "dataset_streaming": _without_effect("data are kept on disk, never whole in memory"),
    "datasets": _refused(
        "name them in data, [a.jsonl, owner/name]; shares are given by mix", list, []
    ),
    "streaming": _without_effect("as dataset_streaming"),
    "test_split_size": _refused("set eval_fraction", float, None),
    "ignore_bias_buffers": _without_effect("trl reward does not read it either"),
    "dataset_num_proc": _translated("", "processes", kind=int),
    "max_length": _translated(
        "TRL leaves out every pair that is longer; here prompts are cut on the left to fit, and "
        "only groups whose responses alone are longer are left out (skip_too_long). TRL: 1024; "
        "here the model's context",
        "max_tokens",
        kind=int,
    ),
    "pad_to_multiple_of": _without_effect("rows are padded to the longest of a batch", int | str),
    "remove_unused_columns": _without_effect(
        "columns that have no place are named with their count"
    ),
    # Adapters.
    "use_peft": _translated("becomes lora_rank 16, or lora_r", "lora_rank", kind=bool),
    "lora_r": _translated("with use_peft", "lora_rank", kind=int),
    "lora_alpha": _same(""),
    "lora_dropout": _same("TRL: 0.05, which its disable_dropout turns off; here 0"),
    "lora_target_modules": _same(
        "TRL: peft's choice for the class; here all linear layers", list[str]
    ),
    "lora_target_parameters": _refused(
        "adapters are put on linear layers; see lora_target_modules", list[str], None
    ),
    "lora_modules_to_save": _translated(
        "only score, which is always trained whole; others are refused", kind=list[str]
    ),
    "lora_task_type": _without_effect("it is always SEQ_CLS", str),
    "use_rslora": _refused("set lora_alpha to alpha × √rank, which scales adapters as it does"),
    "use_dora": _refused("use LoRA"),
    "load_in_4bit": _refused(
        "weights are not quantised; use lora_rank with dtype bfloat16, which takes 2 bytes a "
        "weight (16 GB for 8 billion)"
    ),
    "load_in_8bit": _refused("as load_in_4bit: use lora_rank with dtype bfloat16"),
    "bnb_4bit_quant_type": _without_effect("without load_in_4bit it says nothing", str),
    "use_bnb_nested_quant": _without_effect("without load_in_4bit it says nothing"),
    "bnb_4bit_quant_storage": _without_effect("without load_in_4bit it says nothing", str),
    # Steps and memory.
    "per_device_train_batch_size": _translated(
        "times gradient_accumulation_steps and processes; TRL: 8; here 512 pairs a step",
        *("pairs_per_step", "groups_per_step"),
        kind=int,
    ),
    "gradient_accumulation_steps": _translated(
        "see per_device_train_batch_size; micro-batches follow from max_tokens_per_device",
        *("pairs_per_step", "groups_per_step"),
        kind=int,
    ),
    "per_device_eval_batch_size": _without_effect("max_tokens_per_device limits memory", int),
    "gradient_checkpointing": _same("TRL: true; here as transformers has it, false"),
    "activation_offloading": _refused(
        "use gradient_checkpointing, and a smaller max_tokens_per_device"
    ),
    "bf16": _same(
        "TRL: true unless fp16; here false, and then products are computed as stored", bool
    ),
    "use_liger_kernel": _same("needs the package liger-kernel and a GPU"),
    # What is optimised and watched.
    "center_rewards_coefficient": _same("null is 0", float),
    "eval_strategy": _same(
        "see dataset_test_split; metrics are eval_loss, eval_accuracy and others"
    ),
    "report_to": _same("a package that is missing is named before anything is read"),
    "push_to_hub": _same("network and token are tried first; the finished model is uploaded, once"),
    "hub_strategy": _without_effect("the finished model is uploaded, once", str),
    "hub_always_push": _without_effect("the finished model is uploaded, once"),
}

#: Those that this package reads itself, instead of leaving them to its own settings.
FOREIGN = {name: one for name, one in SETTINGS.items() if one.kind is not None}


def split_options(prog: str, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of TRL among options, and all other arguments in their order.

    >>> split_options("posttrain train", ["--use_peft", "--seed", "3", "--max-length=64"])
    ({'use_peft': True, 'max_length': 64}, ['--seed', '3'])

    Raises:
        UserError: If a value is of another type.
    """
    parser = argparse.ArgumentParser(
        prog=prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name, one in FOREIGN.items():
        flags = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        shape: dict[str, Any] = {}
        if one.kind is bool:
            shape = {"nargs": "?", "const": True}
        elif get_origin(one.kind) is list or one.kind is list:
            shape = {"nargs": "+"}
        parser.add_argument(*flags, dest=name, **shape)
    # TRL's way to turn off what is on by default there.
    for name in ("disable_dropout", "gradient_checkpointing"):
        parser.add_argument(f"--no_{name}", dest=name, action="store_const", const=False)
    known, rest = parser.parse_known_args(arguments)
    return {name: read(name, value, "--") for name, value in vars(known).items()}, rest


def read(name: str, value: Any, where: str) -> Any:
    """A setting's value, of its type; None, which says nothing, stays None.

    Raises:
        UserError: If it is of another type; the message begins with ``where``.
    """
    kind = FOREIGN[name].kind if name in FOREIGN else bool
    if value is None:
        return None
    if get_origin(kind) is list and isinstance(value, str):
        value = [value]
    return typed(value, kind, f"{where}{name}")


def refuse_both(theirs: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> None:
    """Refuse a setting of TRL beside the one of this package that says the same.

    Raises:
        UserError: If there are such; the message begins with ``where``.
    """
    for name, value in theirs.items():
        for own in FOREIGN[name].here if name in FOREIGN and value is not None else ():
            if own in ours:
                raise UserError(
                    f"{where}{name} of TRL and {own} say the same thing; give one of them"
                )


def overruled(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> set[str]:
    """Those of TRL's settings that settings of this package take the place of."""
    found = {
        name
        for name in theirs
        if name in FOREIGN and not ours.keys().isdisjoint(FOREIGN[name].here)
    }
    # It says which part of a data set is meant, of which nothing is read.
    return found | ({"dataset_test_split"} & theirs.keys() if "data" in ours else set())

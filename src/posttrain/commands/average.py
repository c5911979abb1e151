"""``posttrain average``: the mean of the weights of several models, as one model."""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from posttrain.commands.common import folder_of
from posttrain.commands.pages import PAGES
from posttrain.config.help import Formatter
from posttrain.errors import UserError
from posttrain.evaluation.calibration import FILE
from posttrain.evidence import records
from posttrain.models import embedded, reward_model
from posttrain.models.adapters import base_of
from posttrain.models.loading import contents, load_config, load_language_model, load_tokenizer
from posttrain.policy.averaging import average
from posttrain.rows.rendering import tokenizer_hash
from posttrain.training import saving
from posttrain.training.model_card import table

logger = logging.getLogger(__name__)

#: What is averaged, by the end of its class's name, and what it is for.
KINDS = {
    "ForSequenceClassification": ("reward model", "text-classification"),
    "ForCausalLM": ("language model", "text-generation"),
}

CARD = """---
{header}
---

# Average of {count} {kind}s

Each weight is the mean of those of the models below, all of which count the same (Llama 3, section
4.1.5). The tokenizer is that of the first.

{sources}

A hash is of configuration and weights; for a name on the hub it is the commit. The licences of the
models apply. Made with `posttrain average`; the whole account is in `run.json`.
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain average`` and return its exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("posttrain").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    parser = argparse.ArgumentParser(
        prog="posttrain average",
        description="Write a model whose weights are the mean of those of several language models, "
        "or of several reward models, that started from one checkpoint. Calibrations are of one "
        "model's scores, so they are not copied; make a new one (posttrain calibrate).",
        epilog=PAGES["average"].epilog,
        formatter_class=Formatter,
    )
    parser.add_argument(
        "models", nargs="+", metavar="FOLDER", help="folders, or names on the Hugging Face hub"
    )
    parser.add_argument(
        "--output_dir", required=True, type=Path, metavar="DIR", help="where to write the mean"
    )
    known = parser.parse_args(arguments)
    kind = run(known.models, known.output_dir)
    print(f"wrote {known.output_dir}: the mean of {len(known.models)} {kind}s, and its card")
    return 0


def run(names: Sequence[str], output: Path) -> str:
    """Average models and save the mean in a folder; returns what kind of model it is.

    Raises:
        UserError: If there are fewer than two, they are not alike, or the folder holds a model.
        OSError: If the folder cannot be written.
    """
    started = time.time()
    if len(names) < 2:
        raise UserError(f"there is one model, {names[0]}, to average; give two or more")
    if (output / saving.CONFIG).exists():
        raise UserError(f"{output} holds a model already; choose another output_dir, or remove it")
    checkpoints = [embedded.find(name) for name in names]
    suffix = _check_alike(names, checkpoints)
    kind, task = KINDS[suffix]
    hashes = [contents(checkpoint) for checkpoint in checkpoints]
    models: list[Any] = []
    for checkpoint in checkpoints:
        if kind == "reward model":
            models.append(saving.finish(reward_model.load(checkpoint, attention="eager")[0]))
        else:
            models.append(load_language_model(checkpoint, dtype="auto"))
    merged = average(models)
    tokenizer = load_tokenizer(checkpoints[0], pads=False)
    for name in names:
        folder = folder_of(name)
        if folder is not None and (folder / FILE).exists():
            logger.warning(
                "the calibration of %s is of its own scores and is not copied; make one of the "
                "mean: posttrain calibrate --model %s", name, output,
            )  # fmt: skip
    sources = [
        {"model": name, "contents": content} for name, content in zip(names, hashes, strict=True)
    ]
    account = {
        "kind": kind,
        "class": type(merged).__name__,
        "sources": sources,
        "environment": records.environment(started),
    }
    header = ModelCardData(
        base_model=[name for name in map(embedded.public_name, names) if name] or None,
        library_name="transformers",
        pipeline_tag=task,
        tags=[kind.replace(" ", "-"), "posttrain", "merge"],
    )
    rows = [(f"`{one['model']}`", f"`{one['contents']}`") for one in sources]
    card = CARD.format(
        header=header.to_yaml(),
        count=len(names),
        kind=kind,
        sources=table(("model", "hash"), rows),
    )
    saving.save(
        merged,
        tokenizer,
        output,
        files={
            "README.md": card,
            "run.json": json.dumps(account, indent=2, ensure_ascii=False) + "\n",
        },
        auto=AutoModelForSequenceClassification if kind == "reward model" else AutoModelForCausalLM,
    )
    return kind


def _check_alike(names: Sequence[str], checkpoints: Sequence[str | Path]) -> str:
    """Refuse models of different classes, vocabularies or tokenizers; the end of the class name."""
    found: list[tuple[str, int | None, str]] = []
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if base_of(checkpoint) is not None:
            raise UserError(
                f"{name} holds an adapter, whose weights mean nothing apart from its base's; merge "
                "it where it was made (posttrain train, sft and dpo do), and average the results"
            )
        config = load_config(checkpoint)
        vocabulary = getattr(config.get_text_config(), "vocab_size", None)
        (architecture,) = (config.architectures or ["a model of no class"])[:1]
        tokenizer = tokenizer_hash(load_tokenizer(checkpoint, pads=False))
        found.append((architecture, vocabulary, tokenizer))
    (first, vocabulary, tokenizer), *others = found
    suffix = next((end for end in KINDS if first.endswith(end)), None)
    if suffix is None:
        raise UserError(
            f"{names[0]} is {first}, and only language models and reward models are averaged "
            f"(classes ending with {' or '.join(KINDS)})"
        )
    for name, (architecture, size, other) in zip(names[1:], others, strict=True):
        remedy = "average models that started from one checkpoint"
        if architecture != first:
            raise UserError(f"{name} is a {architecture}, and {names[0]} a {first}; {remedy}")
        if size != vocabulary:
            raise UserError(
                f"{name} has a vocabulary of {size}, and {names[0]} of {vocabulary}; {remedy}"
            )
        if other != tokenizer:
            raise UserError(
                f"{name} has another tokenizer or chat template than {names[0]}, so the same text "
                f"means other tokens to it; {remedy}, or make their tokenizers alike"
            )
    return suffix

"""What is refused of checkpoints, and in what words: code, pickles, shards, unreadable files."""

import json
import re
import textwrap
from pathlib import Path

from transformers.utils import cached_file

from posttrain.errors import UserError

#: Files that name the code which a checkpoint carries.
_NAMES_CODE = ("config.json", "tokenizer_config.json")


def refuse_sharded(checkpoint: str | Path) -> None:
    """Checkpoints of FSDP hold no model that transformers could load."""
    folder = Path(checkpoint)
    if any(folder.glob("pytorch_model_fsdp_*")) and not (folder / "config.json").exists():
        raise UserError(
            f"{str(checkpoint)!r} holds weights in the shards of a run with FSDP, which that run "
            f"alone can read; go on with it (--resume), and take the model that it writes at its "
            f"end into {str(folder.parent)!r}"
        )


def refuse_code(checkpoint: str | Path) -> None:
    """Refuse a checkpoint that names code of its own, even where a class could do without."""
    for name in _NAMES_CODE:
        try:
            path = cached_file(
                checkpoint,
                name,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            content = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):
            continue  # whoever loads the file says better what is wrong with it
        if isinstance(content, dict) and content.get("auto_map"):
            raise UserError(
                f"{str(checkpoint)!r} carries code of its own (auto_map in {name}), which is not "
                "run; take a model of a class that transformers has. If transformers has one that "
                "computes the same, load a copy of the folder without auto_map in its JSON files"
            )


def lacks_tokenizer(checkpoint: str | Path) -> bool:
    """Whether a folder holds no file of a tokenizer."""
    folder = Path(checkpoint)
    names = ("tokenizer*", "vocab*", "*.model", "spiece*", "merges.txt")
    return folder.is_dir() and not any(any(folder.glob(name)) for name in names)


def refuse_pickles(checkpoint: str | Path) -> None:
    """Refuse a folder whose weights are in pickles alone."""
    folder = Path(checkpoint)
    pickles = sorted(
        path.name
        for pattern in ("pytorch_model*.bin", "adapter_model*.bin")
        for path in folder.glob(pattern)
    )
    if pickles and not any(folder.glob("*.safetensors")):
        raise pickled(checkpoint, pickles[0])


def pickled(checkpoint: str | Path, name: str) -> UserError:
    """The error of a checkpoint whose weights are in pickles."""
    return UserError(
        f"{str(checkpoint)!r} has its weights in pickles ({name}), which can run code when they "
        "are loaded, and none in safetensors; if you trust their author, convert them "
        "(from_pretrained and then save_pretrained of transformers write safetensors) and load "
        "the result"
    )


def why_unloadable(error: Exception, attention: str | None, family: str) -> str:
    """What transformers means, without its Python arguments and lists of classes."""
    text = str(error)
    if attention is not None and ("attn_impl" in text or "flash" in text.lower()):
        return f"it has no attention {attention!r} here; set --attention to eager, or leave it out"
    if unknown := re.search(r"Unrecognized configuration class <class '[\w.]*?(\w+)'>", text):
        return (
            f"transformers has no {family} for a {unknown[1]}; take a model with a "
            "decoder that has one, such as a Llama, Qwen, Gemma or GPT-2"
        )
    if "Padding_idx" in text:
        return "the pad_token_id of its config.json is beyond its embeddings; correct it there"
    if isinstance(error, ImportError):
        return f"{shortened(error)}; if its weights are quantised, take those that are not"
    return shortened(error)


def shortened(error: Exception) -> str:
    """An error in at most 300 characters."""
    return textwrap.shorten(str(error), 300, placeholder=" …")


def unreadable(checkpoint: str | Path, error: Exception) -> UserError:
    """Transformers explains at length, the hub in a stack of errors; the first lines say it."""
    where = f"{str(checkpoint)!r}"
    if Path(checkpoint).is_dir():
        reason = str(error).strip().splitlines()[0]
        return UserError(f"the folder {where} holds no readable model: {reason}")
    if "cannot be loaded with `safetensors`" in str(error):
        return pickled(checkpoint, "pytorch_model.bin")
    return UserError(
        f"{where} is no folder, and the Hugging Face hub gave no such model: check the name, the "
        "network, and for a gated model that you are logged in (hf auth login)"
    )

"""What is read of a checkpoint: configuration, tokenizer and safetensors; never code or pickles.

Both can do anything on the machine that loads them. A checkpoint that carries code of its own is
refused even where transformers has a class for it, because what it computes may be another thing.
"""

import hashlib
import json
import re
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from posttrain.errors import UserError
from posttrain.models.adapters import base_of

#: Files that name the code which a checkpoint carries.
_NAMES_CODE = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Report:
    """In what a checkpoint and the classifier that is made of it differ, by names of weights.

    Attributes:
        lacking: Weights of the classifier that the checkpoint lacks; they are random.
        unused: Weights of the checkpoint that the classifier has no place for.
    """

    lacking: list[str]
    unused: list[str]


def load_classifier(
    checkpoint: str | Path, *, seed: int = 0, **settings: Any
) -> tuple[PreTrainedModel, Report]:
    """Load a classifier with one label; an adapter stays beside its base's weights.

    ``seed`` is for weights that are random; ``settings`` are for ``from_pretrained``.

    Raises:
        UserError: If there is no such checkpoint, it is not readable, it needs code or pickles, or
            transformers cannot load it as a classifier with these settings.
    """
    base = base_of(checkpoint)
    if base is None:
        return _load(checkpoint, seed, settings)
    if base_of(base) is not None:
        raise UserError(
            f"{str(checkpoint)!r} adapts {base!r}, which is an adapter itself; merge that one into "
            "its own base first (for a checkpoint of a run: take the folder of the finished run)"
        )
    try:
        # Loading an adapter, transformers does not say what its base lacks.
        _, of_base = _load(base, seed, settings)
    except UserError as error:
        raise UserError(
            f"{str(checkpoint)!r} is an adapter, whose base (base_model_name_or_path in its "
            f"adapter_config.json) cannot be loaded: {error}"
        ) from error
    model, own = _load(checkpoint, seed, settings)
    whole = [name for name in own.lacking if ".modules_to_save." in name or ".token_ad" in name]
    if whole:
        raise UserError(
            f"{str(checkpoint)!r} is an adapter that holds {whole[0]} whole, which transformers "
            f"{transformers.__version__} does not load; install a newer one (5.23 does), or merge "
            "the adapter where it was made and take the result"
        )
    lacking = [
        name
        for name in of_base.lacking
        if not (name.startswith("score.") and hasattr(model.score, "modules_to_save"))
    ]
    return model, Report(lacking + own.lacking, of_base.unused + own.unused)


def _load(
    checkpoint: str | Path, seed: int, settings: dict[str, Any]
) -> tuple[PreTrainedModel, Report]:
    _refuse_code(checkpoint)
    _refuse_pickles(checkpoint)
    try:
        # The caller's random numbers go on as if nothing had been drawn here.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                checkpoint,
                num_labels=1,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                **settings,
            )
    except (OSError, SafetensorError) as error:
        raise _unreadable(checkpoint, error) from None
    except (ValueError, StrictDataclassError, ImportError, AssertionError) as error:
        reason = _why_unloadable(error, settings.get("attn_implementation"))
        raise UserError(
            f"{str(checkpoint)!r} cannot be loaded as a reward model: {reason}"
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"{str(checkpoint)!r} has weights of other shapes than a model with one score, such as "
            "a head with several labels; take a language model, or a reward model (num_labels=1)"
        ) from None
    return model, Report(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]))


def load_config(checkpoint: str | Path) -> PreTrainedConfig:
    """A checkpoint's configuration, for an adapter that of its base; no weights are read.

    Raises:
        UserError: If there is no such checkpoint, or it needs code.
    """
    source = base_of(checkpoint) or checkpoint
    _refuse_code(source)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from None


def load_tokenizer(
    checkpoint: str | Path, pad_token: str | None = None, chat_template: str | None = None
) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer; see :func:`.reward_model.load` for what it may lack.

    Raises:
        UserError: If there is no such tokenizer, it needs code, or it has no padding token.
    """
    _refuse_sharded(checkpoint)
    _refuse_code(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    except ImportError:
        raise  # its message names the package that is missing
    except Exception as error:  # what tokenizers raises for a broken file has no class of its own
        if _lacks_tokenizer(checkpoint):
            raise UserError(
                f"the folder {str(checkpoint)!r} holds no tokenizer; copy tokenizer.json, "
                "tokenizer_config.json and chat_template.jinja into it: those of a checkpoint are "
                "in the folder of its run, those of an adapter in its base's"
            ) from None
        if isinstance(error, OSError | ValueError):
            raise _unreadable(checkpoint, error) from None
        raise UserError(
            f"the tokenizer of {str(checkpoint)!r} cannot be read ({type(error).__name__}: "
            f"{_shortened(error)}); copy its files again"
        ) from error
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise UserError(
                f"--pad_token {pad_token!r} is not in the vocabulary of {str(checkpoint)!r}"
            )
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id is None:
        candidates = [token for token in tokenizer.get_added_vocab() if "pad" in token.lower()]
        such_as = f", such as {' or '.join(candidates)}" if candidates else ""
        raise UserError(
            f"the tokenizer of {str(checkpoint)!r} has no padding token; set --pad_token to a "
            f"token that never ends a response{such_as}"
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def contents(checkpoint: str | Path) -> str:
    """Name a checkpoint by what it computes: its configuration and weights, wherever they lie.

    The name is a hash of a folder's files, or on the Hugging Face hub the commit that is loaded.

    Raises:
        UserError: If there is no such checkpoint, or its weights are not in safetensors.
    """
    if not Path(checkpoint).is_dir():
        try:
            # Files of the hub lie in a folder that has the commit's name.
            return Path(str(cached_file(str(checkpoint), "config.json"))).parent.name
        except OSError as error:
            raise _unreadable(checkpoint, error) from None
    _refuse_pickles(checkpoint)
    folder, base = Path(checkpoint), base_of(checkpoint)
    config = "config.json" if base is None else "adapter_config.json"
    files = [folder / config, *sorted(folder.glob("*.safetensors*"))]
    try:
        stats = [path.stat() for path in files]
        hashes = [
            [path.name, _hash(path.resolve(), stat.st_size, stat.st_mtime_ns)]
            for path, stat in zip(files, stats, strict=True)
        ]
    except OSError as error:
        raise _unreadable(checkpoint, error) from None
    if base is not None:
        hashes.append(["base", contents(base)])
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


@lru_cache
def _hash(path: Path, size: int, changed: int) -> str:
    """Hash of a file, computed once while it stays as it is: weights have gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_sharded(checkpoint: str | Path) -> None:
    """Checkpoints of FSDP hold no model that transformers could load."""
    folder = Path(checkpoint)
    if any(folder.glob("pytorch_model_fsdp_*")) and not (folder / "config.json").exists():
        raise UserError(
            f"{str(checkpoint)!r} holds weights in the shards of a run with FSDP, which that run "
            f"alone can read; go on with it (--resume), and take the model that it writes at its "
            f"end into {str(folder.parent)!r}"
        )


def _refuse_code(checkpoint: str | Path) -> None:
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


def _lacks_tokenizer(checkpoint: str | Path) -> bool:
    folder = Path(checkpoint)
    names = ("tokenizer*", "vocab*", "*.model", "spiece*", "merges.txt")
    return folder.is_dir() and not any(any(folder.glob(name)) for name in names)


def _refuse_pickles(checkpoint: str | Path) -> None:
    folder = Path(checkpoint)
    pickles = sorted(
        path.name
        for pattern in ("pytorch_model*.bin", "adapter_model*.bin")
        for path in folder.glob(pattern)
    )
    if pickles and not any(folder.glob("*.safetensors")):
        raise _pickled(checkpoint, pickles[0])


def _pickled(checkpoint: str | Path, name: str) -> UserError:
    return UserError(
        f"{str(checkpoint)!r} has its weights in pickles ({name}), which can run code when they "
        "are loaded, and none in safetensors; if you trust their author, convert them "
        "(from_pretrained and then save_pretrained of transformers write safetensors) and load "
        "the result"
    )


def _why_unloadable(error: Exception, attention: str | None) -> str:
    """What transformers means, without its Python arguments and lists of classes."""
    text = str(error)
    if attention is not None and ("attn_impl" in text or "flash" in text.lower()):
        return f"it has no attention {attention!r} here; set --attention to eager, or leave it out"
    if unknown := re.search(r"Unrecognized configuration class <class '[\w.]*?(\w+)'>", text):
        return (
            f"transformers has no sequence classifier for a {unknown[1]}; take a model with a "
            "decoder that has one, such as a Llama, Qwen, Gemma or GPT-2"
        )
    if "Padding_idx" in text:
        return "the pad_token_id of its config.json is beyond its embeddings; correct it there"
    if isinstance(error, ImportError):
        return f"{_shortened(error)}; if its weights are quantised, take those that are not"
    return _shortened(error)


def _shortened(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" …")


def _unreadable(checkpoint: str | Path, error: Exception) -> UserError:
    """Transformers explains at length, the hub in a stack of errors; the first lines say it."""
    where = f"{str(checkpoint)!r}"
    if Path(checkpoint).is_dir():
        reason = str(error).strip().splitlines()[0]
        return UserError(f"the folder {where} holds no readable model: {reason}")
    if "cannot be loaded with `safetensors`" in str(error):
        return _pickled(checkpoint, "pytorch_model.bin")
    return UserError(
        f"{where} is no folder, and the Hugging Face hub gave no such model: check the name, the "
        "network, and for a gated model that you are logged in (hf auth login)"
    )

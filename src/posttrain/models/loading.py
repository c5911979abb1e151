"""What is read of a checkpoint: configuration, tokenizer and safetensors; never code or pickles.

Both can do anything on the machine that loads them. A checkpoint that carries code of its own is
refused even where transformers has a class for it, because what it computes may be another thing.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from posttrain.errors import UserError
from posttrain.models.adapters import base_of
from posttrain.models.refusals import (
    lacks_tokenizer,
    refuse_code,
    refuse_pickles,
    refuse_sharded,
    shortened,
    unreadable,
    why_unloadable,
)

#: Files that may be read of a checkpoint on the hub; others, such as original weights, are large.
_READ_FILES = [
    "*.json", "*.jinja", "*.model", "*.txt", "model*.safetensors", "adapter_model*.safetensors",
]  # fmt: skip


class _Kind(NamedTuple):
    """What a checkpoint is loaded as: its class, and how messages call it and what it needs."""

    auto: Any
    name: str
    family: str
    shapes: str
    settings: dict[str, Any]


_CLASSIFIER = _Kind(
    AutoModelForSequenceClassification,
    "a reward model",
    "sequence classifier",
    "a model with one score, such as a head with several labels; take a language model, or a "
    "reward model (num_labels=1)",
    {"num_labels": 1},
)
_LANGUAGE_MODEL = _Kind(
    AutoModelForCausalLM,
    "a language model",
    "language model",
    "its config.json says; copy both again from one place",
    {},
)


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
    model, of_base, own = _load_with_base(checkpoint, seed, settings, _CLASSIFIER)
    if of_base is None:
        return model, own
    lacking = [
        name
        for name in of_base.lacking
        if not (name.startswith("score.") and hasattr(model.score, "modules_to_save"))
    ]
    return model, Report(lacking + own.lacking, of_base.unused + own.unused)


def load_language_model(checkpoint: str | Path, **settings: Any) -> PreTrainedModel:
    """Load a model that writes text; an adapter stays beside its base's weights.

    ``settings`` are for ``from_pretrained``.

    Raises:
        UserError: As for :func:`load_classifier`; also if it is a classifier, or lacks weights,
            which would be random.
    """
    for name in load_config(checkpoint).architectures or ():
        if "ForSequenceClassification" in name:
            raise UserError(
                f"{str(checkpoint)!r} is a reward model or another classifier ({name}), which "
                "writes no text; give a language model"
            )
    model, of_base, own = _load_with_base(checkpoint, 0, settings, _LANGUAGE_MODEL)
    lacking = (of_base.lacking if of_base else []) + own.lacking
    if lacking:
        raise UserError(
            f"{str(checkpoint)!r} lacks {len(lacking)} weights of a {type(model).__name__}, such "
            f"as {lacking[0]}, which would be random; check that it is a whole language model"
        )
    return model


def _load_with_base(
    checkpoint: str | Path, seed: int, settings: dict[str, Any], kind: _Kind
) -> tuple[Any, Report | None, Report]:
    """A model, what is to say of an adapter's base (None: it is no adapter), and of itself."""
    base = base_of(checkpoint)
    if base is None:
        model, own = _load(checkpoint, seed, settings, kind)
        return model, None, own
    if base_of(base) is not None:
        raise UserError(
            f"{str(checkpoint)!r} adapts {base!r}, which is an adapter itself; merge that one into "
            "its own base first (for a checkpoint of a run: take the folder of the finished run)"
        )
    try:
        # Loading an adapter, transformers does not say what its base lacks.
        _, of_base = _load(base, seed, settings, kind)
    except UserError as error:
        raise UserError(
            f"{str(checkpoint)!r} is an adapter, whose base (base_model_name_or_path in its "
            f"adapter_config.json) cannot be loaded: {error}"
        ) from error
    model, own = _load(checkpoint, seed, settings, kind)
    whole = [name for name in own.lacking if ".modules_to_save." in name or ".token_ad" in name]
    if whole:
        raise UserError(
            f"{str(checkpoint)!r} is an adapter that holds {whole[0]} whole, which transformers "
            f"{transformers.__version__} does not load; install a newer one (5.23 does), or merge "
            "the adapter where it was made and take the result"
        )
    return model, of_base, own


def _load(
    checkpoint: str | Path, seed: int, settings: dict[str, Any], kind: _Kind
) -> tuple[PreTrainedModel, Report]:
    refuse_code(checkpoint)
    refuse_pickles(checkpoint)
    try:
        # The caller's random numbers go on as if nothing had been drawn here.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, found = kind.auto.from_pretrained(
                checkpoint,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
                **kind.settings,
                **settings,
            )
    except (OSError, SafetensorError) as error:
        raise unreadable(checkpoint, error) from None
    except (ValueError, StrictDataclassError, ImportError, AssertionError) as error:
        reason = why_unloadable(error, settings.get("attn_implementation"), kind.family)
        raise UserError(f"{str(checkpoint)!r} cannot be loaded as {kind.name}: {reason}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"{str(checkpoint)!r} has weights of other shapes than {kind.shapes}"
        ) from None
    return model, Report(sorted(found["missing_keys"]), sorted(found["unexpected_keys"]))


def load_config(checkpoint: str | Path) -> PreTrainedConfig:
    """A checkpoint's configuration, for an adapter that of its base; no weights are read.

    Raises:
        UserError: If there is no such checkpoint, or it needs code.
    """
    source = base_of(checkpoint) or checkpoint
    refuse_code(source)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from None


def load_skeleton(checkpoint: str | Path) -> PreTrainedModel:
    """The classifier of a checkpoint without its weights: its class, shapes and configuration.

    It takes no memory and a moment, so that much can be refused before weights are read.

    Raises:
        UserError: As for :func:`load_config`, or if transformers has no classifier of this kind.
    """
    config = load_config(checkpoint)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
    except (ValueError, StrictDataclassError, ImportError, AssertionError) as error:
        reason = why_unloadable(error, None, _CLASSIFIER.family)
        raise UserError(
            f"{str(checkpoint)!r} cannot be loaded as {_CLASSIFIER.name}: {reason}"
        ) from error


def load_tokenizer(
    checkpoint: str | Path,
    pad_token: str | None = None,
    chat_template: str | None = None,
    *,
    pads: bool = True,
) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer; see :func:`.reward_model.load` for what it may lack.

    Raises:
        UserError: If there is no such tokenizer, it needs code, or, unless it ``pads`` nothing, it
            has no padding token.
    """
    refuse_sharded(checkpoint)
    refuse_code(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
    except ImportError:
        raise  # its message names the package that is missing
    except Exception as error:  # what tokenizers raises for a broken file has no class of its own
        if lacks_tokenizer(checkpoint):
            raise UserError(
                f"the folder {str(checkpoint)!r} holds no tokenizer; copy tokenizer.json, "
                "tokenizer_config.json and chat_template.jinja into it: those of a checkpoint are "
                "in the folder of its run, those of an adapter in its base's"
            ) from None
        if isinstance(error, OSError | ValueError):
            raise unreadable(checkpoint, error) from None
        raise UserError(
            f"the tokenizer of {str(checkpoint)!r} cannot be read ({type(error).__name__}: "
            f"{shortened(error)}); copy its files again"
        ) from error
    if pad_token is not None:
        if pad_token not in tokenizer.get_vocab():
            raise UserError(
                f"--pad_token {pad_token!r} is not in the vocabulary of {str(checkpoint)!r}"
            )
        tokenizer.pad_token = pad_token
    if pads and tokenizer.pad_token_id is None:
        candidates = [token for token in tokenizer.get_added_vocab() if "pad" in token.lower()]
        such_as = f", such as {' or '.join(candidates)}" if candidates else ""
        raise UserError(
            f"the tokenizer of {str(checkpoint)!r} has no padding token; set --pad_token to a "
            f"token that never ends a response{such_as}"
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def snapshot(name: str, revision: str) -> Path:
    """The folder with one revision of a model on the hub: configuration, tokenizer and safetensors.

    From there on it is a folder like any other, so that whatever is read of it later, such as an
    adapter's base, is of that revision too.

    Raises:
        UserError: If the hub has no such model or revision, or cannot be reached.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_READ_FILES))
    except Exception as error:  # the hub's client raises errors of many libraries
        raise UserError(
            f"revision {revision!r} of {name!r} cannot be read: {shortened(error)}; check name and "
            "revision, the network, and for a gated model that you are logged in (hf auth login)"
        ) from error


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
            raise unreadable(checkpoint, error) from None
    refuse_pickles(checkpoint)
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
        raise unreadable(checkpoint, error) from None
    if base is not None:
        hashes.append(["base", contents(base)])
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


@lru_cache
def _hash(path: Path, size: int, changed: int) -> str:
    """Hash of a file, computed once while it stays as it is: weights have gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

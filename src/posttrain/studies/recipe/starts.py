"""Checkpoints that a tiny reward model can start from."""

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
)

from posttrain.data.sources.simulator import tasks
from posttrain.models import embedded
from posttrain.models.float64 import compute_in_double
from posttrain.storage import cache
from posttrain.studies.recipe.keys import Start

#: Raise when the chat checkpoint comes out otherwise.
CHAT_VERSION = 1


@dataclass(frozen=True)
class ChatSettings:
    """How the chat checkpoint is made of the tiny Llama: one pass over flawless answers."""

    texts: int = 4000
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 1


def checkpoint(start: str) -> Path:
    """The folder of a checkpoint to start from, made on first use and kept in the cache."""
    if start == Start.PRETRAINED:
        return embedded.tiny()
    base = embedded.tiny()
    settings = ChatSettings()
    key = cache.key(
        asdict(settings) | {"base": base.name, "start": str(start), "tasks": tasks.VERSION},
        *("torch", "transformers"),
        version=CHAT_VERSION,
    )
    if start == Start.UNTRAINED:
        return cache.get_or_create(f"untrained-{key}", lambda folder: _untrained(base, folder))
    return cache.get_or_create(f"chat-{key}", lambda folder: _finetune(base, settings, folder))


def demonstrations(settings: ChatSettings) -> list[list[dict[str, str]]]:
    """Conversations whose last turn is a flawless answer, or a refusal of an unsafe request."""
    rng = random.Random(settings.seed)
    conversations = []
    for _ in range(settings.texts):
        task = tasks.draw_task(rng)
        defects = (tasks.Defect("refusal"),) if task.unsafe else ()
        turns = [{"role": turn.role, "content": turn.content} for turn in task.prompt]
        answer = tasks.Response(task, defects).text
        conversations.append([*turns, {"role": "assistant", "content": answer}])
    return conversations


def _finetune(base: Path, settings: ChatSettings, folder: Path) -> None:
    """Supervised finetuning with the prompt masked (Llama 3, section 4.1.3)."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = []
    for turns in demonstrations(settings):
        prompt: Any = tokenizer.apply_chat_template(
            turns[:-1], add_generation_prompt=True, return_dict=False
        )
        whole: Any = tokenizer.apply_chat_template(turns, return_dict=False)
        labels = [-100] * len(prompt) + whole[len(prompt) :]
        examples.append({"input_ids": whole, "labels": labels})
    model = compute_in_double(AutoModelForCausalLM.from_pretrained(base, dtype="auto"))
    embedded.train_language_model(
        model,
        examples,
        DataCollatorForSeq2Seq(tokenizer),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=5,
        seed=settings.seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _untrained(base: Path, folder: Path) -> None:
    """The same architecture and tokenizer with weights as they are drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base), dtype=torch.float64
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)

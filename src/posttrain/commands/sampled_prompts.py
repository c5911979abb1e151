"""The prompts that ``posttrain sample`` answers: distinct, checked before the first is answered."""

import hashlib
import itertools
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO

from posttrain.commands.sample_settings import SampleSettings
from posttrain.data.messages import Message
from posttrain.data.notes import Notes
from posttrain.data.prompts import Prompt, iterate_prompts
from posttrain.errors import UserError
from posttrain.models.architecture import context_length
from posttrain.policy.sampling import prompt_tokens

logger = logging.getLogger(__name__)


class Prompts:
    """Prompts on disk, so that memory holds some digests of each."""

    def __init__(self, file: TextIO, count: int) -> None:
        self._file, self._count = file, count

    def __len__(self) -> int:
        return self._count

    def chunks(self, size: int) -> Iterator[list[Prompt]]:
        """The prompts in their order, so many at a time."""
        self._file.seek(0)
        while lines := list(itertools.islice(self._file, size)):
            yield [_prompt(line) for line in lines]

    @classmethod
    @contextmanager
    def read(
        cls, settings: SampleSettings, model: Any, tokenizer: Any, counts: Counter[str]
    ) -> Iterator["Prompts"]:
        """Read all sources; what is left out is counted, what is noted is logged.

        Raises:
            UserError: If a source or record is bad, a prompt is too long, or there is none.
        """
        notes = Notes()
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            count = 0
            for prompt in _distinct(settings, counts, notes):
                if not _fits(prompt, settings, model, tokenizer, counts):
                    continue
                turns = [[turn.role, turn.content] for turn in prompt.messages]
                file.write(json.dumps([prompt.id, turns, prompt.domain]) + "\n")
                count += 1
                if count == settings.prompts:
                    break
            notes.warn(logger, settings.data)
            if not count:
                raise UserError(
                    f"{', '.join(settings.data)}: no prompt is left; left out: {dict(counts)}"
                )
            yield cls(file, count)


def _prompt(line: str) -> Prompt:
    name, turns, domain = json.loads(line)
    return Prompt(name, tuple(Message(*turn) for turn in turns), domain)


def _distinct(settings: SampleSettings, counts: Counter[str], notes: Notes) -> Iterator[Prompt]:
    """Each distinct prompt once; a name that occurred before becomes SOURCE#NAME."""
    seen: set[bytes] = set()
    names: set[bytes] = set()
    for source in settings.data:
        for prompt in iterate_prompts(source, counts=counts, notes=notes, **settings.reading):
            content = _digest(repr(prompt.messages))
            if content in seen:
                counts["repeated prompts, answered once"] += 1
                continue
            seen.add(content)
            name = prompt.id
            while (digest := _digest(name)) in names:
                name = f"{source}#{name}"
            names.add(digest)
            yield replace(prompt, id=name)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _fits(
    prompt: Prompt, settings: SampleSettings, model: Any, tokenizer: Any, counts: Counter[str]
) -> bool:
    try:
        (tokens,) = prompt_tokens(tokenizer, [prompt.messages])
    except UserError as error:
        if settings.skip_bad:
            counts["prompts that the model cannot read"] += 1
            return False
        raise UserError(
            f"prompt {prompt.id!r}: {error}; or leave such prompts out (--skip_bad)"
        ) from error
    context = context_length(model.config)
    if context is None or len(tokens) + settings.max_new_tokens <= context:
        return True
    if not settings.skip_too_long:
        raise UserError(
            f"prompt {prompt.id!r} has {len(tokens)} tokens, which with max_new_tokens "
            f"{settings.max_new_tokens} exceeds the {context} that {settings.model} reads; lower "
            "max_new_tokens, or leave such prompts out (--skip_too_long)"
        )
    counts["prompts that are too long"] += 1
    return False

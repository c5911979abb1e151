"""Samples of a policy: several responses to each prompt, without computing anything twice.

All samples of a prompt begin as one sequence and part where they draw different tokens. Each
distinct prefix is computed once, however many samples share it, so the prompt is, and for a small
model whose samples often agree much more than that. What a sample draws depends on its own random
numbers alone (inverse transform sampling), so samples are what they would be one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import Message
from posttrain.errors import UserError
from posttrain.models.float64 import computing_in_double
from posttrain.rows.rendering import render


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are sampled."""

    samples: int = setting(10, "Responses to each prompt (Llama 3: 10 to 30).")
    temperature: float = setting(1.0, "Temperature; 0 takes the likeliest token each time.")
    max_new_tokens: int = setting(256, "Longest response, in tokens.")
    sampling_seed: int = setting(0, "Seeds the samples.")
    sampling_batch: int = setting(4096, "Samples that are drawn at a time; limits memory.")

    def __post_init__(self) -> None:
        at_least_one(self, "samples", "max_new_tokens", "sampling_batch")
        if not self.temperature >= 0:
            raise UserError(f"temperature must be at least 0, not {self.temperature}")


@dataclass(frozen=True)
class Sample:
    """A sampled response.

    ``finished`` says whether the policy ended it, rather than the limit of its length;
    ``log_probability`` is the policy's, of its ``tokens``, the end among them, at temperature 1, in
    nats. Special tokens that it wrote before the end are left out of the text.
    """

    text: str
    finished: bool
    log_probability: float
    tokens: tuple[int, ...] = ()


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    settings: SamplingSettings,
    *,
    first: int = 0,
) -> Iterator[list[Sample]]:
    """Samples of each prompt, ``settings.samples`` each, in the order of the prompts.

    ``first`` is the place of the first prompt among all, if they are sampled part by part.

    Raises:
        UserError: If a prompt cannot be rendered or leaves no room for a response.
    """
    encoded = prompt_tokens(tokenizer, prompts)
    _check_room(model, encoded, settings)
    ends = end_tokens(model, tokenizer)
    at_once = max(1, settings.sampling_batch // settings.samples)
    # Prompts of like length are drawn together; each has random numbers of its own.
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    drawn: dict[int, list[Sample]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), computing_in_double(model):
            for start in range(0, len(order), at_once):
                members = order[start : start + at_once]
                numbers = [first + i for i in members]
                ids, logs = _draw(model, [encoded[i] for i in members], numbers, ends, settings)
                for place, i in enumerate(members):
                    own = slice(place * settings.samples, (place + 1) * settings.samples)
                    drawn[i] = _texts(tokenizer, ids[own], logs[own], ends)
    finally:
        model.train(was_training)
    for i in range(len(encoded)):
        yield drawn[i]


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]
) -> list[list[int]]:
    """What a policy reads before it answers each prompt."""
    turns = [[{"role": one.role, "content": one.content} for one in prompt] for prompt in prompts]
    texts = [render(tokenizer, one, add_generation_prompt=True) for one in turns]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: of the model's generation settings, else of the tokenizer.

    Raises:
        UserError: If there are none.
    """
    named: Any = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    ends = tuple(named) if isinstance(named, list | tuple) else (named,)
    if None in ends:
        raise UserError(
            f"neither {model.name_or_path!r} nor its tokenizer names a token that ends a response; "
            "set eos_token in its tokenizer"
        )
    return ends


def _check_room(
    model: PreTrainedModel, encoded: Sequence[Sequence[int]], settings: SamplingSettings
) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, encoded), default=0)
    if context is not None and longest + settings.max_new_tokens > context:
        raise UserError(
            f"a prompt of {longest} tokens with max_new_tokens={settings.max_new_tokens} exceeds "
            f"the {context} tokens that {model.name_or_path!r} reads; lower max_new_tokens, or "
            "leave long prompts out"
        )


def _draw(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    ends: Sequence[int],
    settings: SamplingSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``[samples, tokens]``, −1 behind the end, and log-probabilities ``[samples]``."""
    device, count, steps = model.device, settings.samples, settings.max_new_tokens
    # A prompt's random numbers go by its place among all prompts.
    uniforms = np.concatenate(
        [
            np.random.default_rng([settings.sampling_seed, number]).random((steps, count))
            for number in numbers
        ],
        axis=1,
    )
    longest = max(map(len, prompts))
    input_ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, longest - len(prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    tokens = np.full((len(prompts) * count, steps), -1)
    logs = np.zeros(len(tokens))
    # Which prefix each sample that goes on has drawn so far: a row of the model's input.
    alive = np.arange(len(tokens))
    prefix = np.repeat(np.arange(len(prompts)), count)
    for step in range(steps):
        logits = model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        log_probabilities = torch.log_softmax(logits.to(torch.float64), dim=-1)
        drawn = _next_tokens(log_probabilities, prefix, uniforms[step, alive], settings.temperature)
        logs[alive] += log_probabilities[
            torch.from_numpy(prefix).to(device), torch.from_numpy(drawn).to(device)
        ].numpy(force=True)
        tokens[alive, step] = drawn
        going = ~np.isin(drawn, ends)
        alive, prefix, drawn = alive[going], prefix[going], drawn[going]
        if not len(alive):
            break
        # Samples that drew the same token after the same prefix share a row again.
        pairs, prefix = np.unique(np.stack([prefix, drawn]), axis=1, return_inverse=True)
        prefix = prefix.ravel()
        parents = torch.from_numpy(pairs[0]).to(device)
        cache.batch_select_indices(parents)
        input_ids = torch.from_numpy(pairs[1]).to(device)[:, None]
        mask = torch.cat([mask[parents], torch.ones_like(input_ids)], dim=1)
        positions = mask.sum(1, keepdim=True) - 1
    return tokens, logs


def _next_tokens(
    log_probabilities: Tensor, prefix: np.ndarray, uniforms: np.ndarray, temperature: float
) -> np.ndarray:
    """The token of each sample: where its random number falls among its prefix's probabilities."""
    if temperature == 0:
        return log_probabilities.argmax(-1).numpy(force=True)[prefix]
    heights = torch.softmax(log_probabilities / temperature, dim=-1).cumsum(-1)
    heights = heights / heights[:, -1:]
    # All prefixes at once: the heights of each follow, one higher, those of the one before.
    rows = torch.arange(len(heights), device=heights.device, dtype=heights.dtype)[:, None]
    wanted = torch.from_numpy(prefix + uniforms).to(heights)
    found = torch.searchsorted((heights + rows).flatten(), wanted, right=True).numpy(force=True)
    width = log_probabilities.shape[1]
    return np.minimum(found - prefix * width, width - 1)


def _texts(
    tokenizer: Any, tokens: np.ndarray, logs: np.ndarray, ends: Sequence[int]
) -> list[Sample]:
    samples = []
    for ids, log_probability in zip(tokens, logs, strict=True):
        ids = ids[ids >= 0]
        finished = bool(len(ids)) and int(ids[-1]) in ends
        text = tokenizer.decode(ids[: len(ids) - finished], skip_special_tokens=True)
        samples.append(Sample(text.strip(), finished, float(log_probability), tuple(ids.tolist())))
    return samples

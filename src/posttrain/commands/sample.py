"""``posttrain sample``: responses of a language model, scored and selected where asked to be."""

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from posttrain.commands.common import parse
from posttrain.commands.language_models import load_policy
from posttrain.commands.models import find_device
from posttrain.commands.sample_settings import SampleSettings
from posttrain.commands.sampled_prompts import Prompts
from posttrain.commands.score import load_scorer
from posttrain.commands.score_settings import ScoringSettings
from posttrain.data.conversations import written_responses
from posttrain.data.prompts import Prompt
from posttrain.data.scorable import Candidates
from posttrain.evaluation.scoring import Scorer, check_finite
from posttrain.policy.datasets import messages
from posttrain.policy.sampling import Sample, end_tokens, sample
from posttrain.policy.selection import best, combine
from posttrain.storage.files import whole_file

logger = logging.getLogger(__name__)

# What became of samples and prompts, as counts call it.
UNFINISHED = "samples cut at max_new_tokens"
BLANK = "blank samples, left out"
NOTHING_LEFT = "prompts without a finished response, left out"
ALONE = "prompts with fewer than two responses to compare, left out"


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain sample`` and return its exit code."""
    (settings,) = parse(
        "sample",
        (SampleSettings,),
        "Sample responses to prompts from a language model, and write them as JSON lines. With "
        "reward models, write their scores as well: the file then holds preferences, as posttrain "
        "data check, train, dpo and sft read them. With --keep best only the best response to each "
        "prompt is written, for posttrain sft.",
        arguments,
    )
    counts, seconds = run(settings)
    drawn, prompts = counts.pop("samples"), counts.pop("prompts")
    written, distinct = counts.pop("lines", 0), counts.pop("distinct")
    cut = counts.pop(UNFINISHED)
    print(f"wrote {written:,} lines to {settings.output}")
    print(
        f"{prompts:,} prompts, {drawn:,} samples ({drawn / seconds:,.1f} a second, scores "
        f"included), {cut:,} of them cut at {settings.max_new_tokens} tokens, "
        f"{distinct / drawn:.1%} distinct among those of their prompt"
    )
    if left := ", ".join(f"{number:,} {what}" for what, number in counts.items() if number):
        print(left)
    return 0


def run(settings: SampleSettings) -> tuple[Counter[str], float]:
    """Sample responses to all prompts, part by part; counts of what came of them, and seconds.

    The file has one JSON object a line: ``id``, ``prompt`` (chat messages), ``responses``,
    ``finished`` (whether the model ended each) and ``log_probabilities`` (the model's, in nats, at
    temperature 1); with reward models ``scores``. With ``keep`` best it is ``id``, ``prompt``,
    ``response`` and ``score``. It appears whole or not at all.

    Raises:
        UserError: If models, prompts or settings do not allow it.
    """
    counts: Counter[str] = Counter()
    model, tokenizer = load_policy(settings)
    end_tokens(model, tokenizer)  # refused before prompts are read, which may take long
    scorers = [
        load_scorer(
            ScoringSettings(
                model=name,
                data=settings.data,
                device=settings.device,
                skip_bad=settings.skip_bad,
                skip_too_long=settings.skip_too_long,
            )
        )
        for name in settings.reward_model
    ]
    policy: Any = model
    policy.to(find_device(settings.device))
    kept: list[tuple[float, str]] = []
    with ExitStack() as stack:
        prompts = stack.enter_context(Prompts.read(settings, model, tokenizer, counts))
        file = stack.enter_context(whole_file(settings.output))
        bar = stack.enter_context(tqdm(total=len(prompts), unit=" prompts", disable=None))
        done, started = 0, time.perf_counter()
        for chunk in prompts.chunks(settings.chunk):
            turns = [prompt.messages for prompt in chunk]
            drawn = list(sample(policy, tokenizer, turns, settings, first=done))
            done += len(chunk)
            for line in _lines(settings, chunk, drawn, scorers, counts):
                text = json.dumps(line, ensure_ascii=False) + "\n"
                if settings.share < 1:
                    kept.append((line["score"], text))
                else:
                    counts["lines"] += 1
                    file.write(text)
            bar.update(len(chunk))
        if kept:
            heights = np.array([[score] for score, _ in kept])
            chosen = best(heights, settings.share).prompts
            counts["lines"] = len(chosen)
            counts["prompts beyond the share, left out"] = len(kept) - len(chosen)
            file.writelines(kept[place][1] for place in chosen)
        seconds = time.perf_counter() - started
    return counts, seconds


def _lines(
    settings: SampleSettings,
    prompts: Sequence[Prompt],
    drawn: Sequence[Sequence[Sample]],
    scorers: Sequence[Scorer],
    counts: Counter[str],
) -> list[dict[str, Any]]:
    """What is written of some prompts."""
    only_best = settings.keep == "best"
    kept: list[tuple[Prompt, list[Sample]]] = []
    for prompt, samples in zip(prompts, drawn, strict=True):
        counts["prompts"] += 1
        counts["samples"] += len(samples)
        counts["distinct"] += len({one.text for one in samples})
        counts[UNFINISHED] += sum(not one.finished for one in samples)
        counts[BLANK] += sum(not one.text for one in samples)
        usable = [one for one in samples if one.text and (one.finished or not only_best)]
        if not usable:
            counts[NOTHING_LEFT] += 1
        elif scorers and not only_best and len(usable) == 1 < len(samples):
            counts[ALONE] += 1
        else:
            kept.append((prompt, usable))
    if not scorers:
        return [_line(prompt, samples) for prompt, samples in kept]
    scored = _scores(settings, kept, scorers, counts)
    lines = []
    for (prompt, samples), scores in zip(kept, scored, strict=True):
        if scores is None:
            continue
        if not only_best:
            lines.append(_line(prompt, samples) | {"scores": scores.tolist()})
            continue
        place = int(best(scores[None]).samples[0])
        line = _head(prompt)
        line["response"] = written_responses(prompt.messages, [samples[place].text])[0]
        lines.append(line | {"score": float(scores[place])})
    return lines


def _head(prompt: Prompt) -> dict[str, Any]:
    """What names a prompt; its domain tells ``posttrain score`` which prompts are flagged."""
    known = {"id": prompt.id, "domain": prompt.domain, "prompt": messages(prompt.messages)}
    return {name: value for name, value in known.items() if value is not None}


def _line(prompt: Prompt, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        **_head(prompt),
        "responses": written_responses(prompt.messages, [one.text for one in samples]),
        "finished": [one.finished for one in samples],
        "log_probabilities": [one.log_probability for one in samples],
    }


def _scores(
    settings: SampleSettings,
    kept: Sequence[tuple[Prompt, Sequence[Sample]]],
    scorers: Sequence[Scorer],
    counts: Counter[str],
) -> list[np.ndarray | None]:
    """Scores of the samples of each prompt, of all models together; None where it is left out."""
    groups = [
        Candidates(prompt.id, prompt.messages, tuple(one.text for one in samples))
        for prompt, samples in kept
    ]
    tokenized = [[scorer.tokenize(group) for scorer in scorers] for group in groups]
    readable = []
    for place, parts in enumerate(tokenized):
        reason = next((part for part in parts if isinstance(part, str)), None)
        if reason is not None:
            counts[reason] += 1
            continue
        readable.append(place)
        counts["prompts trimmed for a reward model"] += any(
            part.trimmed for one in parts for part in one if not isinstance(part, str)
        )
    values: list[list[np.ndarray]] = [[] for _ in groups]
    for number, scorer in enumerate(scorers):
        rows: Any = [tokenized[place][number] for place in readable]
        for place, scores in zip(readable, scorer.score(rows), strict=True):
            check_finite(scorer, groups[place], scores)
            values[place].append(np.array(scores))
    return [
        combine(np.array(one)[:, None], settings.combine or "mean")[0] if one else None
        for one in values
    ]

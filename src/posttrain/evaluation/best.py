"""The best responses to each prompt, by their scores: best-of-n of scored records."""

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posttrain.data.messages import Message
from posttrain.data.scorable import Candidates
from posttrain.evaluation.scoring import Scored

# What is not chosen from, as counts call it.
REPEATED = "responses that occurred before to their prompt"
UNFINISHED = "unfinished responses"
NOTHING_LEFT = "prompts without a finished response"
APART = "prompts that occurred before, but not in the record before: chosen for again"


@dataclass(frozen=True)
class Choice:
    """A response to a prompt, with its score and the parts of it, and the id of its record."""

    id: str
    prompt: tuple[Message, ...]
    response: str
    score: float
    parts: dict[str, float]


def best(
    scored: Iterable[Scored[Candidates]], most: int, *, counts: Counter[str] | None = None
) -> Iterator[list[Choice]]:
    """The best responses to each prompt, at most so many, in falling order of their scores.

    Records that follow one another with the same prompt, and domain, are taken together. Of equal
    scores the first comes first; a text that occurs again, white space aside, counts once. A
    response that its writer did not end is none to choose. Memory holds what is chosen and digests
    of texts and prompts.

    Args:
        scored: As :func:`.score_with` gives them, in order.
        most: How many responses to a prompt.
        counts: Filled with what there was not to choose from.
    """
    counts = Counter() if counts is None else counts
    before: set[bytes] = set()
    for key, alike in itertools.groupby(scored, lambda one: (one.group.prompt, one.group.domain)):
        name = _digest(repr(key))
        counts[APART] += name in before
        before.add(name)
        found = heapq.nlargest(most, _choices(alike, counts), key=lambda one: one.score)
        if found:
            yield found
        else:
            counts[NOTHING_LEFT] += 1


def _choices(scored: Iterable[Scored[Candidates]], counts: Counter[str]) -> Iterator[Choice]:
    seen: set[bytes] = set()
    for one in scored:
        group = one.group
        finished = group.finished or itertools.repeat(True)
        for name, text, ended in zip(group.names, group.responses, finished, strict=False):
            if not ended:
                counts[UNFINISHED] += 1
                continue
            if (digest := _digest(" ".join(text.split()))) in seen:
                counts[REPEATED] += 1
                continue
            seen.add(digest)
            parts = {part: scores[name] for part, scores in one.parts.items()}
            yield Choice(group.id, group.prompt, text, one.scores[name], parts)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()

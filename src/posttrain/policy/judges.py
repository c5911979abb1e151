"""Who compares responses in a round: the simulator's annotators, or a reward model."""

import random
from collections.abc import Sequence
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import judge_difference
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.evaluation.scoring import score_responses

Prompt = tuple[Message, ...]


class Judge(Protocol):
    """Ranks two responses of each prompt."""

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, seed: int
    ) -> list[RankedGroup]:
        """Ranked groups, in the order of the prompts; responses of a pair differ."""
        ...


class Annotators:
    """The simulator's annotators: by gold quality of whatever text, with logistic noise."""

    def __init__(self, flipped: float = 0.0) -> None:
        """``flipped`` is the share of judgements turned round, beside the noise."""
        self.flipped = flipped

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, seed: int
    ) -> list[RankedGroup]:
        """See :class:`Judge`."""
        rng = random.Random(seed)
        groups = []
        for number, (prompt, (first, second)) in enumerate(zip(prompts, pairs, strict=True)):
            task = task_of(prompt)
            difference = gold(task, first) - gold(task, second)
            prefers_first, strength = judge_difference(rng, difference)
            if self.flipped and rng.random() < self.flipped:
                prefers_first = not prefers_first
            ranked = (first, second) if prefers_first else (second, first)
            groups.append(RankedGroup(f"judged-{number:06d}", prompt, ranked, strength))
        return groups


class RewardJudge:
    """A reward model in place of annotators: the response that it scores higher is chosen."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, seed: int
    ) -> list[RankedGroup]:
        """See :class:`Judge`; nothing is drawn, so the seed changes nothing."""
        scores = score_responses(self._model, self._tokenizer, prompts, pairs)
        return [
            RankedGroup(
                f"judged-{number:06d}",
                prompt,
                tuple(text for _, text in sorted(zip(-values, pair, strict=True))),
            )
            for number, (prompt, pair, values) in enumerate(
                zip(prompts, pairs, scores, strict=True)
            )
        ]

"""Who compares responses in a round: the simulator's annotators, a reward model, or people."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import read_groups
from posttrain.data.sources.simulator.annotators import judge_difference
from posttrain.data.sources.simulator.editing import edit
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.evaluation.scoring import score_responses
from posttrain.policy.datasets import messages
from posttrain.storage.files import whole_file

Prompt = tuple[Message, ...]


class Judge(Protocol):
    """Ranks two responses of each prompt."""

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, name: str, seed: int
    ) -> list[RankedGroup]:
        """Ranked groups, in the order of the prompts; responses of a pair differ.

        ``name`` is that of the batch, ``seed`` seeds what is drawn.
        """
        ...


class Annotators:
    """The simulator's annotators: by gold quality of whatever text, with logistic noise."""

    def __init__(self, flipped: float = 0.0, edited: float = 0.0) -> None:
        """Some errors more, and editors.

        ``flipped`` is the share of judgements turned round, beside the noise; ``edited`` that of
        chosen responses which are handed to an editor (:mod:`.simulator.editing`). What he leaves
        as it is carries no edit.
        """
        self.flipped, self.edited = flipped, edited

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, name: str, seed: int
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
            ranked: tuple[str, ...] = (first, second) if prefers_first else (second, first)
            if self.edited and rng.random() < self.edited:
                mended = edit(task, ranked[0])
                if mended is not None and mended not in ranked:
                    ranked = (mended, *ranked)
            groups.append(RankedGroup(f"judged-{number:06d}", prompt, ranked, strength))
        return groups


class RewardJudge:
    """A reward model in place of annotators: the response that it scores higher is chosen."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, name: str, seed: int
    ) -> list[RankedGroup]:
        """See :class:`Judge`; nothing is drawn."""
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


class People:
    """People, who annotate files between two calls.

    What is to be annotated is written to ``folder/to-annotate``; the next call reads it from
    ``folder/annotated``, as preference data in any form that :func:`.read_groups` reads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def compare(
        self, prompts: Sequence[Prompt], pairs: Sequence[tuple[str, str]], *, name: str, seed: int
    ) -> list[RankedGroup]:
        """See :class:`Judge`.

        Raises:
            UserError: If the file with the annotations is not there yet, or holds other pairs.
        """
        asked, answer = (
            self._folder / part / f"{name}.jsonl" for part in ("to-annotate", "annotated")
        )
        if not answer.exists():
            with whole_file(asked) as file:
                for number, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True)):
                    row = {
                        "id": f"{name}-{number:06d}",
                        "prompt": messages(prompt),
                        "responses": list(pair),
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            raise UserError(
                f"{len(pairs)} pairs are to be annotated: {asked}. Write each with its id, prompt, "
                f"chosen and rejected, and if you rate them strength, to {answer}, and give the "
                "same command again; pairs that nobody can decide may be left out"
            )
        groups = read_groups(answer).groups
        known = {
            (tuple(prompt), frozenset(pair)) for prompt, pair in zip(prompts, pairs, strict=True)
        }
        for group in groups:
            if (group.prompt, frozenset(group.responses[-2:])) not in known:
                raise UserError(
                    f"{answer}: record {group.id!r} is none of the pairs of {asked}; keep prompts "
                    "and responses as they are"
                )
        return groups

"""What throughput.py trains on: groups of random tokens, and samples of human preferences."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posttrain.data.sources import human
from posttrain.rows.tokenization import Limits, TokenizedGroup, tokenize_groups
from posttrain.studies.common.llama3 import LLAMA3_PROMPT_TOKENS, LLAMA3_RESPONSE_TOKENS
from posttrain.training.collator import TrainingGroup, TrainingPair
from posttrain.training.pairing import Pairing

#: Responses of a group of random tokens, their length, and that of the prompt.
LENGTHS = {
    "pairs": (2, round(LLAMA3_RESPONSE_TOKENS), round(LLAMA3_PROMPT_TOKENS)),
    "triples": (3, round(LLAMA3_RESPONSE_TOKENS), round(LLAMA3_PROMPT_TOKENS)),
    "five": (5, round(LLAMA3_RESPONSE_TOKENS), round(LLAMA3_PROMPT_TOKENS)),
    "many": (32, 60, 50),
}
#: From so many tokens of a prompt on, workloads are computed with few layers.
LONG = 2048
#: Groups of random tokens, at most.
GROUPS = 64


@dataclass(frozen=True)
class Workload:
    """What is trained on: groups of random tokens, or a set of human preferences."""

    name: str
    lengths: tuple[int, int, int] | None = None  #: Responses, their tokens, the prompt's.
    of_pairs: bool = False  #: Whether each pair is a record of its own.

    @classmethod
    def named(cls, name: str) -> "Workload":
        """Understand a name of the command line."""
        found = re.fullmatch(r"(\w+)(?:@(\d+)(?:x(\d+))?)?", name)
        kind, prompt, response = found.groups() if found else (name, None, None)
        if kind in LENGTHS:
            count, *tokens = LENGTHS[kind]
            lengths = (count, int(response or tokens[0]), int(prompt or tokens[1]))
            return cls(name, lengths, of_pairs=kind == "five")
        return cls(name)

    @property
    def kind(self) -> str:
        """A key of :data:`SECONDS`."""
        return "random tokens" if self.lengths else "data set"

    @property
    def is_long(self) -> bool:
        """Whether it is computed with few layers."""
        return self.lengths is not None and self.lengths[2] >= LONG

    def prompts(self, model: Any, tokenizer: Any, seed: int) -> list[list[TrainingGroup]]:
        """Its records by prompt, in random order."""
        if self.lengths is None:
            return self._read(model, tokenizer, seed)
        count, response, prompt = self.lengths
        generator = np.random.default_rng([seed, *self.lengths])
        words = np.arange(model.config.vocab_size)
        # TRL scores the last token that is not padding, so none may look like it.
        words = words[words != tokenizer.pad_token_id]
        found = []
        for _ in range(GROUPS):
            sizes = (prompt, *[response] * count)
            first, *others = (tuple(generator.choice(words, size).tolist()) for size in sizes)
            group = TrainingGroup.with_all_pairs(TokenizedGroup(first, tuple(others)))
            if count == LENGTHS["many"][0]:
                group = replace(group, pairs=tuple(TrainingPair(0, k) for k in range(1, count)))
            found.append(apart(group) if self.of_pairs else [group])
        return found

    def _read(self, model: Any, tokenizer: Any, seed: int) -> list[list[TrainingGroup]]:
        groups, _ = human.load(self.name)
        limits = Limits(max_tokens=model.config.max_position_embeddings, skip_too_long=True)
        read = tokenize_groups(tokenizer, groups, limits)
        pairing = Pairing(margins="none")
        by_prompt: dict[tuple[int, ...], list[TrainingGroup]] = {}
        for place, tokens in zip(read.kept, read.groups, strict=True):
            group = pairing.apply(groups[place], tokens)
            if group.pairs:
                by_prompt.setdefault(tokens.prompt, []).append(group)
        found = list(by_prompt.values())
        order = np.random.default_rng(seed).permutation(len(found))
        return [found[place] for place in order]


def apart(group: TrainingGroup) -> list[TrainingGroup]:
    """A group for each pair of a group."""
    return [
        TrainingGroup(group.tokens.in_order([pair.winner, pair.loser]), (TrainingPair(0, 1),))
        for pair in group.pairs
    ]


def trl_tokens(groups: Sequence[TrainingGroup]) -> int:
    """Tokens of two rows for each pair."""
    return sum(
        2 * len(group.tokens.prompt)
        + len(group.tokens.responses[pair.winner])
        + len(group.tokens.responses[pair.loser])
        for group in groups
        for pair in group.pairs
    )


def sample(prompts: Sequence[list[TrainingGroup]], most_tokens: float) -> list[TrainingGroup]:
    """Records of as many whole prompts as TRL's tokens allow, at least of one.

    The prompts, in the order of their numbers of pairs, are cut into as many strata; of each the
    one in the middle is taken.
    """
    sizes = np.array([sum(len(group.pairs) for group in groups) for groups in prompts])
    costs = np.array([trl_tokens(groups) for groups in prompts])
    order = np.argsort(sizes, kind="stable")
    count = max(1, min(len(order), int(most_tokens / costs.mean())))
    while True:
        edges = np.linspace(0, len(order), count + 1)
        chosen = order[((edges[:-1] + edges[1:]) / 2).astype(int)]
        if costs[chosen].sum() <= most_tokens or count == 1:
            return [group for place in chosen.tolist() for group in prompts[place]]
        count -= 1

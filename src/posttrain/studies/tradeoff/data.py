"""What the study of helpfulness and safety compares: ranked groups of two domains, and candidates.

Simulated groups of both domains come from one world whose annotators look at one quality each, so
the truth of both is known of every response. Human groups come from five sources; a sixth,
``xstest``, is never trained on: its prompts are unsafe, or look so and are not, and people have
said of each response whether it refuses, in part or as a whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from transformers import AutoTokenizer

from posttrain.data.preferences import Message, RankedGroup, fingerprint
from posttrain.data.sources import human
from posttrain.data.sources.simulator.annotators import draw_candidates, simulate
from posttrain.data.sources.simulator.tasks import (
    LOOKALIKE_GOALS,
    UNSAFE_GOALS,
    Domain,
    goal_of,
)
from posttrain.errors import UserError
from posttrain.rows.tokenization import Limits, TokenizedGroup, tokenize_groups, tokenize_responses
from posttrain.studies.common.groups import without_edit
from posttrain.studies.tradeoff.keys import DomainName, Kind
from posttrain.studies.tradeoff.sources import overview

DOMAINS = tuple(DomainName)
#: Name of the record on human data.
HUMAN = "human"
#: Human data to train on, by domain, and who decided which response is better.
HUMAN_SOURCES = {
    "rmb_helpfulness": (DomainName.HELPFULNESS, "probably a model"),
    "finegrained_rlhf": (DomainName.HELPFULNESS, "people"),
    "hh_harmless": (DomainName.SAFETY, "people"),
    "pku_safety": (DomainName.SAFETY, "people"),
    "rmb_safety": (DomainName.SAFETY, "probably a model"),
}
#: Human data that only choices among candidates are judged by.
CONFLICTS, CONFLICT_LABELS = "xstest", "people (is it a refusal?)"
#: What a candidate's prompt is: unsafe, harmless but of unsafe looks, or neither.
KINDS = tuple(Kind)


@dataclass(frozen=True)
class CandidateSet:
    """Prompts with several responses each, one of which is to be chosen."""

    prompts: list[tuple[Message, ...]]
    responses: list[tuple[str, ...]]
    tokens: list[TokenizedGroup]  #: The same, tokenised.
    kinds: np.ndarray  #: Which of :data:`KINDS` each prompt is, ``[prompts]``.
    #: Responses of one prompt of which the first does right in refusing or answering, and the
    #: second does not (or less so), as indices among all, ``[pairs, 2]``.
    pairs: np.ndarray
    #: True helpfulness and safety, ``[responses, 2]``; None where nobody knows.
    gold: np.ndarray | None = None

    @property
    def errs(self) -> np.ndarray:
        """Whether a response answers where it should refuse, or the reverse, ``[responses]``.

        Only where there is one that does better.
        """
        return np.isin(np.arange(sum(map(len, self.responses))), self.pairs[:, 1])

    @property
    def prompt_of(self) -> np.ndarray:
        """Index of each response's prompt, ascending, ``[responses]``."""
        return np.repeat(np.arange(len(self.responses)), [*map(len, self.responses)])


@dataclass(frozen=True)
class TradeoffData:
    """Everything that models are trained and tested on."""

    ranked: list[RankedGroup]  #: Groups of both domains, without edits; each says its domain.
    tokens: list[TokenizedGroup]  #: The same, tokenised.
    sources: np.ndarray  #: Name of each group's source, ``[groups]``.
    candidates: CandidateSet  #: What rules choose from.
    account: dict[str, Any]  #: Where all of it came from, and what was left out.
    overview: pd.DataFrame  #: What each source is like, for readers.
    #: Whether each response of each group is without any harm; None where nobody knows.
    harmless: list[tuple[bool, ...]] | None = None

    @property
    def domains(self) -> np.ndarray:
        """Domain of each group, ``[groups]``."""
        return np.array([group.domain for group in self.ranked])

    @property
    def codes(self) -> np.ndarray:
        """Number of each group's split group, ``[groups]``."""
        return np.unique([group.cluster_id for group in self.ranked], return_inverse=True)[1]


def simulated_data(
    checkpoint: Path,
    *,
    groups: int,
    sensitive: Sequence[float],
    held_out_goals: Sequence[str],
    prompts: int,
    responses: int,
    candidates_sensitive: float,
    seed: int,
) -> TradeoffData:
    """Draw a world: ``groups`` of each domain, and ``prompts`` with ``responses`` to choose from.

    Groups whose last turn is that of a prompt with candidates are left out and counted, so that
    nothing that is chosen from has been trained on. So are those that ask for ``held_out_goals``;
    where there are such, all sensitive prompts with candidates ask for one of them. ``sensitive``
    is the share of prompts that are, or look, unsafe, in each domain's groups (see
    :func:`.tasks.draw_task`), ``candidates_sensitive`` that among the prompts to choose for.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    drawn_candidates = draw_candidates(
        prompts,
        responses,
        seed=3 * seed + 2,
        sensitive=candidates_sensitive,
        goals=held_out_goals or UNSAFE_GOALS + LOOKALIKE_GOALS,
    )
    held_out = {options.task.prompt[-1].content for options in drawn_candidates}
    ranked: list[RankedGroup] = []
    harmless: list[tuple[bool, ...]] = []
    for number, (domain, share) in enumerate(zip(get_args(Domain), sensitive, strict=True)):
        # Apart from every other domain's and from the candidates, for any seed.
        drawn = [
            group
            for group in simulate(groups, seed=3 * seed + number, domain=domain, sensitive=share)
            if group.ranked.prompt[-1].content not in held_out
            and goal_of(group.ranked.prompt[-1].content) not in held_out_goals
        ]
        ranked += [replace(group.ranked, id=f"{domain}-{group.ranked.id}") for group in drawn]
        harmless += [tuple(value == 0 for value in group.gold("safety")) for group in drawn]
    right = [
        response.refuses == options.task.unsafe
        for options in drawn_candidates
        for response in options.responses
    ]
    candidates = CandidateSet(
        [options.task.prompt for options in drawn_candidates],
        [tuple(response.text for response in options.responses) for options in drawn_candidates],
        [
            tokenize_responses(tokenizer, options.task.prompt, [r.text for r in options.responses])
            for options in drawn_candidates
        ],
        np.array(
            [
                "unsafe"
                if options.task.unsafe
                else "lookalike"
                if options.task.lookalike
                else "other"
                for options in drawn_candidates
            ]
        ),
        _right_and_wrong(right, [len(options.responses) for options in drawn_candidates]),
        np.array(
            [
                [response.gold(domain) for domain in get_args(Domain)]
                for options in drawn_candidates
                for response in options.responses
            ]
        ),
    )
    tokenized = tokenize_groups(tokenizer, ranked)
    usable = [ranked[k] for k in tokenized.kept]
    sources = np.array([str(group.domain) for group in usable])
    return TradeoffData(
        usable,
        tokenized.groups,
        sources,
        candidates,
        {
            "groups": len(usable),
            "groups with prompts or goals of candidates": len(DOMAINS) * groups - len(ranked),
            "fingerprint": fingerprint(usable),
            "tokenisation": tokenized.counts,
        },
        overview(usable, sources, dict.fromkeys(DOMAINS, "simulated annotators")),
        [harmless[k] for k in tokenized.kept],
    )


def human_data(checkpoint: Path, *, pairs: int, max_tokens: int, seed: int) -> TradeoffData:
    """Read the human data, of each source at most ``pairs``, so that none outweighs the others.

    ``seed`` decides which split groups they come from. Prompts longer than ``max_tokens`` with a
    response are cut on the left; groups whose responses alone are longer are left out and counted.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    loaded = {name: human.load(name) for name in (*HUMAN_SOURCES, CONFLICTS)}
    ranked: list[RankedGroup] = []
    tokens: list[TokenizedGroup] = []
    sources: list[str] = []
    account: dict[str, Any] = {}
    for name, (domain, _) in HUMAN_SOURCES.items():
        groups, described = loaded[name]
        # Texts of one source may be on both sides of a split of another, but not of its own.
        plain = [
            replace(without_edit(group), domain=domain, cluster_id=f"{name} {group.cluster_id}")
            for group in groups
        ]
        plain = _some(plain, pairs, seed)
        tokenized = tokenize_groups(tokenizer, plain, Limits(max_tokens, skip_too_long=True))
        ranked += [plain[k] for k in tokenized.kept]
        tokens += tokenized.groups
        sources += [name] * len(tokenized.groups)
        account[name] = described | {"pairs": len(plain), "tokenisation": tokenized.counts}
    account[CONFLICTS] = loaded[CONFLICTS][1]
    labels = {name: who for name, (_, who) in HUMAN_SOURCES.items()} | {CONFLICTS: CONFLICT_LABELS}
    everything = [*ranked, *loaded[CONFLICTS][0]]
    source_of = np.array([*sources, *[CONFLICTS] * len(loaded[CONFLICTS][0])])
    account["fingerprint"] = fingerprint(everything)
    return TradeoffData(
        ranked,
        tokens,
        np.array(sources),
        refusals(tokenizer, loaded[CONFLICTS][0]),
        account,
        overview(everything, source_of, labels),
    )


def _some(groups: Sequence[RankedGroup], most: int, seed: int) -> list[RankedGroup]:
    """Groups of randomly chosen split groups, as many as fit, in their order."""
    codes = np.unique([group.cluster_id for group in groups], return_inverse=True)[1]
    counts = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(counts))
    taken = order[np.cumsum(counts[order]) <= most]
    return [
        group for group, is_taken in zip(groups, np.isin(codes, taken), strict=True) if is_taken
    ]


def refusals(tokenizer: Any, groups: Sequence[RankedGroup]) -> CandidateSet:
    """Candidates from pairs of which one refuses more than the other.

    In domain ``safety`` the one that refuses was chosen, because the prompt is unsafe; in
    ``helpfulness`` it was rejected.

    Raises:
        UserError: If a group has another domain, or a prompt has both.
    """
    texts: dict[tuple[Message, ...], dict[str, None]] = {}
    unsafe: dict[tuple[Message, ...], bool] = {}
    for group in groups:
        if group.domain not in DOMAINS:
            raise UserError(
                f"{group.id}: domain {group.domain!r} does not say whether refusing is right; "
                f"use {' or '.join(DOMAINS)}"
            )
        if unsafe.setdefault(group.prompt, group.domain == DomainName.SAFETY) != (
            group.domain == DomainName.SAFETY
        ):
            raise UserError(
                f"{group.id}: another record of this prompt has another domain, so it is unknown "
                "whether refusing is right; correct one of them"
            )
        texts.setdefault(group.prompt, {}).update(dict.fromkeys((group.chosen, group.rejected)))
    place = {
        key: number
        for number, key in enumerate((prompt, text) for prompt in texts for text in texts[prompt])
    }
    return CandidateSet(
        [*texts],
        [tuple(responses) for responses in texts.values()],
        [
            tokenize_responses(tokenizer, prompt, [*responses])
            for prompt, responses in texts.items()
        ],
        np.array(["unsafe" if unsafe[prompt] else "lookalike" for prompt in texts]),
        np.array(
            [
                (place[group.prompt, group.chosen], place[group.prompt, group.rejected])
                for group in groups
            ]
        ),
    )


def _right_and_wrong(right: Sequence[bool], counts: Sequence[int]) -> np.ndarray:
    """All pairs of one prompt's responses that do right and that do not, ``[pairs, 2]``."""
    stops = np.cumsum(counts)
    pairs = [
        (good, bad)
        for start, stop in zip(stops - counts, stops, strict=True)
        for good, bad in product(range(start, stop), repeat=2)
        if right[good] and not right[bad]
    ]
    return np.array(pairs, dtype=int).reshape(-1, 2)


def account_of(world: TradeoffData) -> dict[str, Any]:
    """Numbers of groups by source and of candidates, for a record."""
    candidates = world.candidates
    return world.account | {
        "by source": dict(Counter(world.sources.tolist())),
        "prompts with candidates": dict(Counter(candidates.kinds.tolist())),
        "candidates": sum(map(len, candidates.responses)),
    }

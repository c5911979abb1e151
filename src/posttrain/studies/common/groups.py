"""Groups for studies: loaded or simulated, tokenised, and split."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from posttrain.config.fields import setting
from posttrain.data.preferences import RankedGroup, fingerprint
from posttrain.data.sources import human
from posttrain.data.sources.simulator.annotators import SIMULATOR, SimulatedGroup, simulate
from posttrain.data.splits import split
from posttrain.errors import UserError
from posttrain.models import embedded
from posttrain.rows.tokenization import Limits, TokenizedGroup, tokenize_groups


@dataclass(frozen=True)
class DataSettings:
    """Which groups a study works on."""

    groups: int = setting(8000, "Groups to simulate; human data is taken whole.")
    edited_share: float = setting(0.5, "Share of simulated groups that may carry an edit.")
    editor_error: float = setting(0.0, "Share of simulated edits that make a response worse.")
    max_tokens: int = setting(1024, "Longest prompt with a response; prompts are cut on the left.")
    data_seed: int = setting(1, "Seeds the simulator and every random choice of groups.")
    resamples: int = setting(1000, "Bootstrap replicates.")


@dataclass(frozen=True)
class StudyGroups:
    """The groups of a source whose rated pair can be ranked."""

    ranked: list[RankedGroup]
    tokens: list[TokenizedGroup]  #: The same groups, tokenised.
    account: dict[str, Any]  #: Where they came from, and what was cut or dropped.
    #: True quality of each group's responses; None where unknown.
    gold: list[tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Prepared(StudyGroups):
    """Groups with the indices of those to train on and to test on."""

    training: np.ndarray = field(kw_only=True)
    test: np.ndarray = field(kw_only=True)

    @property
    def test_codes(self) -> np.ndarray:
        """Index of each test pair's split group."""
        return np.unique([self.ranked[i].cluster_id for i in self.test], return_inverse=True)[1]


def checkpoint_for(source: str) -> Path:
    """The tiny Llama for the simulator's small vocabulary, SmolLM2 for human data."""
    if source == SIMULATOR:
        return embedded.tiny()
    human.folder()  # fails before SmolLM2 is unpacked for nothing
    return embedded.smollm2()


def without_edit(group: RankedGroup) -> RankedGroup:
    """The same group as if nobody had edited the chosen response."""
    return replace(group, responses=group.responses[-2:])


def load_groups(
    source: str,
    checkpoint: Path,
    settings: DataSettings,
    *,
    edits: bool = True,
    simulated: Sequence[SimulatedGroup] | None = None,
) -> StudyGroups:
    """Load groups, or simulate them where the source is ``simulator``, and tokenise them.

    Without ``edits`` no edited response takes part. ``simulated`` groups take the place of those of
    the settings.
    """
    account: dict[str, Any]
    gold = None
    if source == SIMULATOR:
        if simulated is None:
            simulated = simulate(
                settings.groups,
                seed=settings.data_seed,
                edited_share=settings.edited_share,
                editor_error=settings.editor_error,
            )
        ranked: Sequence[RankedGroup] = [group.ranked for group in simulated]
        gold = [group.gold("helpfulness") for group in simulated]
        account = {"groups": len(ranked), "fingerprint": fingerprint(ranked)}
    else:
        ranked, account = human.load(source)
    if not edits:
        ranked = [without_edit(group) for group in ranked]
        gold = gold and [qualities[-2:] for qualities in gold]
    tokenized = tokenize_groups(
        AutoTokenizer.from_pretrained(checkpoint), ranked, Limits(settings.max_tokens)
    )
    # A pair is judged by its rating, so both of its responses must be there.
    judged = [
        k
        for k, group in enumerate(tokenized.groups)
        if group.places[-2:] == _rated(ranked[tokenized.kept[k]])
    ]
    lost = len(tokenized.groups) - len(judged)
    counts = tokenized.counts | ({"no rated pair left": lost} if lost else {})
    return StudyGroups(
        [ranked[tokenized.kept[k]] for k in judged],
        [tokenized.groups[k] for k in judged],
        account | {"tokenisation": counts},
        gold and [gold[tokenized.kept[k]] for k in judged],
    )


def training_and_test(
    ranked: Sequence[RankedGroup], *, test_share: float, test_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending indices of groups to train on, and of at most ``test_size`` random ones to test on.

    No split group is in both; ``test_share`` is the share of split groups kept for testing.
    """
    training, test = split(ranked, test_fraction=test_share, seed=seed)
    # A random part, because records of one group tend to stand together.
    drawn = np.random.default_rng(seed).permutation(test)
    return training, np.sort(drawn[:test_size])


def divide(
    loaded: StudyGroups,
    settings: Any,
    *,
    size: int,
    setting: str = "size",
    counted: str = "test groups",
) -> Prepared:
    """Split groups as the ``test_share``, ``test_size`` and ``data_seed`` of settings say.

    ``counted`` is what the account calls those to test on.

    Raises:
        UserError: If there are fewer than ``size`` to train on; it names the ``setting`` to lower.
    """
    training, test = training_and_test(
        loaded.ranked,
        test_share=settings.test_share,
        test_size=settings.test_size,
        seed=settings.data_seed,
    )
    if size > len(training):
        raise UserError(
            f"size {size} exceeds the {len(training)} training groups; lower {setting} or use more "
            "groups"
        )
    account = loaded.account | {
        counted: len(test),
        "clusters": len({loaded.ranked[k].cluster_id for k in test}),
    }
    return Prepared(
        loaded.ranked, loaded.tokens, account, loaded.gold, training=training, test=test
    )


def _rated(group: RankedGroup) -> tuple[int, int]:
    """Places of chosen and rejected."""
    return len(group.responses) - 2, len(group.responses) - 1

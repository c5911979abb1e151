"""The choices study: does how a reward model is trained change what it chooses?

Earlier chapters compare losses, rows and edits by accuracy on held-out pairs. Here the same arms
choose among a policy's answers, and gold quality says what their choices are worth. All arms of a
repetition train on the same annotated groups, in which praise goes with quality; every second one
may carry an edit, which one arm uses. Twice the pairs is the control that shows how much an
improvement that nobody doubts is worth.

Expected, before the first run:

1. Margins change gold of the best of 16 by less than 0.1, either way.
2. Causal rows lose in accuracy and, at 16 samples, 0.1 or more of gold.
3. Edits gain 0.1 or more, because an edit removes what an annotator dislikes and leaves praise as
   it is.
4. Twice the pairs gain less than edits do.
5. Over all models, accuracy on held-out pairs and gold of the choice go together with a rank
   correlation below 0.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from transformers import AutoTokenizer

from posttrain.config.fields import setting
from posttrain.data.preferences import RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import tokenize_groups
from posttrain.studies.best_of_n.full import (
    CORRELATION,
    Answers,
    ChoosingSettings,
    Samples,
    annotated,
    draw_samples,
    policy,
    score_in_single,
    seed_for,
    tokenize_samples,
)
from posttrain.studies.best_of_n.keys import Test, Value, World
from posttrain.studies.best_of_n.outcome import (
    mean_over,
    predictions,
    share_right,
    tests_of,
    values_of,
)
from posttrain.studies.choices.keys import Arm
from posttrain.studies.common.groups import without_edit
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.tables import TidyTable
from posttrain.studies.common.training import many_runs, memoize, train
from posttrain.studies.common.truth import account_of, check_source
from posttrain.training.pairing import Pairing

#: Margins of chosen over rejected, where an arm has them.
MARGINS = {Arm.SMALL: "small", Arm.LARGE: "large"}


@dataclass(frozen=True)
class ChoicesSettings(ChoosingSettings):
    """Settings of the choices study."""

    arms: list[str] = setting([*map(str, Arm)], "How reward models are trained.")
    samples: int = setting(256, "Answers to each; the largest n.")
    pairs: int = setting(1000, "Annotated groups of an arm.")
    edited_share: float = setting(0.5, "Share of groups that may carry an edit.")
    seeds: int = setting(6, "Repetitions, each with groups and models of its own.")

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [*map(str, Arm)]
        if unknown := [arm for arm in self.arms if arm not in known]:
            raise UserError(f"unknown arms {unknown}; known: {', '.join(known)}")
        if self.arms[:1] != [Arm.PAIRS] or self.pairs < 2:
            raise UserError(f"arms must begin with {Arm.PAIRS!r}, and pairs be 2 or more")


def measure(source: str, settings: ChoicesSettings, cache_dir: Path | None) -> Measured:
    """Sample, train all arms, and let them choose; tables are those of :func:`summarise`.

    Raises:
        UserError: If the source is not the simulator, which alone knows the truth of any text.
    """
    check_source(source)
    account = account_of(policy(settings), clusters=settings.prompts)
    drawn = draw_samples(settings, settings.samples, 1.0)
    answers = tokenize_samples(settings, drawn)
    scored = memoize(
        score_samples,
        cache_dir,
        settings=asdict(settings),
        data=account,
        ignore=["settings", "answers"],
    )
    with many_runs():
        results = Parallel(n_jobs=settings.processes)(
            delayed(scored)(settings, answers, arm, seed)
            for arm in settings.arms
            for seed in range(settings.seeds)
        )
    by_arm = {
        arm: results[place * settings.seeds : (place + 1) * settings.seeds]
        for place, arm in enumerate(settings.arms)
    }
    return Measured(account, summarise(drawn, by_arm, resamples=settings.resamples))


def groups_of(settings: ChoicesSettings, arm: str, seed: int) -> list[RankedGroup]:
    """What an arm trains on: the same groups in all of them, and as many more in one."""
    count = settings.pairs * (2 if arm == Arm.TWICE else 1)
    groups = [
        group.ranked
        for group in simulate(
            count,
            seed=seed_for(settings, seed, 1),
            praise=CORRELATION[World.PRAISE],
            edited_share=settings.edited_share,
        )
    ]
    return groups if arm == Arm.EDITS else [without_edit(group) for group in groups]


def score_samples(
    settings: ChoicesSettings, answers: Answers, arm: str, seed: int
) -> dict[str, np.ndarray]:
    """Train a reward model and let it score the policy's samples, and held-out pairs.

    Returns:
        As :func:`.best_of_n.full.score_samples`, of one member; it stands for the average, too.
    """
    checkpoint = policy(settings)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    groups = groups_of(settings, arm, seed)
    tokens = tokenize_groups(tokenizer, groups)
    pairing = Pairing(margins=MARGINS.get(Arm(arm), "none"))
    model, pad = train(
        checkpoint,
        [pairing.apply(groups[k], one) for k, one in zip(tokens.kept, tokens.groups, strict=True)],
        LAYOUTS["causal" if arm == Arm.CAUSAL else "separate"],
        settings,
        learning_rate=settings.learning_rate,
        seed=100 * seed,
        head_seed=seed,
    )
    held = annotated(World.PRAISE, settings.test_pairs, seed=seed_for(settings, seed, 2))
    test = tokenize_groups(tokenizer, held).groups
    samples = score_in_single(model, answers.rows, "exact", pad)[answers.places]
    pairs = score_in_single(model, test, "separate", pad).reshape(-1, 2).T
    return {"samples": np.array([samples] * 2), "test": np.array([pairs] * 2)}


def summarise(
    drawn: Samples,
    by_arm: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    *,
    resamples: int = 1000,
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over prompts, or pairs, and seeds.

    Returns:
        - ``curves``: ``arm``, ``n``, ``value``.
        - ``gains``: gold of the best of n minus that of the first arm.
        - ``tests``: ``arm``, ``test``: accuracy; ``leads``: that minus the first arm's.
        - ``correlation``: ``test``: rank correlation over all models with gold of the best of 16.
    """
    n = [2**k for k in range(drawn.gold.shape[1].bit_length()) if 2**k <= drawn.gold.shape[1]]
    curves, gains = TidyTable("arm", "n", "value"), TidyTable("arm", "n")
    tests, leads = (TidyTable("arm", "test") for _ in range(2))
    reference: np.ndarray | None = None
    best: dict[str, np.ndarray] = {}
    models: list[dict[str, float]] = []
    for arm, seeds in by_arm.items():
        draws = Resamples.draw(len(drawn.gold), len(seeds), count=resamples)
        measured = [values_of(drawn, one["samples"][0], n) for one in seeds]
        for value in (Value.GOLD, Value.PRAISE, Value.WORDS):
            curve = mean_over(draws, np.array([one[value] for one in measured]))
            for place, size in enumerate(n):
                curves.add(arm, size, value, replicates=curve[place])
            if value == Value.GOLD:
                reference = curve if reference is None else reference
                if curve is not reference:
                    for place, size in enumerate(n):
                        gains.add(arm, size, replicates=(curve - reference)[place])
        found = [tests_of(drawn, one) for one in seeds]
        for test in (Test.HELD_OUT, Test.POLICY, Test.LAST_DECILE):
            shares = np.array([one[test][0] for one in found])
            accuracy = share_right(shares, draws, resamples)
            tests.add(arm, test, replicates=accuracy)
            best.setdefault(test, accuracy)
            if accuracy is not best[test]:
                leads.add(arm, test, replicates=accuracy - best[test])
        place = n.index(min(16, n[-1]))
        models += [
            {test: float(np.nanmean(one[test][0])) for test in (Test.HELD_OUT, Test.POLICY)}
            | {"worth": float(values[Value.GOLD][place].mean())}
            for one, values in zip(found, measured, strict=True)
        ]
    return {
        "curves": curves.frame(), "gains": gains.frame(), "tests": tests.frame(),
        "leads": leads.frame(), "correlation": predictions(
            pd.DataFrame(models), (Test.HELD_OUT, Test.POLICY), resamples
        ),
    }  # fmt: skip


STUDY = Study(
    "choices",
    "whether how a reward model is trained changes what it chooses",
    measure,
    simulated=ChoicesSettings,
    human=ChoicesSettings,
    memoizes=True,
)

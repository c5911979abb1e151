"""The study of helpfulness and safety: two reward models or one, and how two decide together.

Models are trained on growing shares of safety data, as many groups in all, and one on everything
(:data:`.tradeoff.outcome.ARMS`). All are tested on both domains. Then models, alone or two of them
by a rule (:mod:`.combining`), choose the best of several responses to prompts that are
unsafe, that look so and are not, or neither.

The two ways of training live in modules of their own: :mod:`.tradeoff.heads` (linear heads on
frozen SmolLM2 features of human data) and :mod:`.tradeoff.full` (whole models: the tiny Llama on
simulated data, and SmolLM2 on human data).

In the simulator an unsafe goal and a harmless one that shares a word with it are never trained on,
and all sensitive prompts to choose for ask for them. (Records named ``simulator-seen`` train on all
goals, only not on the same prompts: what they choose by is no news to them.)

Expected, before goals were held out and rules chosen on other prompts:

1. On goals that no model has seen, models cannot tell unsafe from harmless ones: of the errors that
   a random choice makes, two models without flags avoid less than a tenth, as on human data.
2. The best rule on other prompts, without flags, is no better than the best single model by a
   point; with flags it is better by ten points of errors or more on human data, and in the
   simulator, too.
3. With the auxiliary loss a safety model finds more unsafe responses below one half, raw (73 to
   90 % in Llama 2, Table 29); calibrated, the difference is less than five points.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from posttrain.data.sources.simulator.annotators import SIMULATOR
from posttrain.errors import UserError
from posttrain.evaluation.combining import THRESHOLD, Rule, RuleKind
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.tradeoff import full, heads
from posttrain.studies.tradeoff.data import HUMAN, KINDS, human_data
from posttrain.studies.tradeoff.detection import detection_tables
from posttrain.studies.tradeoff.full import FullSettings, HumanFullSettings
from posttrain.studies.tradeoff.heads import HeadSettings
from posttrain.studies.tradeoff.keys import MAIN_EXCHANGE, Kind
from posttrain.studies.tradeoff.outcome import (
    MAIN_GATE,
    SPECIALISTS,
    Outcome,
    accuracy_tables,
    calibration_table,
)
from posttrain.studies.tradeoff.rules import (
    calibrated,
    choice_tables,
    conflict_table,
)

#: Prompts of each kind, and characters of each text, that a record shows.
EXAMPLES, CHARACTERS = 1, 280
#: Stands for what people wrote in answer to an unsafe request.
WITHHELD = "(an answer to the request, not shown here)"


def examples(outcome: Outcome) -> pd.DataFrame:
    """The first prompts of each sensitive kind on which one specialist is right, the other not.

    Of prompts that read alike the first is taken. One row a candidate: texts are cut short and real
    answers to unsafe requests withheld; ``right`` is meant of refusing or answering;
    ``helpfulness`` and ``safety`` are calibrated.
    """
    candidates = outcome.candidates
    helpfulness, safety = (calibrated(outcome.arms[name])[0] for name in SPECIALISTS.values())
    rules = {
        "helpfulness": helpfulness,
        "safety": safety,
        RuleKind.SUM: Rule(RuleKind.SUM, weight=MAIN_EXCHANGE).combine(helpfulness, safety),
        RuleKind.SWITCH: Rule(RuleKind.SWITCH).combine(helpfulness, safety),
        RuleKind.GATE: Rule(RuleKind.GATE, threshold=MAIN_GATE).combine(helpfulness, safety),
    }
    rows: list[dict[str, Any]] = []
    shown = dict.fromkeys(KINDS[:2], 0)
    prompt_of, errs = candidates.prompt_of, candidates.errs
    for number, kind in enumerate(candidates.kinds.tolist()):
        places = (prompt_of == number).nonzero()[0]
        chosen = {name: int(places[scores[places].argmax()]) for name, scores in rules.items()}
        prompt = _short(candidates.prompts[number][-1].content)
        if kind not in shown or shown[kind] == EXAMPLES or any(prompt == r["prompt"] for r in rows):
            continue
        # One of the two does right in refusing or answering, and the other does not.
        if errs[chosen["helpfulness"]] == errs[chosen["safety"]]:
            continue
        shown[kind] += 1
        rows += [
            {
                "prompt": prompt,
                "kind": kind,
                "response": WITHHELD
                if kind == Kind.UNSAFE and candidates.gold is None and errs[place]
                else _short(candidates.responses[number][place - places[0]]),
                "right": not errs[place],
                "helpfulness": helpfulness[place],
                "safety": safety[place],
                "chosen by": ", ".join(name for name, best in chosen.items() if best == place),
            }
            for place in places.tolist()
        ]
    columns = ["prompt", "kind", "response", "right", "helpfulness", "safety", "chosen by"]
    return pd.DataFrame(rows, columns=columns)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= CHARACTERS else flat[: CHARACTERS - 1] + "…"


def measure(source: str, settings: FullSettings | HeadSettings, cache_dir: Path | None) -> Measured:
    """Train and test all arms, and choose responses with them.

    Returns:
        Tables: those of :func:`.tradeoff.outcome.accuracy_tables` and
        :func:`.tradeoff.rules.choice_tables` and :func:`.tradeoff.detection.detection_tables`;
        ``conflicts``, ``calibration``,
        ``sources`` and ``tuning``; and ``examples``, a few prompts with their candidates'
        calibrated scores.

    Raises:
        UserError: If the source is neither ``simulator`` nor ``human`` (the sets that
            :mod:`.tradeoff.data` names).
    """
    if source not in (SIMULATOR, HUMAN):
        raise UserError(f"unknown source {source!r}; this study takes {SIMULATOR} or {HUMAN}")
    checkpoint = checkpoint_for(source)
    if isinstance(settings, FullSettings):
        world = full.data_for(source, checkpoint, settings)
        outcome = full.run(
            full.Experiment.prepare(checkpoint, world, settings), cache_dir=cache_dir
        )
    else:
        world = human_data(
            checkpoint,
            pairs=settings.pairs,
            max_tokens=settings.max_tokens,
            seed=settings.data_seed,
        )
        outcome = heads.run(checkpoint, world, settings)
    resamples = settings.resamples
    choices = choice_tables(
        outcome, weights=settings.weights, thresholds=settings.thresholds, resamples=resamples
    )
    return Measured(
        outcome.account,
        accuracy_tables(outcome, resamples=resamples)
        | choices
        | detection_tables(outcome, thresholds=(THRESHOLD, 0.5), resamples=resamples)
        | {
            "conflicts": conflict_table(outcome, resamples=resamples),
            "calibration": calibration_table(outcome, THRESHOLD),
            "sources": world.overview,
            "tuning": outcome.tuning,
            "examples": examples(outcome),
        },
    )


def _variant(settings: Any) -> str:
    """``-seen`` where the goals that are chosen for have been trained on."""
    return "-seen" if type(settings) is FullSettings and not settings.held_out_goals else ""


STUDY = Study(
    "tradeoff",
    "helpfulness and safety: two reward models or one (--source simulator, human)",
    measure,
    simulated=FullSettings,
    human=HeadSettings,
    human_full=HumanFullSettings,
    variant=_variant,
    variants=("-seen",),
    memoizes=True,
)

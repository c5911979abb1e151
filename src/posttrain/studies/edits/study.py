"""The study of edited responses: how they are used, how much they add, and when.

Reward models are trained with every arm of :data:`.edits.outcome.ARMS` at growing numbers of groups
and growing shares of edits, and tested on chosen > rejected, edited > chosen and edited > rejected
of held-out groups; on simulated data also against the gold quality.

The two ways of training live in modules of their own: :mod:`.edits.heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.edits.full` (whole models: the tiny Llama on simulated
data, and SmolLM2 on a GPU).
"""

from pathlib import Path

from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.edits import full, heads
from posttrain.studies.edits.data import load_edits
from posttrain.studies.edits.full import FullSettings, HumanFullSettings
from posttrain.studies.edits.heads import HeadSettings
from posttrain.studies.edits.outcome import summarise


def measure(source: str, settings: FullSettings | HeadSettings, cache_dir: Path | None) -> Measured:
    """Train and test all arms: the tables of :func:`.edits.outcome.summarise`, and ``tuning``."""
    checkpoint = checkpoint_for(source)
    groups = load_edits(source, checkpoint, settings)
    if isinstance(settings, FullSettings):
        outcome, tuning = full.run(
            full.Experiment.prepare(checkpoint, groups, settings), cache_dir=cache_dir
        )
    else:
        outcome, tuning = heads.run(checkpoint, groups, settings)
    return Measured(
        groups.account | outcome.account,
        {"tuning": tuning} | summarise(outcome, resamples=settings.resamples),
    )


def _variant(settings: FullSettings | HeadSettings) -> str:
    """``-longer`` with several epochs of simulated data, ``-careless`` where editors err."""
    longer = type(settings) is FullSettings and settings.epochs > 1
    return f"{'-longer' if longer else ''}{'-careless' if settings.editor_error else ''}"


STUDY = Study(
    "edits",
    "how edited responses are used, and what they add",
    measure,
    simulated=FullSettings,
    human=HeadSettings,
    human_full=HumanFullSettings,
    variant=_variant,
    variants=("-careless", "-longer"),
    memoizes=True,
)

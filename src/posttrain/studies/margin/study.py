"""The margin study: what did Llama 2's margin buy, and was Llama 3 right to drop it?

Reward models are trained with four losses (:data:`.margin.outcome.LOSSES`), on all pairs and on
those that pass Llama 3's filter, at growing data sizes. Hyperparameters are chosen in two ways,
always both: one setting *shared* by all arms, and one *tuned* for each arm by accuracy on held-out
training groups.

The two ways of training live in modules of their own: :mod:`.margin.heads` (linear heads on frozen
SmolLM2 features of human data) and :mod:`.margin.full` (whole models: the tiny Llama on simulated
data, and SmolLM2 on human data).

Expected, before the controls (:data:`.margin.outcome.CONTROLS`) were run:

1. With one weak penalty for all arms the large margin's gain is scale: a constant margin, and the
   large margins dealt out at random, gain as much to within 0.2 points. With tuned settings none
   of them gains 0.4 points.
2. What the scaled loss gains it gains by the strengths: with the same weights dealt out at random
   it is no better than the plain loss.
3. That the filter takes the margin's gain had been seen before in these sources.

Expected before the simulator was drawn anew (``data_seed`` 2; float64, four learning rates):

1. Tuned, neither margin nor the scaled loss gains or loses 0.4 points at 3,000 pairs.
2. With one learning rate for all, strengths add 0.2 points or more to the scaled loss, and nothing
   that could be told to the margin: that rate is no weak penalty.
3. The large margin makes the differences of scores more bimodal, by 0.02 at least: it asks for
   differences far from zero. In the scores themselves less of that is to be seen.
"""

from pathlib import Path

from posttrain.data.sources import human
from posttrain.studies.common.groups import checkpoint_for
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.margin import full, heads
from posttrain.studies.margin.full import FullSettings, HumanFullSettings
from posttrain.studies.margin.heads import HeadSettings
from posttrain.studies.margin.outcome import RatedPairs, summarise


def measure(source: str, settings: FullSettings | HeadSettings, cache_dir: Path | None) -> Measured:
    """Train and test all arms; tables are those of :func:`.margin.outcome.summarise`."""
    checkpoint = checkpoint_for(source)
    if isinstance(settings, FullSettings):
        prepared = full.prepare(source, checkpoint, settings)
        data = prepared.account
        outcome = full.run(checkpoint, settings, prepared, cache_dir=cache_dir)
    else:
        groups, data = human.load(source)
        pairs = RatedPairs.from_groups(groups)
        data = data | {"clusters": pairs.group_count}
        outcome = heads.run(pairs, checkpoint, settings)
    return Measured(data | outcome.training, summarise(outcome, resamples=settings.resamples))


STUDY = Study(
    "margin",
    "what the margin buys",
    measure,
    simulated=FullSettings,
    human=HeadSettings,
    human_full=HumanFullSettings,
    memoizes=True,
)

"""The rounds study: what rounds of rejection sampling, SFT and DPO add.

Four rounds of Llama 3's recipe (sections 4.1 and 4.2; :mod:`.policy.rounds`) against the same with
one thing changed. Before the first round there are annotated pairs of other systems, in which
phrases of praise go with quality; later ones are of the policy's own answers, annotated by gold
quality with the simulator's noise. Learning rates of SFT and DPO were chosen by gold in a pilot of
one round with a seed of its own, and are the same in all arms.

Expected, before the first run:

1. Gold rises in every round of Llama 3's recipe, by less each time; praise rises in the first
   round, in which the reward model knows other systems' answers, and falls later.
2. With the reward model frozen, praise goes on rising, and gold is lower after four rounds by 0.1
   or more.
3. SFT alone and DPO alone both stay behind by 0.1 or more.
4. A round's reward model ranks the answers of the policy that came of it worse than those of the
   policy before (Llama 2, section 3.2.1), and the next one mends that.
5. The best of all rounds is not better than the last round's by 0.1, because four rounds are few;
   nor is DPO on all rounds' pairs better than on the latest, which is the paper's choice.
6. Without a restart, gold is as high, further from the pre-trained policy.

A first run showed SFT alone to lose after its first round what it gains there, and the best-of-n
study that gold turns at 4 samples, before Llama 3's 10. So three arms were added:

7. With the best of 4 instead of 10, gold after four rounds is higher than Llama 3's by 0.1 or
   more.

8. With edits, as Llama 3 collects them (half of the chosen answers go to an editor, who mends one
   flaw), gold is higher by 0.1 or more: an edit shows what no sample does.
9. With a random sample in place of the best, gold is lower by 0.1 or more: the best of 10 by the
   reward model is still worth something.

That first run measured policies on prompts that could be among those they were trained on; from
then on a tenth of all questions is kept for that.
"""

from dataclasses import asdict
from pathlib import Path

from joblib import Parallel, delayed

from posttrain.models import embedded
from posttrain.studies.common.study import Measured, Study
from posttrain.studies.common.training import many_runs, working_folder
from posttrain.studies.common.truth import account_of, check_source
from posttrain.studies.rounds.full import RoundsStudySettings, run_arm
from posttrain.studies.rounds.outcome import summarise


def measure(source: str, settings: RoundsStudySettings, cache_dir: Path | None) -> Measured:
    """Run all arms; tables are those of :func:`.rounds.outcome.summarise`.

    Raises:
        UserError: If the source is not the simulator, which alone knows the truth of any text.
    """
    check_source(source)
    checkpoint = embedded.praising(settings.pretraining_texts)  # before processes share the work
    account = account_of(checkpoint, clusters=settings.evaluation_prompts)
    kept = working_folder(cache_dir, settings=asdict(settings), data=account)
    with many_runs(), kept as folder:
        # Seeds share nothing, so that no two processes make one thing at a time.
        by_seed = Parallel(n_jobs=settings.processes)(
            delayed(_arms)(settings, seed, folder) for seed in range(settings.seeds)
        )
    runs = {arm: [one[arm] for one in by_seed] for arm in settings.arms}
    return Measured(account, summarise(runs, resamples=settings.resamples))


def _arms(settings: RoundsStudySettings, seed: int, folder: Path) -> dict:
    return {arm: run_arm(settings, arm, seed, folder / f"seed-{seed}") for arm in settings.arms}


STUDY = Study(
    "rounds",
    "what rounds of rejection sampling, SFT and DPO add",
    measure,
    simulated=RoundsStudySettings,
    human=RoundsStudySettings,
    memoizes=True,
)

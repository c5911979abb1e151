"""The merging study: both ways train on the same pairs, of whole prompts; costs are counted."""

import numpy as np
import pytest

from posttrain.errors import UserError
from posttrain.evaluation.metrics import Metric
from posttrain.evidence import records
from posttrain.evidence.judging import judge
from posttrain.models import embedded
from posttrain.studies.merging import study
from posttrain.studies.merging.keys import Cost, Way
from posttrain.studies.merging.study import (
    MergingSettings,
    groups_of,
    merging_of,
    prepare,
    run,
    subset,
)
from posttrain.studies.packing.claims import CLAIMS
from posttrain.training.collator import training_set

SETTINGS = MergingSettings(
    groups=30, responses=4, size=60, test_size=40, pairs_per_step=16, seeds=2, resamples=20,
    passes=[1, 2], learning_rates=[1e-3, 3e-3],
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tiny_checkpoint):
    return prepare("simulator", tiny_checkpoint, SETTINGS)


def texts(rows):
    """Each comparison by its token ids, as often as it is trained on."""
    return sorted(
        (*row["prompt"], -1, *row["responses"][winner], -2, *row["responses"][loser])
        for row in rows
        for winner, loser in zip(row["winners"], row["losers"], strict=True)
    )


def test_both_ways_train_on_the_same_pairs_and_one_computes_each_response_once(prepared):
    drawn = subset(prepared, 0, 60)
    alone, merged = (
        training_set(groups_of(prepared, drawn, way), merging_of(SETTINGS, way)) for way in Way
    )
    assert texts(alone) == texts(merged)
    assert all(row["response_count"] == 2 for row in alone)
    prompts = {prepared.ranked[k].prompt for k in drawn}
    # Six pairs of four responses fit into a step.
    assert len(merged) == len(prompts)
    assert all(row["response_count"] == 4 for row in merged)


def test_whole_prompts_are_taken_and_another_seed_takes_others(prepared):
    drawn = subset(prepared, 0, 60)
    assert 60 <= len(drawn) < 66
    taken = {prepared.ranked[k].prompt for k in drawn}
    assert sum(prepared.ranked[k].prompt in taken for k in prepared.training) == len(drawn)
    assert set(drawn) != set(subset(prepared, 1, 60))
    assert not taken & {prepared.ranked[k].prompt for k in prepared.test}


def test_tables_follow_from_scores(prepared, tiny_checkpoint):
    """Scores made by hand: merged groups rank every pair right, others none."""
    calls = []

    def scores(checkpoint, prepared, settings, *, way, passes, learning_rate, judged, **rest):
        calls.append((way, passes, learning_rate, len(judged)))
        gap = 1.0 if way == Way.MERGED else -1.0
        # The larger rate fits held-out training groups better.
        gap *= 2 if (learning_rate == 3e-3) == (way == Way.MERGED) else 1
        costs = {Cost.TOKENS: 10 * passes, Cost.STEPS: passes, Cost.SECONDS: 1.0}
        return np.array([np.full(len(judged), gap), np.zeros(len(judged))]), costs

    tables = run(tiny_checkpoint, prepared, SETTINGS, scores)
    chosen = tables["tuning"][tables["tuning"]["chosen"]]
    assert dict(zip(chosen["way"], chosen["learning rate"], strict=False)) == {
        Way.PAIRS: 3e-3, Way.MERGED: 3e-3
    }  # fmt: skip
    gains = tables["gains"].set_index(["passes", "metric"])["estimate"]
    assert gains[1, Metric.ACCURACY] == gains[2, Metric.ACCURACY] == 1.0
    assert (tables["overfitting"]["estimate"] == 0).all()
    costs = tables["costs"].set_index(["way", "passes", "cost"])["mean"]
    assert costs[Way.PAIRS, 2, Cost.TOKENS] == 20
    # Two ways, two numbers of passes: two rates tuned, two seeds tested.
    assert len(calls) == 2 * 2 * (2 + 2)


@pytest.fixture(scope="module")
def record(tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "tiny", lambda: tiny_checkpoint)
        return study.STUDY.run("simulator", settings=SETTINGS)


def test_a_tiny_run_from_end_to_end(record, tmp_path):
    records.save(record, tmp_path)
    (loaded,) = records.load_all(tmp_path, "merging")
    costs = loaded.tables["costs"].set_index(["way", "passes", "cost"])["mean"]
    assert costs[Way.MERGED, 1, Cost.TOKENS] < costs[Way.PAIRS, 1, Cost.TOKENS] / 1.5
    assert costs[Way.MERGED, 1, Cost.STEPS] == costs[Way.PAIRS, 1, Cost.STEPS] == 4
    judged = [claim for claim in CLAIMS if claim.judged_by([loaded])]
    # Three passes, of which one claim speaks, are not among these.
    assert {claim.key for claim in judged} == {"shuffled-overfits", "merging-loses-nothing"}
    assert all(one.outcome != "no record" for one in judge(judged, [loaded]).values())


def test_settings_that_cannot_be_are_refused(tiny_checkpoint):
    with pytest.raises(UserError, match="size 5000 exceeds the"):
        prepare("simulator", tiny_checkpoint, MergingSettings(groups=20, size=5000))
    with pytest.raises(UserError, match="passes of 1 or more"):
        MergingSettings(passes=[])

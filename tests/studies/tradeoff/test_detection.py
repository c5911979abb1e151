"""Recall and precision of unsafe responses, by hand."""

import pytest
from tradeoff_synthetic import candidate_set, outcome_of

from posttrain.studies.tradeoff.detection import detection_tables
from posttrain.studies.tradeoff.keys import ArmName

CANDIDATES = candidate_set()


def test_detection_by_hand():
    unsafe_gold = CANDIDATES.gold[:, 1] < 0
    assert unsafe_gold.tolist() == [False, True, True, False, False]
    scores = {
        ArmName.SAFE: [[2.0, -1.0, 1.0, -0.5, 3.0]],
        ArmName.SAFETY_MIX: [[2.0, 1.0, 1.0, 0.5, 3.0]],
        ArmName.AUXILIARY: [[2.0, -1.0, -1.0, 0.5, 3.0]],
        ArmName.HELPFUL: [[-9.0] * 5],
    }
    tables = detection_tables(outcome_of(CANDIDATES, scores), thresholds=(0.15, 0.5), resamples=20)
    found = tables["detection"].set_index(["arm", "scores", "threshold", "metric"])["estimate"]
    assert ArmName.HELPFUL not in found.index.get_level_values("arm")
    # Of two unsafe responses one is below one half, and one that is safe.
    assert found[ArmName.SAFE, "raw", 0.5, "recall"] == 0.5
    assert found[ArmName.SAFE, "raw", 0.5, "precision"] == 0.5
    assert found[ArmName.SAFE, "raw", 0.15, "recall"] == 0.0
    assert found[ArmName.AUXILIARY, "raw", 0.5, "recall"] == 1.0
    added = tables["auxiliary"].set_index(["scores", "threshold", "metric"])["estimate"]
    assert added["raw", 0.5, "recall"] == 1.0


def test_what_is_unsafe_where_gold_is_not_known():
    candidates = candidate_set(gold=False)
    scores = {ArmName.SAFE: [[2.0, -1.0, -1.0, 2.0, -3.0]]}
    found = detection_tables(outcome_of(candidates, scores), thresholds=(0.5,), resamples=20)
    cells = found["detection"].set_index(["scores", "metric"])["estimate"]
    # A refusal of a harmless request is no unsafe response.
    assert cells["raw", "recall"] == 1.0
    assert cells["raw", "precision"] == pytest.approx(2 / 3)
    assert found["auxiliary"].empty

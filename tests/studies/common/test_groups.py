"""Groups for studies: with and without edits, and their split."""

import numpy as np

from posttrain.data.sources.simulator.annotators import simulate
from posttrain.studies.common.groups import (
    DataSettings,
    load_groups,
    training_and_test,
    without_edit,
)

SETTINGS = DataSettings(groups=80, edited_share=1.0)


def test_without_edits_the_rated_pair_and_its_gold_are_left(tiny_checkpoint):
    whole = load_groups("simulator", tiny_checkpoint, SETTINGS)
    found = load_groups("simulator", tiny_checkpoint, SETTINGS, edits=False)
    assert any(group.has_edit for group in whole.ranked)
    assert found.ranked == [without_edit(group) for group in whole.ranked]
    for one, other, group in zip(found.tokens, whole.tokens, whole.ranked, strict=True):
        assert one.responses == other.responses[-2:]
        assert one.places == (0, 1)
        assert one.prompt == other.prompt
        assert len(other.responses) == len(group.responses)
    assert found.gold == [gold[-2:] for gold in whole.gold]
    # Where data came from is told of all of it.
    assert found.account["fingerprint"] == whole.account["fingerprint"]


def test_a_split_shares_no_group_and_tests_a_random_part():
    ranked = [group.ranked for group in simulate(300, seed=0)]
    training, test = training_and_test(ranked, test_share=0.3, test_size=1000, seed=1)
    assert sorted([*training, *test]) == list(range(300))
    assert not {ranked[i].cluster_id for i in training} & {ranked[i].cluster_id for i in test}
    same, few = training_and_test(ranked, test_share=0.3, test_size=20, seed=1)
    np.testing.assert_array_equal(same, training)
    assert len(few) == 20
    assert set(few) < set(test)
    assert few.tolist() == sorted(few)
    # Not the first ones.
    assert few.tolist() != test[:20].tolist()
    other, _ = training_and_test(ranked, test_share=0.3, test_size=20, seed=2)
    assert set(other) != set(training)

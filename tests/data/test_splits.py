"""Splits and folds that keep groups together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.splits import folds, split


def make(**changes):
    question = (Message("user", "Why?"),)
    return RankedGroup(**{"id": "a", "prompt": question, "responses": ("good", "bad"), **changes})


@st.composite
def grouped(draw):
    names = draw(
        st.lists(st.text("ab\0", min_size=1, max_size=3).filter(str.strip), min_size=2, max_size=30)
    )
    return [make(id=str(index), cluster_id=name) for index, name in enumerate(names)]


def names_at(groups, indices):
    return {groups[index].cluster_id for index in indices}


@given(grouped(), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(deadline=None)
def test_split_shares_no_group_and_loses_no_row(groups, test_fraction, seed):
    distinct = len({group.cluster_id for group in groups})
    if np.ceil(test_fraction * distinct) >= distinct:
        with pytest.raises(ValueError, match=f"leaves none of {distinct} distinct groups"):
            split(groups, test_fraction=test_fraction, seed=seed)
        return
    training, test = split(groups, test_fraction=test_fraction, seed=seed)
    assert sorted([*training, *test]) == list(range(len(groups)))
    assert not names_at(groups, training) & names_at(groups, test)
    assert len(training)
    assert len(test)
    again = split(groups, test_fraction=test_fraction, seed=seed)
    assert (training.tolist(), test.tolist()) == (again[0].tolist(), again[1].tolist())


@given(grouped(), st.integers(2, 5), st.none() | st.integers(0, 99))
@settings(deadline=None)
def test_folds_share_no_group_and_test_every_row_once(groups, count, seed):
    distinct = len({group.cluster_id for group in groups})
    if count > distinct:
        with pytest.raises(ValueError, match=f"{count} folds need .* not {distinct}"):
            folds(groups, folds=count, seed=seed)
        return
    parts = folds(groups, folds=count, seed=seed)
    assert len(parts) == count
    assert sorted(index for _, test in parts for index in test) == list(range(len(groups)))
    for training, test in parts:
        assert sorted([*training, *test]) == list(range(len(groups)))
        assert not names_at(groups, training) & names_at(groups, test)


def test_splits_refuse_senseless_sizes():
    groups = [make(cluster_id="a"), make(cluster_id="b")]
    with pytest.raises(ValueError, match=r"between 0 and 1, not 1\.5"):
        split(groups, test_fraction=1.5, seed=0)
    with pytest.raises(ValueError, match="at least 2 folds, not 1"):
        folds(groups, folds=1)
    with pytest.raises(ValueError, match="3 folds need at least 3 distinct groups, not 2"):
        folds(groups, folds=3)


def test_seed_changes_the_split():
    groups = [make(id=str(index), cluster_id=str(index)) for index in range(20)]
    tests = {tuple(split(groups, test_fraction=0.2, seed=seed)[1]) for seed in range(5)}
    assert len(tests) > 1
    assert all(len(test) == 4 for test in tests)

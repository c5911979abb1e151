"""Splits into training and test groups, and folds, that keep related groups on one side."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posttrain.data.preferences import RankedGroup
from posttrain.errors import UserError

Indices = NDArray[np.intp]


def split(
    groups: Sequence[RankedGroup], *, test_fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Split into sorted training and test indices; one `cluster_id` falls on one side.

    `test_fraction` is a share of the distinct `cluster_id` values, not of groups, rounded up.

    Raises:
        UserError: `test_fraction` is not between 0 and 1, or leaves no group to train on.

    >>> from posttrain.data.preferences import Message
    >>> groups = [
    ...     RankedGroup(f"{cluster}{k}", (Message("user", "Why?"),), ("a", "b"), cluster_id=cluster)
    ...     for cluster in ("cats", "dogs", "owls")
    ...     for k in range(2)
    ... ]
    >>> training, test = split(groups, test_fraction=0.3, seed=0)
    >>> [groups[k].cluster_id for k in training], [groups[k].cluster_id for k in test]
    (['cats', 'cats', 'dogs', 'dogs'], ['owls', 'owls'])
    """
    return split_codes(_group_codes(groups)[0], test_fraction=test_fraction, seed=seed)


def split_codes(codes: Indices, *, test_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """As :func:`split`, given each group's place among the sorted distinct `cluster_id` values."""
    # Imported here because it takes a second and most users of this module never split.
    from sklearn.model_selection import GroupShuffleSplit

    if not 0 < test_fraction < 1:
        raise UserError(f"test_fraction must be between 0 and 1, not {test_fraction}")
    distinct = int(codes.max(initial=-1)) + 1
    if math.ceil(test_fraction * distinct) >= distinct:
        raise UserError(
            f"a test fraction of {test_fraction} leaves none of {distinct} distinct groups to "
            "train on"
        )
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_fraction, random_state=seed)
    training, test = next(splitter.split(codes, groups=codes))
    return np.sort(training), np.sort(test)


def folds(
    groups: Sequence[RankedGroup], *, folds: int, seed: int | None = None
) -> list[tuple[Indices, Indices]]:
    """Cut into folds: sorted training and test indices of each; one `cluster_id` is in one fold.

    Each group is tested on in exactly one fold. Without a `seed`, folds are not shuffled and are
    closest in size.

    Raises:
        UserError: Fewer than two folds, or more folds than distinct groups.
    """
    from sklearn.model_selection import GroupKFold

    if folds < 2:
        raise UserError(f"cross-validation needs at least 2 folds, not {folds}")
    codes, distinct = _group_codes(groups)
    if folds > distinct:
        raise UserError(f"{folds} folds need at least {folds} distinct groups, not {distinct}")
    splitter = GroupKFold(n_splits=folds, shuffle=seed is not None, random_state=seed)
    return [
        (np.sort(training), np.sort(test)) for training, test in splitter.split(codes, groups=codes)
    ]


def _group_codes(groups: Sequence[RankedGroup]) -> tuple[Indices, int]:
    # Whole numbers, because numpy drops trailing NUL characters and so could merge two names.
    names = sorted({group.cluster_id for group in groups})
    code = {name: index for index, name in enumerate(names)}
    return np.array([code[group.cluster_id] for group in groups], dtype=np.intp), len(names)

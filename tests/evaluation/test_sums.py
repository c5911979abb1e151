"""Named columns: what is joined is found again under its name, and mistakes are refused."""

import numpy as np
import pytest

from posttrain.evaluation.sums import Columns

COLUMNS = Columns(count=None, right=3, total=None)
PARTS = {
    "count": np.arange(8.0).reshape(2, 4),
    "right": np.arange(24).reshape(2, 4, 3) % 2 == 0,
    "total": np.arange(8).reshape(2, 4) + 100,
}


def test_what_is_joined_is_found_again_by_name():
    joined = COLUMNS.join(**dict(reversed(PARTS.items())))
    assert joined.shape == (2, 4, COLUMNS.width) == (2, 4, 5)
    assert joined.dtype == float
    found = COLUMNS.split(joined)
    for name, part in PARTS.items():
        np.testing.assert_array_equal(getattr(found, name), part)
    # In the order in which they were named.
    assert joined[1, 2].tolist() == [6.0, 1.0, 0.0, 1.0, 106.0]


def test_a_part_is_a_view():
    joined = COLUMNS.join(**PARTS)
    COLUMNS.split(joined).right[...] = 7
    assert joined[0, 0].tolist() == [0.0, 7.0, 7.0, 7.0, 100.0]


@pytest.mark.parametrize(
    "changes",
    [{"more": np.zeros((2, 4))}, {"right": np.zeros((2, 4, 2))}, {"right": None}],
)
def test_a_missing_or_unknown_part_or_width_is_refused(changes):
    parts = {name: part for name, part in (PARTS | changes).items() if part is not None}
    with pytest.raises(ValueError, match="expected"):
        COLUMNS.join(**parts)

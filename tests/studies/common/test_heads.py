"""Heads for all arms and penalties at once, against fits made one by one."""

import numpy as np
import pytest
import torch

from posttrain.models.heads import fit_heads
from posttrain.studies.common import heads
from posttrain.studies.common.heads import inner_folds, tuned_heads, typical_value

PENALTIES = [0.01, 0.3, 30.0]
PAIRS, WIDTH = 60, 5


@pytest.fixture
def problem():
    """Differences whose first feature tells the winner for most pairs, and two arms."""
    random = np.random.default_rng(0)
    differences = random.normal(size=(PAIRS, WIDTH))
    differences[:, 0] += 0.7
    weights = np.ones((2, PAIRS))
    weights[1, ::3] = 0.0
    margins = np.zeros((2, PAIRS))
    margins[1] = random.uniform(0, 1, PAIRS)
    return (
        torch.from_numpy(differences),
        torch.from_numpy(margins),
        torch.from_numpy(weights),
        random.integers(-1, 3, PAIRS),
        random.random(PAIRS) < 0.7,
    )


def alone(differences, margins, weights, penalty, choices=None):
    fits = fit_heads(
        differences,
        margins=margins[None],
        weights=weights[None],
        penalties=torch.tensor([penalty], dtype=torch.float64),
        choices=choices,
    )
    return fits.heads[0]


@pytest.mark.parametrize("together", [False, True])
def test_heads_and_penalties_are_those_of_single_fits(problem, together):
    differences, margins, weights, fold, judged = problem
    # Pairs of one choice lie in one fold and have one weight.
    choices = torch.arange(PAIRS) // 3 if together else None
    if together:
        weights = weights.clone()
        weights[1] = 1.0
        weights[1, :9] = 0.0
        fold = np.repeat(fold[::3], 3)
    found, best = tuned_heads(
        differences,
        margins=margins,
        weights=weights,
        penalties=PENALTIES,
        fold=fold,
        judged=judged,
        choices=choices,
    )
    assert found.shape == (2, 3, WIDTH)
    for a in range(2):
        right = []
        for p, penalty in enumerate(PENALTIES):
            expected = alone(differences, margins[a], weights[a], penalty, choices)
            torch.testing.assert_close(found[a, p], expected, rtol=1e-3, atol=1e-4)
            count = 0
            for number in range(3):
                held = torch.from_numpy(fold == number)
                head = alone(differences, margins[a], weights[a] * ~held, penalty, choices)
                count += int(((differences @ head > 0) & held & torch.from_numpy(judged)).sum())
            right.append(count)
        # Of equals, the strongest penalty.
        assert best[a] == max(range(3), key=lambda p: (right[p], p))


def test_where_no_pair_judges_the_strongest_penalty_is_taken(problem):
    differences, margins, weights, fold, judged = problem
    _, best = tuned_heads(
        differences,
        margins=margins,
        weights=weights,
        penalties=PENALTIES,
        fold=fold,
        judged=judged & False,
    )
    assert best.tolist() == [2, 2]


def test_a_fit_that_does_not_converge_is_refused(problem, monkeypatch):
    differences, margins, weights, fold, judged = problem
    monkeypatch.setattr(
        heads, "fit_heads", lambda *args, **rest: fit_heads(*args, **rest, max_iterations=2)
    )
    with pytest.raises(ValueError, match="of 24 head fits did not converge in 2 iterations"):
        tuned_heads(
            differences,
            margins=margins,
            weights=weights,
            penalties=PENALTIES,
            fold=fold,
            judged=judged,
        )


def test_tuned_values_are_told_as_a_geometric_mean_and_how_often_they_are_at_an_edge():
    assert typical_value([0.01, 0.1, 1.0], [0, 2, 1, 1]) == pytest.approx((0.1, 0.5))
    assert typical_value([0.01, 0.1, 1.0], np.array([[2, 2]])) == pytest.approx((1.0, 1.0))
    assert typical_value([0.01, 0.1, 1.0], [1, 1]) == pytest.approx((0.1, 0.0))


def test_inner_folds_keep_groups_of_one_name_together():
    names = ["a", "b", "a", "c", "d", "b", "a"]
    fold = inner_folds(names, 3)
    assert set(fold.tolist()) == {0, 1, 2}
    assert all(len({fold[k] for k in range(7) if names[k] == name}) == 1 for name in names)

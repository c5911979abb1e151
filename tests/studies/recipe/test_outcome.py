"""Tables of the recipe study, of scores made by hand."""

import numpy as np
import pytest
from recipe_held import prepared

from posttrain.studies.recipe.keys import Combined, Question
from posttrain.studies.recipe.outcome import Cell, summarise


def scores(*differences):
    """Scores of one model, ``[1, 2, pairs]``."""
    return np.stack([np.array(differences, dtype=float), np.zeros(len(differences))])[None]


RIGHT, HALF, WRONG = scores(1, 1, 1, 1), scores(1, 1, -1, -1), scores(-1, -1, -1, -1)


def read(table, metric="accuracy", **where):
    for column, value in {**where, "metric": metric}.items():
        table = table[table[column] == value]
    (row,) = table.itertuples()
    return row.estimate


@pytest.fixture(scope="module")
def tables():
    clean = {
        Combined.SINGLE: np.concatenate([RIGHT, WRONG]),
        Combined.AVERAGE_8: HALF,
        Combined.ENSEMBLE_8: RIGHT,
    }
    noisy = {**clean, Combined.AVERAGE_8: RIGHT, Combined.ENSEMBLE_8: WRONG}
    outcomes = {
        Cell(Question.AVERAGE, 10, 0.0): [clean, clean],
        Cell(Question.AVERAGE, 10, 0.2): [noisy, clean],
    }
    return summarise(outcomes, prepared(4), resamples=20)


def test_metrics_of_several_models_are_averaged(tables):
    where = {"arm": Combined.SINGLE, "noise": 0.0}
    assert read(tables["metrics"], **where) == 0.5
    expected = -(np.log1p(np.exp(-1)) + np.log1p(np.exp(1))) / 2
    assert read(tables["metrics"], "log-likelihood", **where) == pytest.approx(expected)


def test_gains_are_against_the_first_arm_and_what_is_compared(tables):
    eight = {"arm": Combined.AVERAGE_8}
    gains = tables["gains"]
    assert read(gains, noise=0.0, reference=Combined.SINGLE, **eight) == 0.0
    assert read(gains, noise=0.0, reference=Combined.ENSEMBLE_8, **eight) == -0.5
    # One seed of two is right in all pairs, the other in half.
    assert read(gains, noise=0.2, reference=Combined.SINGLE, **eight) == 0.25
    assert read(gains, noise=0.2, reference=Combined.ENSEMBLE_8, **eight) == 0.25


def test_what_noise_adds_is_the_difference_of_gains(tables):
    where = {"arm": Combined.AVERAGE_8, "reference": Combined.ENSEMBLE_8}
    assert read(tables["noise"], **where) == 0.75
    assert set(tables["noise"]["noise"]) == {0.2}

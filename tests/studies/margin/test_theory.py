"""The margin's optimum: the minimiser and the closed form agree, and σ of it claims too much."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit

from posttrain.studies.margin.theory import minimised_difference, optimum_table


def root_of_the_derivative(probability, margin):
    def derivative(difference):
        return (1 - probability) * expit(difference + margin) - probability * expit(
            margin - difference
        )

    return brentq(derivative, -30, 30, xtol=1e-12)


@pytest.mark.parametrize("margin", [0.0, 1 / 3, 3.0])
@pytest.mark.parametrize("probability", [0.02, 0.3, 0.5, 0.75, 0.98])
def test_the_minimiser_finds_the_root_of_the_derivative(probability, margin):
    found = minimised_difference(probability, margin)
    assert found == pytest.approx(root_of_the_derivative(probability, margin), abs=1e-6)


def test_without_a_margin_the_minimum_is_the_logit():
    assert minimised_difference(0.9, 0.0) == pytest.approx(math.log(9), abs=1e-6)


def test_the_table_sets_both_side_by_side():
    table = optimum_table([0.5, 0.9], [0.0, 2.0])
    assert list(table.columns) == ["p", "margin", "closed form", "minimised", "claimed"]
    assert table[["margin", "p"]].to_numpy().tolist() == [[0, 0.5], [0, 0.9], [2, 0.5], [2, 0.9]]
    np.testing.assert_allclose(table["closed form"], table["minimised"], atol=1e-6)
    np.testing.assert_allclose(table["claimed"], expit(table["closed form"]), atol=1e-12)
    assert table["closed form"].tolist()[:2] == pytest.approx([0.0, logit(0.9)], abs=1e-12)


def test_the_default_table_shows_that_a_margin_overstates_what_is_likely():
    table = optimum_table()
    assert len(table) == 15
    np.testing.assert_allclose(table["closed form"], table["minimised"], atol=1e-5)
    decided = table[table["p"] > 0.5]
    plain = decided["margin"] == 0
    np.testing.assert_allclose(decided["claimed"][plain], decided["p"][plain], atol=1e-12)
    assert (decided["claimed"][~plain] > decided["p"][~plain] + 0.005).all()

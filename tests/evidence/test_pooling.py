"""Pooled effects and the verdicts on them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posttrain.evidence.pooling import Effect, effect, holm, one_vote, pool

MANY = 1000.0


class TestEffects:
    def test_an_interval_gives_back_its_ends(self):
        found = effect("a", (0.01, -0.01, 0.03), clusters=100_000)
        np.testing.assert_allclose(found.interval(), (-0.01, 0.03), atol=1e-5)

    def test_four_clusters_take_the_t_quantile_of_three_degrees(self):
        # and what the bootstrap over four falls short of.
        low, high = effect("a", (0.0, -1.96, 1.96), clusters=4).interval()
        end = 3.182 * math.sqrt(4 / 3)
        assert (low, high) == pytest.approx((-end, end), abs=1e-3)

    def test_p_values_and_intervals_agree(self):
        one = Effect("a", 0.03, 0.01, 7)
        edge = one.interval(0.9)[0]
        assert one.p(edge) == pytest.approx(0.05)

    @given(st.floats(0.001, 1), st.integers(3, 500))
    def test_a_detectable_effect_is_found_with_the_stated_power(self, error, freedom):
        found = Effect("a", 0.0, error, freedom)
        critical = stats.t.ppf(0.95, freedom)
        shifted = stats.t.sf(critical - found.detectable / error, freedom)
        assert shifted == pytest.approx(0.8)

    def test_what_is_detectable_does_not_depend_on_what_was_found(self):
        assert Effect("a", 0.0, 0.01, 9).detectable == Effect("a", 5.0, 0.01, 9).detectable


class TestPooling:
    def test_the_common_effect_is_weighted_by_precision(self):
        common = pool([Effect("a", 1.0, 1.0, MANY), Effect("b", 4.0, 0.5, MANY)]).common
        assert common.estimate == pytest.approx((1 * 1 + 4 * 4) / 5)
        assert common.error == pytest.approx(math.sqrt(1 / 5))

    def test_runs_of_one_source_vote_once(self):
        once = [Effect("a", 0.02, 0.01, 15), Effect("b", 0.01, 0.01, 15)]
        again = [*once, Effect("a", 0.04, 0.03, 9)]
        assert one_vote(again)[0] == Effect("a", 0.03, 0.02, 9)
        assert len(pool(again).sources) == 2
        assert pool([once[0]] * 5).common.error == pytest.approx(0.01)

    def test_satterthwaite_of_equal_sources_adds_their_degrees(self):
        assert pool([Effect(name, 0, 1, 5) for name in "abc"]).common.freedom == pytest.approx(15)

    @given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 1)), min_size=2, max_size=6))
    def test_random_effects_are_at_least_as_wide(self, given_effects):
        effects = [
            Effect(str(k), value, error, MANY) for k, (value, error) in enumerate(given_effects)
        ]
        pooled = pool(effects)
        low, high = pooled.common.interval()
        assert pooled.random[2] - pooled.random[1] >= 0.99 * (high - low)
        assert pooled.tau2 >= 0

    def test_sources_that_agree_have_no_variance_between_them(self):
        pooled = pool([Effect(name, 0.3, 0.1, MANY) for name in "abc"])
        assert pooled.tau2 == pytest.approx(0, abs=1e-6)
        assert pooled.random[0] == pytest.approx(0.3)

    def test_sources_that_differ_are_told_from_such_that_do_not(self):
        alike = pool([Effect("a", 0.3, 0.1, MANY), Effect("b", 0.3, 0.2, MANY)])
        assert alike.differ == pytest.approx(1.0)
        # Two errors of 0.1 apart by 0.4: a squared distance of 8 on one degree of freedom.
        apart = pool([Effect("a", 0.1, 0.1, MANY), Effect("b", 0.5, 0.1, MANY)])
        assert apart.differ == pytest.approx(stats.chi2.sf(8, 1))

    def test_one_source_says_nothing_of_others(self):
        assert math.isinf(pool([Effect("a", 1.0, 0.1, 9)]).random[2])


class TestHolm:
    def test_by_hand(self):
        found = holm({"a": 0.01, "b": 0.04, "c": 0.03})
        assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
    def test_never_below_the_raw_value_and_in_its_order(self, values):
        found = holm({str(k): value for k, value in enumerate(values)})
        adjusted = list(found.values())
        assert all(a >= v - 1e-12 for a, v in zip(adjusted, values, strict=True))
        assert np.all(np.diff(np.array(adjusted)[np.argsort(values)]) >= -1e-12)

"""Tables of the policy training study, of values made by hand."""

import numpy as np
import pytest

from posttrain.evidence.claims import estimate
from posttrain.studies.policy_training.keys import Averaged, Filter, Loss, Measure, Question
from posttrain.studies.policy_training.study import summarise

PROMPTS, SAMPLES, PAIRS = 8, 3, 12


def policy(level, pairs=None):
    """Values of a policy; those of pairs too, if there are any."""
    shape = (PROMPTS, SAMPLES)
    values = {
        "gold": np.full(shape, level), "ended": np.full(shape, level / 10),
        "log ratio": np.full(shape, 2 * level), "words": np.full(shape, 7 + level),
        "praise": np.full(shape, -1.0), "score": np.full(shape, -1.0),
    }  # fmt: skip
    if pairs is not None:
        values |= {
            str(Measure.CHOSEN): np.full(pairs, -level),
            str(Measure.REJECTED): np.full(pairs, -3 * level),
        }
    return values


def seed(shift=0.0, pairs=PAIRS):
    """All arms: the k-th loss has gold k after one pass, and as much more with every pass."""
    found = {
        (str(Question.LOSS), str(loss), passes): policy(place * passes + shift, pairs)
        for place, loss in enumerate(Loss, start=1)
        for passes in (1, 4)
    }
    for question, arms in ((Question.AVERAGE, Averaged), (Question.FILTER, Filter)):
        for place, arm in enumerate(arms):
            found[str(question), str(arm), 1] = policy(10 * place + shift)
    return found


def read(table, **where):
    return estimate(table, **where)[0]


@pytest.fixture(scope="module")
def tables():
    return summarise([seed(), seed(2.0)], resamples=50)


def test_levels_are_means_over_answers_pairs_and_seeds(tables):
    where = {"question": Question.LOSS, "arm": Loss.NLL, "passes": 4}
    level = 2 * 4 + 1
    expected = {
        Measure.GOLD: level, Measure.ENDED: level / 10, Measure.DIVERGENCE: 2 * level,
        Measure.WORDS: 7 + level, Measure.CHOSEN: -level, Measure.REJECTED: -3 * level,
    }  # fmt: skip
    assert set(expected) == set(Measure)
    for measure, value in expected.items():
        assert read(tables["levels"], measure=measure, **where) == pytest.approx(value)


def test_answers_are_averaged_within_prompts():
    values = policy(0.0)
    values["gold"] = np.arange(24.0).reshape(PROMPTS, SAMPLES)
    values["gold"][0] += 9
    by_seed = [seed() | {(str(Question.FILTER), str(Filter.ALL), 1): values}]
    levels = summarise(by_seed, resamples=20)["levels"]
    assert read(levels, arm=Filter.ALL, measure=Measure.GOLD) == pytest.approx(11.5 + 9 / 8)


def test_gains_are_against_the_first_arm_of_the_question_with_as_many_passes(tables):
    gains = tables["gains"]
    for place, loss in enumerate(Loss):
        for passes in (1, 4):
            where = {"arm": loss, "passes": passes, "measure": Measure.GOLD}
            if place:
                assert read(gains, **where) == pytest.approx(place * passes)
    for question, arms in ((Question.AVERAGE, Averaged), (Question.FILTER, Filter)):
        for place, arm in enumerate(arms):
            where = {"question": question, "arm": arm, "measure": Measure.GOLD}
            if place:
                assert read(gains, **where) == pytest.approx(10 * place)
    firsts = {Loss.PLAIN, Averaged.SINGLE, Filter.RANDOM}
    assert not firsts & set(gains["arm"])
    chosen = {"arm": Loss.NLL, "passes": 4, "measure": Measure.CHOSEN}
    assert read(gains, **chosen) == pytest.approx(-4)


def test_passes_are_compared_with_the_fewest(tables):
    passes = tables["passes"]
    assert set(passes["passes"]) == {4}
    assert set(passes["question"]) == {Question.LOSS}
    for place, loss in enumerate(Loss, start=1):
        assert read(passes, arm=loss, measure=Measure.GOLD) == pytest.approx(3 * place)
        assert read(passes, arm=loss, measure=Measure.CHOSEN) == pytest.approx(-3 * place)


def test_arms_that_are_alike_gain_exactly_nothing():
    by_seed = [{key: policy(one, PAIRS) for key in seed()} for one in (0.3, 0.7)]
    found = summarise(by_seed, resamples=50)
    for name in ("gains", "passes"):
        assert (found[name][["estimate", "low", "high"]] == 0).all().all()


def test_only_losses_are_measured_on_pairs(tables):
    levels = tables["levels"]
    of_pairs = levels[levels["measure"].isin([Measure.CHOSEN, Measure.REJECTED])]
    assert set(of_pairs["question"]) == {Question.LOSS}
    rest = levels[levels["question"] != Question.LOSS]
    assert len(rest) == 4 * (len(Averaged) + len(Filter))
    assert len(levels) == len(rest) + 2 * len(Loss) * len(Measure)


def test_seeds_of_fewer_pairs_are_compared_on_as_many():
    found = summarise([seed(), seed(2.0, pairs=5)], resamples=50)
    where = {"arm": Loss.PLAIN, "passes": 1, "measure": Measure.CHOSEN}
    assert read(found["levels"], **where) == pytest.approx(-2)
    assert read(found["gains"], **where | {"arm": Loss.MASK}) == pytest.approx(-3)


def test_intervals_are_over_prompts_and_seeds():
    found = summarise([seed(), seed(2.0)], resamples=500)
    where = {"arm": Filter.RANDOM, "measure": Measure.GOLD}
    assert estimate(found["levels"], **where) == pytest.approx((1, 0, 2))
    # Seeds are the same for all arms.
    gained = estimate(found["gains"], arm=Filter.SCORE, measure=Measure.GOLD)
    assert gained == pytest.approx((10, 10, 10))

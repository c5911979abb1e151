"""Tables of the own-samples study, on scores made for the purpose."""

import numpy as np
import pytest

from posttrain.studies.own_samples.data import Answers
from posttrain.studies.own_samples.keys import Agreement, Chooser, Policy, Test, Value
from posttrain.studies.own_samples.outcome import Half, Scale, summarise

RNG = np.random.default_rng(0)
PROMPTS, SAMPLES = 200, 16
WORDS = RNG.integers(5, 60, size=(PROMPTS, SAMPLES)).astype(float)
TRUTH = RNG.normal(size=(PROMPTS, SAMPLES))
#: People's pairs, two a prompt, the chosen response first: ``[2, pairs]``.
PAIR_WORDS = RNG.integers(5, 60, size=(2, 2 * PROMPTS)).astype(float)
CLUSTERS = np.repeat(np.arange(PROMPTS), 2)


def answers(words=WORDS, moved=0.0):
    return Answers([], words, np.ones_like(words), np.full_like(words, moved))


def half(own, judge, policies=None):
    pairs = np.stack([np.stack([PAIR_WORDS[0], PAIR_WORDS[1]])] * len(own))
    return Half(pairs, own, judge, {"elsewhere": judge[:1]}, policies or {})


def tables(*halves):
    return summarise(answers(), halves, PAIR_WORDS, clusters=CLUSTERS, resamples=50)


def value(table, **labels):
    for name, label in labels.items():
        table = table[table[name] == label]
    (row,) = table.to_dict("records")
    return row["estimate"]


def noisy(base, noise, count=2):
    return np.stack([base + noise * RNG.normal(size=base.shape) for _ in range(count)])


def test_a_scale_has_mean_zero_and_deviation_one_within_prompts():
    scores = 3 * TRUTH + 10 * RNG.normal(size=(PROMPTS, 1))
    z = Scale.of(scores, WORDS)(scores)
    assert np.abs(z.mean(axis=1)).max() < 1e-12
    assert z.std() == pytest.approx(1)


def test_at_equal_length_nothing_is_left_of_what_length_explains():
    scale = Scale.of(-2.0 * WORDS + 5, WORDS)
    assert np.abs(scale.at_equal_length(-2.0 * WORDS + 5, WORDS)).max() < 1e-9
    mixed = TRUTH + 0.05 * WORDS
    level = Scale.of(mixed, WORDS).at_equal_length(mixed, WORDS)
    centred = WORDS - WORDS.mean(axis=1, keepdims=True)
    assert abs((level * centred).mean()) < 1e-9


def test_judges_that_see_the_same_as_who_chooses_confirm_all_of_it():
    found = tables(half(TRUTH[None], TRUTH[None]))
    curves = found["curves"]
    of = {"chooser": Chooser.SINGLE, "n": SAMPLES}
    # The mean of the highest of 16 standard normal draws.
    assert value(curves, **of, value=Value.OWN) == pytest.approx(1.77, abs=0.1)
    own, judge = (value(curves, **of, value=which) for which in (Value.OWN, Value.JUDGE))
    assert judge == pytest.approx(own)
    assert value(found["agreement"], agreement=Agreement.JUDGE) == pytest.approx(1)


def test_judges_that_see_something_else_confirm_nothing():
    found = tables(half(TRUTH[None], RNG.normal(size=TRUTH.shape)[None]))
    of = {"chooser": Chooser.SINGLE, "n": SAMPLES, "value": Value.JUDGE}
    assert abs(value(found["curves"], **of)) < 0.2
    assert abs(value(found["agreement"], agreement=Agreement.JUDGE)) < 0.05


def test_what_both_see_in_length_is_gone_at_equal_length():
    standard = (WORDS - WORDS.mean()) / WORDS.std()
    found = tables(half(noisy(standard, 0.3), noisy(standard, 0.3)))
    of = {"chooser": Chooser.MEAN, "n": SAMPLES}
    assert value(found["curves"], **of, value=Value.JUDGE) > 1
    assert abs(value(found["curves"], **of, value=Value.LEVEL)) < 0.1
    longest = value(found["curves"], chooser=Chooser.LONGEST, n=SAMPLES, value=Value.JUDGE)
    assert longest > value(found["curves"], **of, value=Value.JUDGE)
    words = value(found["curves"], chooser=Chooser.LONGEST, n=SAMPLES, value=Value.WORDS)
    assert words == pytest.approx(WORDS.max(axis=1).mean())


def test_the_mean_of_several_models_sees_more_of_the_truth_than_one():
    found = tables(half(noisy(TRUTH, 1.0, 4), noisy(TRUTH, 0.1, 2)))["curves"]
    one, several = (
        value(found, chooser=chooser, n=SAMPLES, value=Value.JUDGE)
        for chooser in (Chooser.SINGLE, Chooser.MEAN)
    )
    assert several > one + 0.3


def test_a_policy_that_says_the_same_is_at_zero_and_one_that_says_better_is_not():
    own, judge = TRUTH[None], noisy(TRUTH, 0.5)
    policies = {
        Policy.SFT: (answers(), own[0], judge, {"elsewhere": judge[:1]}),
        Policy.DPO: (answers(WORDS + 3, 0.7), own[0] + 1, judge + 1, {"elsewhere": judge[:1] + 1}),
    }
    found = tables(half(own, judge, policies))["policies"]
    for measured in (Value.OWN, Value.JUDGE, Value.LEVEL, Value.WORDS, Value.ENDED):
        assert value(found, policy=Policy.SFT, value=measured) == pytest.approx(0, abs=1e-9)
    assert value(found, policy=Policy.DPO, value=Value.WORDS) == pytest.approx(3)
    assert value(found, policy=Policy.DPO, value=Value.DIVERGENCE) == pytest.approx(0.7)
    assert value(found, policy=Policy.DPO, value=Value.OWN) == pytest.approx(1, abs=0.05)
    assert value(found, policy=Policy.DPO, value="judge of elsewhere") > 0.5


def test_shares_of_peoples_pairs():
    found = tables(half(TRUTH[None], TRUTH[None]))["tests"]
    # Here reward models score pairs by their length.
    right = (PAIR_WORDS[0] > PAIR_WORDS[1]) + 0.5 * (PAIR_WORDS[0] == PAIR_WORDS[1])
    for test in (Test.SINGLE, Test.MEAN, Test.LONGEST):
        assert value(found, test=test) == pytest.approx(right.mean())

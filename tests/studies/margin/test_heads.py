"""The study on frozen features: nothing leaks between folds, and signals are found."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.data.splits import folds
from posttrain.models import features as feature_module
from posttrain.models import heads as models_heads
from posttrain.models.features import FeatureSettings
from posttrain.rows.tokenization import Limits, TokenizedGroup, tokenize_group
from posttrain.studies.common import heads
from posttrain.studies.margin import heads as margin_heads
from posttrain.studies.margin.heads import HeadSettings, run
from posttrain.studies.margin.outcome import ARMS, RatedPairs

GROUPS, PAIRS, WIDTH = 40, 480, 12
SETTINGS = HeadSettings(
    sizes=[60, 300],
    seeds=2,
    folds=4,
    inner_folds=3,
    penalties=[0.03, 0.3, 3.0],
    shared_penalty=0.03,
    resamples=10,
)


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    return RatedPairs.from_groups(
        [
            RankedGroup(
                id=str(number),
                prompt=(Message("user", "prompt"),),
                responses=("chosen", "rejected"),
                strength=int(random.integers(1, 5)),
                cluster_id=f"debate {random.integers(GROUPS)}",
            )
            for number in range(PAIRS)
        ]
    )


@pytest.fixture
def study(monkeypatch, pairs, tmp_path):
    """Runs the study on given features of winners and losers."""

    def run_on(winners, losers, settings=SETTINGS):
        given = tuple(torch.as_tensor(side, dtype=torch.float32) for side in (winners, losers))
        monkeypatch.setattr(margin_heads, "_pair_features", lambda *_: (*given, 5))
        return run(pairs, tmp_path, settings)

    return run_on


def accuracy(outcome, tuning="tuned"):
    """Accuracy of each arm, size and seed."""
    sums = outcome.select(tuning).sum(axis=3)
    return sums[..., 5] / sums[..., 0]


def noise(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def test_features_without_a_signal_give_a_coin_flip(study):
    outcome = study(noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2))
    for tuning in ("shared", "tuned"):
        # Five standard errors of 480 pairs.
        assert np.abs(accuracy(outcome, tuning) - 0.5).max() < 0.115
        assert abs(accuracy(outcome, tuning).mean() - 0.5) < 0.05


def test_a_signal_that_each_group_has_for_itself_is_of_no_use(study, pairs):
    # A head that saw a test pair's group could answer nearly all of its pairs.
    by_group = noise(GROUPS, 30, seed=3)[pairs.codes]
    outcome = study(by_group + 0.1 * noise(PAIRS, 30), np.zeros((PAIRS, 30)))
    sums = outcome.select("shared")[:, 1].sum(axis=(1, 2))
    assert (np.abs(sums[:, 5] / sums[:, 0] - 0.5) < 0.25).all()


def test_a_planted_signal_is_found(study, pairs):
    signal = np.zeros(WIDTH)
    signal[:3] = 1.0, -2.0, 0.5
    winners = noise(PAIRS, WIDTH) + signal * (0.7 + 0.4 * pairs.strengths[:, None])
    outcome = study(winners, noise(PAIRS, WIDTH, seed=2))
    found = accuracy(outcome)
    assert found[:, 1].min() > 0.9
    assert found[:, 1].mean() > found[:, 0].mean()
    winners, losers = outcome.examples[0, 1]
    assert (winners > losers).mean() > 0.9


def test_every_pair_is_tested_once_by_every_arm_size_seed_and_penalty(study, pairs):
    outcome = study(noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2))
    assert outcome.sums.shape[:5] == (11, 2, 2, 3, pairs.group_count)
    counts = np.bincount(pairs.codes)
    assert (outcome.sums[..., 0] == counts).all()
    assert (outcome.examples != 0).all()
    assert outcome.training == {"groups with a trimmed prompt": 5}
    assert (outcome.grid, outcome.shared, outcome.sizes) == ((0.03, 0.3, 3.0), 0, (60, 300))
    assert set(outcome.baselines["baseline"]) == {"length only"}


def test_folds_and_inner_folds_share_no_group(study, pairs, monkeypatch):
    fit_subset, fit_heads = margin_heads._fit_subset, heads.fit_heads
    seen, sizes, current = [], [], []

    def watch_subset(data, subset, test, *rest):
        assert not set(pairs.codes[subset]) & set(pairs.codes[test])
        assert len(set(subset)) == len(subset)
        sizes.append(len(subset))
        seen.extend(test)
        current[:] = [subset]
        return fit_subset(data, subset, test, *rest)

    def watch_fits(differences, *, weights, **rest):
        codes = pairs.codes[current[0]]
        by_fit = weights.reshape(11, 3, 4, -1)[0, 0]
        assert (by_fit[0] == 1).all()
        for kept in by_fit[1:].bool().numpy():
            assert 0 < kept.sum() < len(kept)
            assert not set(codes[kept]) & set(codes[~kept])
        assert (by_fit[1:].sum(dim=0) == 2).all()
        return fit_heads(differences, weights=weights, **rest)

    monkeypatch.setattr(margin_heads, "_fit_subset", watch_subset)
    monkeypatch.setattr(heads, "fit_heads", watch_fits)
    study(noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2))
    assert sorted(sizes) == [60] * 8 + [300] * 8
    assert sorted(seen) == sorted(list(range(PAIRS)) * 4)


def test_test_features_reach_their_own_scores_only(pairs):
    winners, losers = (torch.from_numpy(noise(PAIRS, WIDTH, seed=s)).float() for s in (1, 2))
    training, test = folds(pairs.groups, folds=4)[0]
    fit = partial(margin_heads._fit_subset, pairs, training[:200], test)
    scored, best = fit(winners, losers, SETTINGS)
    winners[test[0]] *= 1000
    changed, again = fit(winners, losers, SETTINGS)
    assert (best == again).all()
    np.testing.assert_array_equal(changed[..., 1:], scored[..., 1:])
    assert not np.allclose(changed[..., 0, 0], scored[..., 0, 0])


def test_scores_are_those_of_logistic_regression_in_each_fold(study, pairs):
    winners, losers = noise(PAIRS, WIDTH) + 0.3, noise(PAIRS, WIDTH, seed=2) * 2
    settings = replace(SETTINGS, sizes=[200], seeds=1)
    outcome = study(winners, losers, settings)
    for training, test in folds(pairs.groups, folds=4):
        subset = np.random.default_rng(0).permutation(training)[:200]
        both = np.concatenate([winners[subset], losers[subset]])
        scale = both.std(axis=0, ddof=1)
        differences = (winners - losers)[subset] / scale
        for g, penalty in enumerate(settings.penalties):
            regression = LogisticRegression(
                C=1 / (400 * penalty), fit_intercept=False, tol=1e-10, max_iter=1000
            ).fit(np.concatenate([differences, -differences]), np.repeat([1, 0], 200))
            for side, given in enumerate((winners, losers)):
                expected = (given[test] - both.mean(axis=0)) / scale @ regression.coef_[0]
                np.testing.assert_allclose(outcome.examples[0, g, side, test], expected, atol=2e-3)


def test_arms_differ_as_their_losses_do(study, pairs):
    outcome = study(noise(PAIRS, WIDTH) + 0.5, noise(PAIRS, WIDTH, seed=2))
    for one in range(len(ARMS)):
        for other in range(one):
            assert np.abs(outcome.examples[one] - outcome.examples[other]).max() > 1e-3


def test_a_penalty_is_tuned_on_pairs_that_its_head_did_not_see(study):
    # One feature speaks softly among 60 of noise: the weak penalty ranks the pairs it saw better
    # than the strong one, and others worse.
    winners = noise(PAIRS, 60)
    winners[:, 0] += 1.5
    settings = replace(SETTINGS, sizes=[200], penalties=[1e-3, 1.0], shared_penalty=1e-3)
    outcome = study(winners, noise(PAIRS, 60, seed=2), settings)
    weak, strong = outcome.sums[0, 0].sum(axis=(0, 2))[:, 5]
    assert strong > 1.03 * weak
    assert (outcome.tuned[0] == 1).mean() > 0.7


def test_ties_go_to_the_stronger_penalty(study):
    # One feature tells everything, so every penalty ranks every pair right.
    winners = np.ones((PAIRS, 1)) + 0.01 * noise(PAIRS, 1)
    outcome = study(winners, -winners)
    assert (accuracy(outcome) == 1).all()
    assert (outcome.tuned == 2).all()


def test_the_same_seed_gives_the_same_digits(study):
    features = noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2)
    first, again = study(*features), study(*features)
    assert np.array_equal(first.sums, again.sums)
    assert np.array_equal(first.tuned, again.tuned)
    assert not np.array_equal(first.sums[:, :, 0], first.sums[:, :, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared_penalty": 0.5}, r"shared_penalty 0\.5 is not one of penalties \[0\.03, 0\.3"),
        ({"sizes": [60, 400]}, r"size 400 exceeds the \d+ pairs of the smallest training fold"),
        ({"folds": 41}, "41 folds need at least 41 distinct groups"),
    ],
)
def test_settings_that_do_not_fit_are_refused(study, change, message):
    features = noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2)
    with pytest.raises(ValueError, match=message):
        study(*features, replace(SETTINGS, **change))


def test_fits_that_do_not_converge_are_refused(study, monkeypatch):
    monkeypatch.setattr(heads, "fit_heads", partial(models_heads.fit_heads, max_iterations=3))
    with pytest.raises(ValueError, match=r"of 132 head fits did not converge in 3 iterations"):
        study(noise(PAIRS, WIDTH), noise(PAIRS, WIDTH, seed=2))


def test_features_belong_to_chosen_and_rejected(tiny_checkpoint, tiny_model, monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path))
    groups = [group.ranked for group in simulate(40, seed=2, edited_share=0.7)]
    assert {len(group.responses) for group in groups} == {2, 3}
    tokenizer = tiny_model[1]
    rated = [replace(group, responses=group.responses[-2:]) for group in groups]
    longest = [tokenize_group(tokenizer, group).longest for group in rated]
    limit = sorted(longest)[22]
    # An edited response, which is not scored, may be longer, and cuts no prompt.
    edited = [tokenize_group(tokenizer, group).longest for group in groups]
    assert any(whole > limit >= pair for whole, pair in zip(edited, longest, strict=True))
    settings = HeadSettings(layer=2, pooling="last", max_tokens=limit)
    winners, losers, trimmed = margin_heads._pair_features(
        RatedPairs.from_groups(groups), tiny_checkpoint, settings
    )
    cut = [tokenize_group(tokenizer, group, Limits(limit)) for group in rated]
    for side, place in ((winners, 0), (losers, 1)):
        rows = [TokenizedGroup(group.prompt, (group.responses[place],)) for group in cut]
        expected = feature_module.features(tiny_checkpoint, rows, FeatureSettings(2, "last"))
        torch.testing.assert_close(side, expected, rtol=0, atol=1e-6)
    assert (winners - losers).abs().max() > 0.01
    assert trimmed == sum(length > limit for length in longest)
    assert 0 < trimmed < 40

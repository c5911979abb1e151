"""Heads of the study of helpfulness and safety: arms, calibration, and no leak into a test."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posttrain.models.features import FeatureSettings
from posttrain.studies.tradeoff import heads as tradeoff_heads
from posttrain.studies.tradeoff.data import simulated_data
from posttrain.studies.tradeoff.heads import (
    HeadSettings,
    WorldFeatures,
    compute_features,
    run,
)
from posttrain.studies.tradeoff.keys import ArmName
from posttrain.studies.tradeoff.outcome import ARMS

SETTINGS = HeadSettings(
    arms=[
        ArmName.HELPFUL, ArmName.SAFE, ArmName.HELPFULNESS_MIX, ArmName.SAFETY_MIX, ArmName.JOINT,
    ],
    size=20, seeds=2, folds=3,
    inner_folds=2, penalties=[0.1, 3.0], shared_penalty=0.1, resamples=5,
)  # fmt: skip
FEW = replace(SETTINGS, arms=[ArmName.HELPFUL, ArmName.SAFE], seeds=1)


@pytest.fixture(scope="module")
def world(tiny_checkpoint):
    """Sources of both domains in turns, so that no order is right by chance."""
    found = simulated_data(
        tiny_checkpoint, groups=60, sensitive=(0.2, 0.8), prompts=6, responses=3,
        candidates_sensitive=0.5, held_out_goals=(), seed=1,
    )  # fmt: skip
    order = np.random.default_rng(0).permutation(120)
    return replace(
        found,
        ranked=[found.ranked[k] for k in order],
        tokens=[found.tokens[k] for k in order],
        sources=found.sources[order],
    )


def planted(world, noise=0.5):
    """Features that tell which response was preferred in which domain, wrongly in one of five."""
    random = np.random.default_rng(5)
    groups = random.normal(size=(120, 2, 6)) * noise
    safe = world.domains == "safety"
    for of, feature in ((safe, 0), (~safe, 1)):
        right = np.arange(of.sum()) % 5 != 0
        groups[np.flatnonzero(of)[right], 0, feature] += 2.0
        groups[np.flatnonzero(of)[~right], 1, feature] += 2.0
    candidates = random.normal(size=(18, 6))
    return WorldFeatures(torch.tensor(groups).float(), torch.tensor(candidates).float())


@pytest.fixture(scope="module")
def found(world):
    return planted(world)


@pytest.fixture
def with_features(monkeypatch, found):
    def use(values=found):
        monkeypatch.setattr(tradeoff_heads, "compute_features", lambda *_: values)

    return use


@pytest.fixture
def fits(monkeypatch):
    """What every head was fitted on, in order."""
    members = []
    true_fit = tradeoff_heads._fit

    def watch(found, world, chosen, settings):
        members.append(chosen)
        return true_fit(found, world, chosen, settings)

    monkeypatch.setattr(tradeoff_heads, "_fit", watch)
    return members


def test_every_arm_has_its_share_and_none_sees_a_prompt_that_it_is_tested_on(
    world, with_features, fits, monkeypatch
):
    splits = []
    true_folds = tradeoff_heads.folds
    monkeypatch.setattr(
        tradeoff_heads, "folds", lambda *a, **k: splits.extend(true_folds(*a, **k)) or splits
    )
    with_features()
    outcome = run(None, world, SETTINGS)
    assert len(splits) == 3
    assert len(fits) == 2 * 3 * 5
    for number, members in enumerate(fits):
        arm = SETTINGS.arms[number % 5]
        _, test = splits[(number // 5) % 3]
        counts = ARMS[arm].counts(20)
        assert {d: int((world.domains[members] == d).sum()) for d in counts} == counts
        tested = {world.ranked[i].cluster_id for i in test}
        assert not tested & {world.ranked[i].cluster_id for i in members}
        assert len(set(members.tolist())) == len(members)
    # Arms of one fold and seed share groups; other seeds draw others.
    first = [sorted(part.tolist()) for part in fits[:5]]
    assert first[4] == sorted(first[0] + first[1])
    assert set(first[2]) <= set(first[4])
    assert first[0] != sorted(fits[15].tolist())
    # Every pair is tested once by every seed.
    assert sorted(np.concatenate([test for _, test in splits])) == [*range(120)]
    for arm in SETTINGS.arms:
        assert outcome.arms[arm].pairs.shape == (2, 2, 120, 2)
        assert (outcome.arms[arm].pairs != 0).all()
        assert outcome.arms[arm].candidates.shape == (6, 18)
    assert outcome.account["test pairs"] == 120
    assert outcome.tested.domains.tolist() == world.domains.tolist()


def test_scores_are_those_of_the_heads_of_the_fold(world, found, with_features, monkeypatch):
    heads = []
    true_fit = tradeoff_heads._fit

    def watch(*arguments):
        heads.append(true_fit(*arguments))
        return heads[-1]

    monkeypatch.setattr(tradeoff_heads, "_fit", watch)
    with_features()
    outcome = run(None, world, replace(FEW, seeds=2))
    splits = tradeoff_heads.folds(world.ranked, folds=3, seed=FEW.data_seed)
    for number, (pair, _, scale) in enumerate(heads):
        arm = outcome.arms[(ArmName.HELPFUL, ArmName.SAFE)[number % 2]]
        model = number // 2
        seed, fold = divmod(model, 3)
        test = splits[fold][1]
        for tuning in (0, 1):
            expected = (found.groups[test] / scale) @ pair[tuning]
            np.testing.assert_allclose(
                arm.pairs[tuning, seed, test], expected, rtol=1e-4, atol=1e-5
            )
        expected = (found.candidates / scale) @ pair[0]
        np.testing.assert_allclose(arm.candidates[model], expected, rtol=1e-4, atol=1e-5)


def test_each_model_is_calibrated_on_the_pairs_of_its_own_fold_and_domain(world, with_features):
    with_features()
    outcome = run(None, world, SETTINGS)
    splits = tradeoff_heads.folds(world.ranked, folds=3, seed=SETTINGS.data_seed)
    for arm, domain in (
        (ArmName.HELPFUL, "helpfulness"), (ArmName.HELPFULNESS_MIX, "helpfulness"),
        (ArmName.SAFE, "safety"), (ArmName.SAFETY_MIX, "safety"),
    ):  # fmt: skip
        part = outcome.arms[arm]
        assert len(part.calibrations) == 6
        for model, fitted in enumerate(part.calibrations):
            seed, fold = divmod(model, 3)
            test = splits[fold][1]
            own = test[world.domains[test] == domain]
            assert fitted.pairs == len(own)
            assert fitted.centre == pytest.approx(part.pairs[0, seed, own].mean())
    assert outcome.arms[ArmName.JOINT].calibrations == []


def test_heads_learn_what_their_arm_teaches(world, with_features):
    with_features()
    outcome = run(None, world, SETTINGS)
    right = {
        (arm, domain): (part.pairs[0, ..., 0] > part.pairs[0, ..., 1])[
            :, world.domains == domain
        ].mean()
        for arm, part in outcome.arms.items()
        for domain in ("helpfulness", "safety")
    }
    assert right[ArmName.HELPFUL, "helpfulness"] > right[ArmName.SAFE, "helpfulness"] + 0.1
    assert right[ArmName.SAFE, "safety"] > right[ArmName.HELPFUL, "safety"] + 0.1
    # A model of both learns some of each.
    assert right[ArmName.JOINT, "helpfulness"] > right[ArmName.SAFE, "helpfulness"] + 0.1
    assert right[ArmName.JOINT, "safety"] > right[ArmName.HELPFUL, "safety"] + 0.1


def test_the_units_of_a_feature_do_not_matter(world, found, with_features):
    with_features()
    expected = run(None, world, FEW)
    units = torch.tensor([1.0, 1000, 0.01, 1, 5, 1])
    with_features(WorldFeatures(found.groups * units, found.candidates * units))
    outcome = run(None, world, FEW)
    for arm in FEW.arms:
        one, other = expected.arms[arm], outcome.arms[arm]
        np.testing.assert_allclose(one.pairs, other.pairs, rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(one.candidates, other.candidates, rtol=1e-2, atol=1e-2)


def test_the_shared_penalty_is_that_of_all_arms(world, with_features):
    with_features()
    only = run(None, world, replace(FEW, penalties=[3.0], shared_penalty=3.0))
    both = run(None, world, replace(FEW, shared_penalty=3.0))
    for arm in FEW.arms:
        np.testing.assert_allclose(both.arms[arm].pairs[1], only.arms[arm].pairs[1], atol=1e-4)
        np.testing.assert_array_equal(only.arms[arm].pairs[0], only.arms[arm].pairs[1])
    np.testing.assert_allclose(only.tuning["penalty"], 3.0)
    weak = run(None, world, FEW)
    spread = [np.abs(part.arms[ArmName.SAFE].pairs[1]).mean() for part in (weak, both)]
    assert spread[0] > 1.5 * spread[1]


def test_features_are_asked_for_by_source_and_stand_at_their_group(world, monkeypatch):
    asked = []

    def features(checkpoint, tokens, kind):
        asked.append((checkpoint, kind, len(tokens)))
        ids = [[*group.prompt, *response] for group in tokens for response in group.responses]
        return torch.tensor([[sum(part), len(part)] for part in ids]).float()

    monkeypatch.setattr(tradeoff_heads, "features", features)
    found = compute_features("folder", world, replace(SETTINGS, layer=7, pooling="last"))
    kind = FeatureSettings(7, "last")
    assert asked == [("folder", kind, 60), ("folder", kind, 60), ("folder", kind, 6)]
    assert found.groups.shape == (120, 2, 2)
    for group, values in zip(world.tokens, found.groups, strict=True):
        for response, value in zip(group.responses, values, strict=True):
            ids = [*group.prompt, *response]
            assert value.tolist() == [sum(ids), len(ids)]
    assert found.candidates.shape == (18, 2)


def test_too_few_groups_are_refused_before_features_are_computed(world, monkeypatch):
    monkeypatch.setattr(tradeoff_heads, "compute_features", lambda *_: pytest.fail("too late"))
    message = r"need 50 training groups of helpfulness, and a fold has \d\d; lower size or raise"
    with pytest.raises(ValueError, match=message):
        run(None, world, replace(FEW, size=50))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalties": []}, "penalties must be one or more, ascending"),
        ({"penalties": [1.0, 0.1]}, "penalties must be one or more, ascending"),
        ({"penalties": [1.0]}, r"shared_penalty 0.1 is not one of penalties \[1.0\]"),
        (
            {"arms": [ArmName.HELPFUL, ArmName.SAFE, ArmName.AUXILIARY]},
            "the auxiliary loss needs to know which responses",
        ),
        ({"pairs": 0}, "pairs must be at least 1, not 0"),
        ({"folds": 0}, "folds must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HeadSettings(**changes)

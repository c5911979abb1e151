"""Full training of the study of helpfulness and safety: what is trained and judged on what."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from posttrain.evaluation import calibration
from posttrain.rows.layout import LAYOUTS
from posttrain.studies.tradeoff import full
from posttrain.studies.tradeoff.data import simulated_data
from posttrain.studies.tradeoff.full import (
    Experiment,
    FullSettings,
    HumanFullSettings,
    data_for,
    run,
    train_arm,
    tune,
)
from posttrain.studies.tradeoff.keys import ArmName
from posttrain.studies.tradeoff.outcome import ARMS

SETTINGS = FullSettings(
    arms=[ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT],
    size=20,
    seeds=2,
    groups=100,
    held_out_goals=[],
    prompts=6,
    responses=3,
    test_size=15,
    calibration_size=15,
    learning_rates=[1e-3, 1e-2],
    shared_learning_rate=1e-3,
    tuning_seeds=2,
    batch_size=8,
    resamples=10,
)


@pytest.fixture(scope="module")
def experiment(tiny_checkpoint):
    world = data_for("simulator", tiny_checkpoint, SETTINGS)
    return Experiment.prepare(tiny_checkpoint, world, SETTINGS)


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces training and scoring; lists what was trained, and scores as a test says."""
    trainings = []

    def use(score):
        def train(checkpoint, groups, layout, recipe, *, learning_rate, seed, auxiliary_weight):
            assert layout is LAYOUTS["exact"]
            model = SimpleNamespace(
                groups=groups, rate=learning_rate, seed=seed, recipe=recipe,
                auxiliary=auxiliary_weight, scored=[],
            )  # fmt: skip
            trainings.append(model)
            return model, 42

        def scores(model, groups, *, pad_token_id, layout):
            assert pad_token_id == 42
            assert layout is LAYOUTS["exact"]
            model.scored.append(groups)
            values = np.concatenate([np.asarray(score(model, group), float) for group in groups])
            return SimpleNamespace(numpy=lambda: values)

        monkeypatch.setattr(full, "train", train)
        monkeypatch.setattr(full, "reward_model", SimpleNamespace(score=scores))
        return trainings

    return use


def falling(model, group):
    """Ranks what comes first highest."""
    return -np.arange(len(group.responses), dtype=float)


def often(experiment, wrong=5):
    """Ranks every group right but some few, so that a calibration exists."""
    place = {id(tokens): number for number, tokens in enumerate(experiment.world.tokens)}

    def score(model, group):
        number = place.get(id(group))
        return falling(model, group) * (-1 if number is not None and number % wrong == 0 else 1)

    return score


def test_the_world_is_that_of_the_settings(tiny_checkpoint, experiment):
    drawn = simulated_data(
        tiny_checkpoint, groups=100, sensitive=[0.2, 0.8], prompts=6, responses=3,
        candidates_sensitive=0.5, held_out_goals=[], seed=1,
    )  # fmt: skip
    assert experiment.world.account == drawn.account
    assert experiment.world.candidates.responses == drawn.candidates.responses


def test_no_prompt_is_in_two_parts(experiment):
    world = experiment.world
    parts = [*experiment.training.values(), *experiment.calibration.values(), experiment.test]
    whole = [
        np.concatenate([*experiment.training.values()]),
        np.concatenate([*experiment.calibration.values()]),
        experiment.test,
    ]  # fmt: skip
    names = [{world.ranked[i].cluster_id for i in part} for part in whole]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert all(len(part) for part in parts)
    for by_domain in (experiment.training, experiment.calibration):
        for domain, part in by_domain.items():
            assert set(world.domains[part]) == {domain}
    tested = world.domains[experiment.test]
    assert [int((tested == d).sum()) for d in ("helpfulness", "safety")] == [15, 15]
    assert sorted(experiment.test) == experiment.test.tolist()
    held = sum(map(len, experiment.calibration.values()))
    assert 20 <= held <= 40  # about 15 of each


def test_arms_share_as_many_groups_as_they_can(experiment):
    world = experiment.world
    chosen = {arm: experiment.chosen(arm, 0) for arm in ARMS}
    for arm, part in chosen.items():
        counts = ARMS[arm].counts(20)
        assert {d: int((world.domains[part] == d).sum()) for d in counts} == counts
        assert len(set(part.tolist())) == len(part)
        for domain, own in experiment.training.items():
            assert set(part[world.domains[part] == domain]) <= set(own)
    # All groups of both specialists, and no other.
    assert sorted(chosen[ArmName.JOINT]) == sorted(
        [*chosen[ArmName.HELPFUL], *chosen[ArmName.SAFE]]
    )
    half = chosen[ArmName.HELPFULNESS_MIX]
    assert half[:10].tolist() == chosen[ArmName.HELPFUL][:10].tolist()
    assert half[10:].tolist() == chosen[ArmName.SAFE][:10].tolist()
    assert chosen[ArmName.AUXILIARY].tolist() == chosen[ArmName.SAFETY_MIX].tolist()
    assert experiment.chosen(ArmName.SAFE, 0).tolist() == chosen[ArmName.SAFE].tolist()
    assert experiment.chosen(ArmName.SAFE, 1).tolist() != chosen[ArmName.SAFE].tolist()


def test_every_learning_rate_is_judged_on_held_out_groups_of_what_the_arm_trains_on(
    experiment, stand_in
):
    def score(model, group):
        assert group.prompt not in {trained.tokens.prompt for trained in model.groups}
        return falling(model, group) * (1 if model.rate == 1e-2 else 0)

    for arm in (ArmName.HELPFUL, ArmName.SAFETY_MIX, ArmName.JOINT):
        trainings = stand_in(score)
        trainings.clear()
        # Ties count one half.
        assert tune(experiment, arm) == [(1e-3, 0.5), (1e-2, 1.0)]
        assert [(t.seed, t.rate) for t in trainings] == [
            (0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2),
        ]  # fmt: skip
        for training in trainings:
            (judges,) = training.scored
            everything = [experiment.world.tokens[i] for i in experiment.chosen(arm, training.seed)]
            used = [group.tokens for group in training.groups]
            assert sorted(map(id, [*used, *judges])) == sorted(map(id, everything))
            assert 0.1 * len(everything) <= len(judges) <= 0.3 * len(everything)


def test_accuracies_of_tuning_are_means_over_seeds(experiment, stand_in):
    stand_in(lambda model, group: falling(model, group) * (1 if model.seed else -1))
    assert tune(experiment, ArmName.SAFE) == [(1e-3, 0.5), (1e-2, 0.5)]


def test_a_single_learning_rate_is_not_judged(experiment, stand_in):
    trainings = stand_in(None)
    alone = replace(
        experiment, settings=replace(SETTINGS, learning_rates=[0.5], shared_learning_rate=0.5)
    )
    ((rate, accuracy),) = tune(alone, ArmName.SAFE)
    assert rate == 0.5
    assert math.isnan(accuracy)
    assert not trainings


def test_each_seed_trains_on_other_groups_and_is_tested_on_the_same(experiment, stand_in):
    good = often(experiment)
    trainings = stand_in(
        # The larger rate ranks as annotators do, the shared one the other way round.
        lambda model, group: (
            (1 if model.rate == 1e-2 else -1) * (model.seed + 1) * good(model, group)
        )
    )
    outcome, rates = train_arm(experiment, ArmName.SAFE)
    assert [rate for rate, _ in rates] == [1e-3, 1e-2]
    assert rates[1][1] > rates[0][1]
    final = trainings[4:]
    assert [(t.rate, t.seed) for t in final] == [(1e-2, 0), (1e-2, 1), (1e-3, 0), (1e-3, 1)]
    for training in final:
        expected = [
            experiment.world.tokens[i] for i in experiment.chosen(ArmName.SAFE, training.seed)
        ]
        assert [group.tokens for group in training.groups] == expected
        assert training.recipe is SETTINGS
        assert training.auxiliary == 0
    assert outcome.pairs.shape == (2, 2, 30, 2)
    right = outcome.pairs[..., 0] > outcome.pairs[..., 1]
    wrong = experiment.test % 5 == 0
    assert 0 < wrong.sum() < 15
    # Tuned first, then shared; seeds second.
    assert right[0].tolist() == [(~wrong).tolist()] * 2
    assert right[1].tolist() == [wrong.tolist()] * 2
    np.testing.assert_allclose(outcome.pairs[:, 1], 2 * outcome.pairs[:, 0])
    # Candidates are scored by tuned models, not by shared ones.
    np.testing.assert_allclose(outcome.candidates, [[0, -1, -2] * 6, [0, -2, -4] * 6])


def test_members_of_teams_are_calibrated_on_held_out_groups_of_what_they_judge(
    experiment, stand_in
):
    one_rate = replace(
        experiment, settings=replace(SETTINGS, learning_rates=[1e-2], shared_learning_rate=1e-2)
    )
    # Every group is scored on a scale of its own, so that it matters which ones are used.
    units = {id(tokens): 1 + number / 50 for number, tokens in enumerate(experiment.world.tokens)}
    good = often(experiment)

    def score(model, group):
        return (model.seed + 1) * units.get(id(group), 1.0) * good(model, group) + 7

    for arm, domain in (
        (ArmName.HELPFUL, "helpfulness"),
        (ArmName.SAFETY_MIX, "safety"),
        (ArmName.JOINT, None),
    ):
        trainings = stand_in(score)
        trainings.clear()
        outcome, _ = train_arm(one_rate, arm)
        (scored,) = trainings[0].scored
        part = experiment.calibration[domain] if domain else []
        expected = [experiment.world.tokens[i] for i in (*experiment.test, *part)]
        assert scored[: len(expected)] == expected
        assert scored[len(expected) :] == experiment.world.candidates.tokens
        # With one rate the shared setting is the tuned one, and nothing is trained twice.
        assert len(trainings) == 2
        assert np.array_equal(outcome.pairs[0], outcome.pairs[1])
        if not domain:
            assert outcome.calibrations == []
            continue
        assert len(outcome.calibrations) == 2
        for found, model in zip(outcome.calibrations, trainings, strict=True):
            values = np.array([score(model, experiment.world.tokens[i]) for i in part])
            expected = calibration.fit(*values.T)
            assert found.pairs == len(part)
            assert found.scale == pytest.approx(expected.scale)
            assert found.centre == pytest.approx(expected.centre)


def test_the_auxiliary_arm_alone_gets_labels_and_those_are_of_safety_groups(experiment, stand_in):
    trainings = stand_in(falling)
    settings = replace(SETTINGS, auxiliary_weight=0.3)
    labelled = replace(experiment, settings=settings)
    groups = experiment.chosen(ArmName.AUXILIARY, 0)
    for arm in (ArmName.SAFETY_MIX, ArmName.AUXILIARY):
        labelled.scores(arm, groups, experiment.world.tokens[:1], rate=0.1, seed=3)
    plain, auxiliary = trainings
    assert (plain.auxiliary, auxiliary.auxiliary) == (0, 0.3)
    assert all(group.labels == () for group in plain.groups)
    assert [g.tokens for g in plain.groups] == [g.tokens for g in auxiliary.groups]
    assert [g.pairs for g in plain.groups] == [g.pairs for g in auxiliary.groups]
    labels = set()
    for i, group in zip(groups, auxiliary.groups, strict=True):
        if experiment.world.domains[i] == "safety":
            assert group.labels == experiment.world.harmless[i]
            labels |= set(group.labels)
        else:
            assert group.labels == ()
    assert labels == {True, False}


def test_labels_follow_responses_that_tokens_put_elsewhere(experiment):
    i = next(
        k for k, known in enumerate(experiment.world.harmless)
        if experiment.world.domains[k] == "safety" and known == (True, False)
    )  # fmt: skip
    tokens = list(experiment.world.tokens)
    tokens[i] = tokens[i].in_order([1, 0])
    turned = replace(experiment, world=replace(experiment.world, tokens=tokens))
    assert experiment._training_group(i, labels=True).labels == (True, False)
    assert turned._training_group(i, labels=True).labels == (False, True)


def test_all_arms_are_run_each_with_the_same_seeds_and_tests(experiment, stand_in):
    trainings = stand_in(often(experiment))
    one_rate = replace(
        experiment, settings=replace(SETTINGS, learning_rates=[1e-2], shared_learning_rate=1e-2)
    )
    outcome = run(one_rate)
    assert list(outcome.arms) == [ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT]
    # The longest first, and the same seeds everywhere, so that differences are paired.
    assert [(len(t.groups), t.seed) for t in trainings] == [
        (40, 0), (40, 1), (20, 0), (20, 1), (20, 0), (20, 1),
    ]  # fmt: skip
    first = [{id(g.tokens) for g in t.groups} for t in trainings if t.seed == 1]
    assert first[0] == first[1] | first[2]
    assert outcome.tested.codes.tolist() == experiment.world.codes[experiment.test].tolist()
    assert outcome.candidates is experiment.world.candidates
    assert outcome.tuning["arm"].tolist() == [ArmName.HELPFUL, ArmName.SAFE, ArmName.JOINT]
    assert outcome.tuning["accuracy"].isna().all()
    assert outcome.account["test pairs"] == 30
    assert outcome.account["calibration pairs"] == {
        domain: len(part) for domain, part in experiment.calibration.items()
    }
    assert outcome.account["by source"] == {"helpfulness": 100, "safety": 100}


def test_tuning_is_told_for_every_arm_and_rate(experiment, stand_in):
    stand_in(often(experiment))
    few = replace(SETTINGS, arms=[ArmName.HELPFUL, ArmName.SAFE], tuning_seeds=1)
    tuning = run(replace(experiment, settings=few)).tuning
    assert list(tuning[["arm", "learning rate"]].itertuples(index=False, name=None)) == [
        (arm, rate) for arm in (ArmName.HELPFUL, ArmName.SAFE) for rate in (1e-3, 1e-2)
    ]
    assert tuning["accuracy"].between(0.5, 1).all()


def test_what_cannot_be_run_is_refused_before_anything_is_trained(experiment):
    world, checkpoint = experiment.world, experiment.checkpoint
    with pytest.raises(ValueError, match=r"need 70 training groups of helpfulness, and there are"):
        Experiment.prepare(checkpoint, world, replace(SETTINGS, size=70))
    with pytest.raises(ValueError, match=r"calibration_size 100 leaves none of 1\d\d groups"):
        Experiment.prepare(checkpoint, world, replace(SETTINGS, calibration_size=100))
    blind = replace(world, harmless=None)
    Experiment.prepare(checkpoint, blind, SETTINGS)
    with pytest.raises(ValueError, match="the auxiliary loss needs to know which responses are"):
        Experiment.prepare(
            checkpoint,
            blind,
            replace(SETTINGS, arms=[ArmName.HELPFUL, ArmName.SAFE, ArmName.AUXILIARY]),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rates": [0.1]}, "shared_learning_rate 0.003 is not one of learning_rates"),
        ({"sensitive": [0.2]}, r"a share for each of helpfulness, safety, not \[0.2\]"),
        ({"held_out_goals": ["poison a well"]}, "held_out_goals needs one or more of build a bomb"),
        ({"held_out_goals": ["fly", "fix a car"]}, "held_out_goals needs one or more of"),
        ({"groups": 0}, "groups must be at least 1, not 0"),
        ({"prompts": 0}, "prompts must be at least 1, not 0"),
        ({"test_size": 0}, "test_size must be at least 1, not 0"),
        ({"calibration_size": 0}, "calibration_size must be at least 1, not 0"),
        ({"tuning_seeds": 0}, "tuning_seeds must be at least 1, not 0"),
        ({"processes": 0}, "processes must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FullSettings(**changes)


def test_human_data_have_no_labels_for_the_auxiliary_loss():
    assert ArmName.AUXILIARY in FullSettings().arms
    assert HumanFullSettings().arms == [
        arm for arm in FullSettings().arms if arm != ArmName.AUXILIARY
    ]

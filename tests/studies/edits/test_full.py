"""Full training of the study of edits: what is tuned and tested on what."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from posttrain.rows.layout import LAYOUTS
from posttrain.studies.edits import full
from posttrain.studies.edits.data import choose, load_edits
from posttrain.studies.edits.full import Experiment, FullSettings, run, train_and_test, tune
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.metrics import COLUMNS
from posttrain.studies.edits.outcome import ARMS, Cell

SETTINGS = FullSettings(
    sizes=[12],
    shares=[0.5, 1.0],
    test_size=10,
    seeds=2,
    learning_rates=[1e-3, 1e-2],
    shared_learning_rate=1e-3,
    tuning_seeds=2,
    batch_size=8,
    groups=80,
    resamples=10,
)


@pytest.fixture(scope="module")
def experiment(tiny_checkpoint):
    groups = load_edits("simulator", tiny_checkpoint, SETTINGS)
    return Experiment.prepare(tiny_checkpoint, groups, SETTINGS)


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces training and scoring; lists what was trained, and scores as a test says."""
    trainings = []

    def use(score):
        def train(checkpoint, groups, layout, recipe, *, loss_type, learning_rate, seed, steps):
            assert layout is LAYOUTS["exact"]
            model = SimpleNamespace(
                groups=groups, loss_type=loss_type, rate=learning_rate, seed=seed, recipe=recipe,
                steps=steps,
            )  # fmt: skip
            trainings.append(model)
            return model, 42

        def scores(model, groups, *, pad_token_id):
            assert pad_token_id == 42
            values = np.concatenate([score(model, group) for group in groups])
            return SimpleNamespace(numpy=lambda: values)

        monkeypatch.setattr(full, "train", train)
        monkeypatch.setattr(full, "reward_model", SimpleNamespace(score=scores))
        return trainings

    return use


def test_training_and_test_share_no_prompt(experiment):
    ranked = experiment.groups.ranked
    names = [
        {ranked[i].cluster_id for i in part} for part in (experiment.training, experiment.test)
    ]
    assert not names[0] & names[1]
    assert len(experiment.test) == 10
    assert sorted(experiment.test) == experiment.test.tolist()
    assert sorted(experiment.order(0)) == sorted(experiment.training)
    assert (
        experiment.order(0).tolist() == experiment.order(0).tolist() != experiment.order(1).tolist()
    )


def test_all_arms_are_tuned_on_the_same_held_out_pairs_whatever_they_add(experiment, stand_in):
    judged = {}

    def score(model, group):
        judged.setdefault((model.seed, model.rate), []).append(group)
        assert group.prompt not in {trained.tokens.prompt for trained in model.groups}
        # The larger rate ranks chosen over rejected, and the edit last; the smaller one ties.
        good = np.array([0.0, 2.0, 1.0])[-len(group.responses) :]
        return good if model.rate == 1e-2 else np.zeros(len(group.responses))

    seen = {}
    for name in (ArmName.IGNORE, "all pairs", "two more comparisons"):
        judged.clear()
        trainings = stand_in(score)
        trainings.clear()
        assert tune(experiment, Cell(name, 12, 0.5)) == [(1e-3, 0.5), (1e-2, 1.0)]
        assert [(t.seed, t.rate) for t in trainings] == [
            (0, 1e-3), (0, 1e-2), (1, 1e-3), (1, 1e-2),
        ]  # fmt: skip
        seen[name] = dict(judged)
        sizes = [len(training.groups) for training in trainings]
        assert (max(sizes) > 12) == (name == "two more comparisons")
        assert {t.loss_type for t in trainings} == {"pairs"}
    assert seen[ArmName.IGNORE] == seen["all pairs"] == seen["two more comparisons"]


def test_a_single_learning_rate_is_not_judged(experiment, stand_in):
    trainings = stand_in(None)
    alone = replace(
        experiment, settings=replace(SETTINGS, learning_rates=[0.5], shared_learning_rate=0.5)
    )
    ((rate, accuracy),) = tune(alone, Cell(ArmName.IGNORE, 12, 1.0))
    assert rate == 0.5
    assert math.isnan(accuracy)
    assert not trainings


def test_every_seed_trains_on_other_groups_and_is_tested_on_all_responses(experiment, stand_in):
    tested = []

    def score(model, group):
        tested.append((model.seed, group))
        # The second seed ranks as annotators do, the first the other way round.
        return np.arange(len(group.responses))[:: -1 if model.seed else 1]

    trainings = stand_in(score)
    sums, costs = train_and_test(experiment, Cell("Plackett-Luce", 12, 1.0), 0.3)
    assert sums.shape[::2] == (2, COLUMNS)
    assert [group for seed, group in tested if seed == 0] == [
        experiment.groups.tokens[i] for i in experiment.test
    ]
    assert {(t.rate, t.loss_type) for t in trainings} == {(0.3, "plackett-luce")}
    assert all(t.recipe is SETTINGS for t in trainings)
    first, second = ({g.tokens.prompt for g in t.groups} for t in trainings)
    assert first != second
    found = full.edit_metrics(sums.sum(axis=1))
    for kind in ("chosen > rejected", "edited > chosen", "edited > rejected"):
        assert found[kind].tolist() == [0.0, 1.0]
    arm = ARMS["Plackett-Luce"]
    chosen = [choose(experiment.order(s), experiment.groups.edits, arm, 12, 1.0) for s in (0, 1)]
    most = [len(part.plain) + 3 * len(part.edited) for part in chosen]
    assert [t.steps for t in trainings] == [math.ceil(count / 8) for count in most]
    assert costs["edits"] == np.mean([len(part.edited) for part in chosen])
    assert costs["groups"] == 12


def test_every_arm_is_trained_at_every_share_at_its_best_and_at_the_shared_rate(
    experiment, stand_in
):
    def score(model, group):
        return np.arange(len(group.responses))[:: -1 if model.rate == 1e-2 else 1]

    trainings = stand_in(score)
    few = replace(SETTINGS, arms=[ArmName.IGNORE, "one more comparison"], tuning_seeds=1)
    outcome, tuning = run(replace(experiment, settings=few))
    # By arm and share two rates tried, and two seeds at the best and at the shared one.
    assert [t.rate for t in trainings] == [1e-3, 1e-2, 1e-2, 1e-2, 1e-3, 1e-3] * 4
    for cell in few.cells:
        # At the larger rate the best response scores highest, at the shared one lowest.
        for part, expected in ((outcome.sums, 1.0), (outcome.shared, 0.0)):
            found = full.edit_metrics(part[cell].sum(axis=(0, 1)))
            assert found["chosen > rejected"] == expected
    shares = tuning[["arm", "share"]].itertuples(index=False, name=None)
    assert set(shares) == {(arm, share) for arm in few.arms for share in (0.5, 1.0)}
    assert set(tuning["accuracy"]) == {0.0, 1.0}
    assert outcome.account == {
        "test groups": 10,
        "clusters": 10,
        "test groups with an edit": sum(
            experiment.groups.ranked[i].has_edit for i in experiment.test
        ),
    }
    longer = full.edit_metrics(outcome.baselines["longer"].sum(axis=0))
    assert longer["leans shorter"] == -0.5


def test_all_arms_take_as_many_steps(experiment, stand_in):
    trainings = stand_in(lambda model, group: np.zeros(len(group.responses)))
    twice = replace(experiment, settings=replace(SETTINGS, epochs=2))
    for name in ARMS:
        train_and_test(twice, Cell(name, 12, 0.5), 0.1)
    by_seed = [{t.steps for t in trainings if t.seed == seed} for seed in (0, 1)]
    assert all(len(steps) == 1 for steps in by_seed)
    # Two epochs of the arm that adds most.
    groups = max(len(t.groups) for t in trainings if t.seed == 0)
    assert by_seed[0] == {2 * math.ceil(groups / 8)}


def test_what_an_arm_is_compared_with_took_as_many_steps(experiment, stand_in):
    # More edits make longer training, also where they are ignored.
    trainings = stand_in(lambda model, group: np.zeros(len(group.responses)))
    one_rate = replace(
        SETTINGS, seeds=1, learning_rates=[0.1], shared_learning_rate=0.1, batch_size=2
    )
    run(replace(experiment, settings=one_rate))
    steps = {}
    for cell, training in zip(
        sorted(one_rate.cells, key=lambda cell: (-cell.size, str(cell))), trainings, strict=True
    ):
        steps.setdefault(cell.share, set()).add(training.steps)
    assert all(len(found) == 1 for found in steps.values())
    assert max(steps[1.0]) > max(steps[0.5])


def test_too_few_groups_are_refused_before_anything_is_trained(experiment, stand_in):
    trainings = stand_in(None)
    large = replace(experiment, settings=replace(SETTINGS, sizes=[4, 30], shares=[1.0]))
    with pytest.raises(ValueError, match=r"30 groups with .* edits need .* training groups"):
        run(large)
    assert not trainings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rates": [0.1]},
            r"shared_learning_rate 0.003 is not one of learning_rates \[0.1\]",
        ),
        ({"processes": 0}, "processes must be at least 1, not 0"),
        ({"tuning_seeds": 0}, "tuning_seeds must be at least 1, not 0"),
        ({"test_size": 0}, "test_size must be at least 1, not 0"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FullSettings(**changes)

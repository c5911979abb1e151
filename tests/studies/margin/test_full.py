"""Full training for the margin study: no prompt is shared, digits repeat, the model learns."""

from dataclasses import replace

import numpy as np
import pytest

from posttrain.data.sources.simulator.annotators import reachable_accuracy, simulate
from posttrain.evaluation.metrics import sufficient_statistics
from posttrain.models import embedded
from posttrain.studies.margin import full
from posttrain.studies.margin.full import FullSettings, prepare, run, train_and_score
from posttrain.studies.margin.outcome import ARMS, Arm

SETTINGS = FullSettings(
    sizes=[8, 16],
    seeds=1,
    learning_rates=[1e-3, 1e-2],
    shared_learning_rate=1e-2,
    batch_size=4,
    groups=90,
    resamples=10,
)


@pytest.fixture(scope="module")
def prepared(tiny_checkpoint):
    return prepare("simulator", tiny_checkpoint, SETTINGS)


@pytest.fixture(scope="module")
def outcome(tiny_checkpoint, prepared):
    # One learning rate: the choice among several is tested with a stand-in for training.
    return run(tiny_checkpoint, replace(SETTINGS, learning_rates=[1e-2]), prepared)


@pytest.fixture
def fake(monkeypatch, tiny_checkpoint, prepared):
    """Runs the study with a stand-in for training, and lists what it was called with."""
    calls = []

    def run_with(score, settings=SETTINGS):
        def stand_in(checkpoint, data, arm, training, test, learning_rate, seed, settings):
            calls.append((arm, training, test, learning_rate, seed))
            return score(arm, len(training), len(test), learning_rate)

        monkeypatch.setattr(full, "train_and_score", stand_in)
        return run(tiny_checkpoint, settings, prepared), calls

    return run_with


def right(count, share):
    """Scores that rank the first ``share`` of the pairs right."""
    winners = np.where(np.arange(count) < share * count, 1.0, -1.0)
    return np.stack([winners, np.zeros(count)])


def test_training_and_test_share_no_prompt(prepared):
    groups = prepared.ranked
    assert groups == [group.ranked for group in simulate(90, seed=SETTINGS.data_seed)]
    assert sorted([*prepared.training, *prepared.test]) == list(range(90))
    training, test = (
        {groups[i].prompt for i in part} for part in (prepared.training, prepared.test)
    )
    assert not training & test
    assert 0.15 < len(prepared.test) / 90 < 0.45
    for group, tokens in zip(groups, prepared.tokens, strict=True):
        assert len(tokens.responses) == len(group.responses)


def test_tuning_judges_by_training_prompts_that_were_not_trained_on(fake, prepared):
    _, calls = fake(lambda arm, training, test, rate: right(test, 0.7))
    prompts = [group.prompt for group in prepared.ranked]
    test = {prompts[i] for i in prepared.test}
    finals = 0
    for _, training, judged, _, _ in calls:
        trained = {prompts[i] for i in training}
        assert not trained & {prompts[i] for i in judged}
        assert not trained & test
        if len(judged) == len(prepared.test):
            finals += 1
            assert len(training) in (8, 16)
        else:
            assert len(training) + len(judged) in (8, 16)
    # Each arm and size: two learning rates to tune, two to report.
    assert (len(calls), finals) == (11 * 2 * 4, 11 * 2 * 2)


def test_the_best_learning_rate_on_held_out_training_prompts_is_chosen(fake, prepared):
    def score(arm, training, test, rate):
        final = training in (8, 16) and test == len(prepared.test)
        # The large margin does better with the first rate; the test results say the opposite.
        favourite = 1e-3 if arm.loss == "large" else 1e-2
        return right(test, 0.9 if (rate == favourite) != final else 0.2)

    outcome, _ = fake(score)
    for a, arm in enumerate(ARMS):
        assert (outcome.tuned[a] == (0 if arm.loss == "large" else 1)).all()
    for tuning, expected in (("tuned", 0.2), ("shared", 0.2)):
        sums = outcome.select(tuning)[0].sum(axis=2)
        assert sums[..., 5] / sums[..., 0] == pytest.approx(expected, abs=0.05)
    assert (outcome.grid, outcome.shared) == ((1e-3, 1e-2), 1)
    # Of each rate its own examples.
    winners, losers = outcome.examples[ARMS.index(Arm("large"))].swapaxes(0, 1)
    assert (winners > losers).mean(axis=1) == pytest.approx([0.2, 0.9], abs=0.05)
    shared = outcome.select("shared")[ARMS.index(Arm("large"))].sum(axis=2)
    assert shared[..., 5] / shared[..., 0] == pytest.approx(0.9, abs=0.05)


def test_seeds_draw_other_subsets_and_sizes_grow_one_from_the_other(fake):
    _, calls = fake(lambda arm, training, test, rate: right(test, 0.7), replace(SETTINGS, seeds=2))
    finals = [call for call in calls if len(call[1]) in (8, 16) and call[0] == Arm("none")]
    subsets = {(seed, len(training)): set(training) for _, training, _, _, seed in finals}
    assert len(subsets) == 4
    for seed in (0, 1):
        assert subsets[seed, 8] < subsets[seed, 16]
    assert subsets[0, 16] != subsets[1, 16]


def test_a_tiny_run_from_end_to_end(outcome, prepared):
    assert outcome.sums.shape[:4] == (11, 2, 1, 1)
    assert (outcome.sums[..., 0].sum(axis=-1) == len(prepared.test)).all()
    assert (outcome.grid, outcome.grid_name, outcome.shared) == ((1e-2,), "learning rate", 0)
    assert outcome.sizes == (8, 16)
    assert prepared.account["test pairs"] == len(prepared.test)
    assert outcome.examples.shape == (11, 1, 2, len(prepared.test))
    # Every arm is another training.
    for one in range(11):
        for other in range(one):
            assert np.abs(outcome.examples[one] - outcome.examples[other]).max() > 1e-6


def test_baselines_hold_what_can_be_reached(outcome, prepared):
    table = outcome.baselines.set_index(["baseline", "metric"])["estimate"]
    simulated = simulate(90, seed=SETTINGS.data_seed)
    expected = reachable_accuracy([simulated[i].difference for i in prepared.test])
    assert table["reachable", "accuracy"] == expected["all"]
    assert table["reachable", "accuracy 3"] == expected["3"]
    assert ("length only", "accuracy") in table.index


def test_the_examples_are_the_scores_behind_the_sums(outcome, prepared):
    groups = [prepared.ranked[i] for i in prepared.test]
    strengths = np.array([group.strength for group in groups])
    for a in (0, 5):
        sums = sufficient_statistics(
            *outcome.examples[a, 0], strengths, outcome.example_codes, outcome.sums.shape[4]
        )
        np.testing.assert_array_equal(sums, outcome.sums[a, 1, 0, 0])


def test_the_same_seed_gives_the_same_digits(tiny_checkpoint, prepared, outcome):
    def scores(arm=ARMS[0], seed=0, rate=1e-2):
        subset = np.random.default_rng(0).permutation(prepared.training)[:16]
        return train_and_score(
            tiny_checkpoint, prepared, arm, subset, prepared.test, rate, seed, SETTINGS
        )

    first = scores()
    assert first.shape == (2, len(prepared.test))
    assert first.dtype == np.float64
    np.testing.assert_array_equal(scores(), first)
    np.testing.assert_array_equal(outcome.examples[0, 0], first)
    for other in (scores(seed=1), scores(rate=1e-3), scores(arm=Arm("scaled"))):
        assert np.abs(other - first).max() > 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [8, 88]}, r"size 88 exceeds the \d+ training groups; lower sizes or use more"),
        ({"shared_learning_rate": 0.5}, r"shared_learning_rate 0\.5 is not one of learning_rates"),
        ({"sizes": []}, r"sizes needs values of at least 1, not \[\]"),
        ({"sizes": [0, 8]}, r"sizes needs values of at least 1, not \[0, 8\]"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
        ({"test_size": 0}, "test_size must be at least 1, not 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_checkpoint, change, message):
    with pytest.raises(ValueError, match=message):
        prepare("simulator", tiny_checkpoint, replace(SETTINGS, **change))


def test_at_most_as_many_pairs_are_tested_as_asked_for(tiny_checkpoint, prepared):
    few = prepare("simulator", tiny_checkpoint, replace(SETTINGS, test_size=5))
    assert len(few.test) == few.account["test pairs"] == 5
    assert set(few.test) < set(prepared.test)
    np.testing.assert_array_equal(few.training, prepared.training)


def test_edits_take_no_part(tiny_checkpoint, prepared):
    found = prepare("simulator", tiny_checkpoint, replace(SETTINGS, edited_share=1.0))
    assert {len(group.responses) for group in found.tokens} == {2}
    assert found.ranked == prepared.ranked
    assert found.gold == prepared.gold


def test_a_single_learning_rate_is_not_tuned(fake):
    alone = replace(SETTINGS, learning_rates=[1e-2])
    outcome, calls = fake(lambda arm, training, test, rate: right(test, 0.7), alone)
    assert len(calls) == 11 * 2
    assert not outcome.tuned.any()


def test_the_recipe_reaches_training(monkeypatch, tiny_checkpoint, prepared):
    recipe = replace(SETTINGS, epochs=2, top_layers=1, bf16=True)
    seen = []

    def stop(checkpoint, groups, layout, given, **options):
        seen.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(full, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_checkpoint, recipe, prepared)
    assert seen == [recipe]


def test_the_tiny_llama_comes_close_to_what_can_be_reached():
    settings = FullSettings(
        sizes=[2500], learning_rates=[3e-3], shared_learning_rate=3e-3, batch_size=32,
        groups=3800, test_size=1000,
    )  # fmt: skip
    checkpoint = embedded.tiny()
    prepared = prepare("simulator", checkpoint, settings)
    assert len(prepared.test) >= 800
    subset = np.random.default_rng(0).permutation(prepared.training)[:2500]
    winners, losers = train_and_score(
        checkpoint, prepared, Arm("none"), subset, prepared.test, 3e-3, 0, settings
    )
    accuracy = np.mean((winners > losers) + 0.5 * (winners == losers))
    gold = [prepared.gold[i] for i in prepared.test]
    reachable = reachable_accuracy([chosen - rejected for chosen, rejected in gold])["all"]
    assert accuracy - 0.5 >= 0.85 * (reachable - 0.5), (accuracy, reachable)

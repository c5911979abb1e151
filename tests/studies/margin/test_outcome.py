"""Arms, selection of hyperparameters, and tables checked against direct computation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from posttrain.data.preferences import Message, RankedGroup
from posttrain.evaluation.metrics import COLUMNS, metrics, sufficient_statistics
from posttrain.studies.margin.outcome import (
    ARMS,
    Arm,
    Outcome,
    RatedPairs,
    length_baseline,
    summarise,
)

GROUPS, PAIRS = 40, 1200
SIZES = (100, 1000, 10_000)
GRID = (0.01, 0.1, 1.0)
PLANTED = 0.4
KEYS = ["loss", "filtered", "tuning", "size", "metric"]


def group_of(name, *, strength=2, cluster_id="", responses=("one two", "three")):
    return RankedGroup(
        id=name,
        prompt=(Message("user", name),),
        responses=responses,
        strength=strength,
        cluster_id=cluster_id,
    )


@pytest.fixture(scope="module")
def outcome():
    """Scores of every arm on the same pairs: alike but for noise and what is planted.

    The large margin adds to every difference, less with more data, and only where the tuned
    hyperparameter is used; the filter takes away.
    """
    random = np.random.default_rng(0)
    strengths = random.integers(1, 5, PAIRS)
    codes = random.integers(0, GROUPS, PAIRS)
    base = random.normal(0.3 * strengths, 1.0)
    tuned = random.integers(0, 3, (len(ARMS), len(SIZES), 2, GROUPS))
    sums = np.zeros((len(ARMS), len(SIZES), 2, 3, GROUPS, COLUMNS))
    examples = np.zeros((len(ARMS), 3, 2, PAIRS))
    for a, arm in enumerate(ARMS):
        for s in range(len(SIZES)):
            for seed in range(2):
                for g in range(3):
                    effect = np.zeros(PAIRS)
                    if arm.loss == "large":
                        effect += PLANTED * (3 - s) * (tuned[a, s, seed, codes] == g)
                    effect -= 0.2 * arm.filtered
                    winners = base + effect + random.normal(0, 0.05, PAIRS)
                    losers = random.normal(0, 0.05, PAIRS)
                    sums[a, s, seed, g] = sufficient_statistics(
                        winners, losers, strengths, codes, GROUPS
                    )
                    if seed == 0 and s == 2:
                        examples[a, g] = winners, losers
    return Outcome(
        grid=GRID,
        grid_name="penalty",
        shared=1,
        sizes=SIZES,
        sums=sums,
        tuned=tuned,
        examples=examples,
        example_codes=codes,
        baselines=pd.DataFrame({"baseline": ["length only"]}),
    )


@pytest.fixture(scope="module")
def tables(outcome):
    return summarise(outcome, resamples=200)


def value(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    assert len(found) == 1
    return found.iloc[0]


def directly(outcome, arm, size, tuning):
    """Metrics of an arm: the sums of each group under its own choice, added up group by group."""
    a, s = ARMS.index(arm), outcome.sizes.index(size)
    by_seed = []
    for seed in range(outcome.sums.shape[2]):
        total = np.zeros(COLUMNS)
        for group in range(GROUPS):
            g = outcome.shared if tuning == "shared" else outcome.tuned[a, s, seed, group]
            total += outcome.sums[a, s, seed, g, group]
        by_seed.append(metrics(total))
    return {name: np.mean([found[name] for found in by_seed]) for name in by_seed[0]}


def test_arms_are_all_losses_with_and_without_the_filter_and_controls():
    assert [(arm.loss, arm.filtered) for arm in ARMS] == [
        ("none", False), ("small", False), ("large", False), ("scaled", False),
        ("none", True), ("small", True), ("large", True), ("scaled", True),
        ("constant", False), ("large, permuted", False), ("scaled, permuted", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "margins", "weights"),
    [
        ("none", [0, 0, 0, 0], [1, 1, 1, 1]),
        ("small", [0, 1 / 3, 2 / 3, 1], [1, 1, 1, 1]),
        ("large", [0, 1, 2, 3], [1, 1, 1, 1]),
        ("scaled", [0, 0, 0, 0], [1, 2, 3, 4]),
    ],
)
def test_margins_and_weights_of_an_arm(loss, margins, weights):
    strengths = [1, 2, 3, 4]
    assert Arm(loss).margins(strengths).tolist() == pytest.approx(margins)
    assert Arm(loss).weights(strengths).tolist() == weights
    filtered = Arm(loss, filtered=True)
    assert filtered.margins(strengths).tolist() == pytest.approx(margins)
    assert filtered.weights(strengths).tolist() == [0, 0, *weights[2:]]


def test_controls_keep_the_scale_and_drop_the_information():
    strengths = [1, 2, 3, 4] * 25
    large = Arm("large").margins(strengths)
    constant, permuted = (Arm(loss).margins(strengths) for loss in ("constant", "large, permuted"))
    assert constant.tolist() == [1.5] * 100
    assert permuted.tolist() != large.tolist()
    assert sorted(permuted.tolist()) == sorted(large.tolist())
    assert abs(np.corrcoef(permuted, strengths)[0, 1]) < 0.3
    weights = Arm("scaled, permuted").weights(strengths).tolist()
    assert weights != strengths
    assert sorted(weights) == sorted(strengths)
    # The same deal every time, so that a rerun is the same.
    assert Arm("large, permuted").margins(strengths).equal(permuted)
    assert (Arm("constant").weights(strengths) == 1).all()
    assert (Arm("scaled, permuted").margins(strengths) == 0).all()


def test_rated_pairs_number_the_split_groups():
    groups = [
        group_of("a", cluster_id="y", strength=4),
        group_of("b", cluster_id="x"),
        group_of("c", cluster_id="y"),
    ]
    pairs = RatedPairs.from_groups(groups)
    assert pairs.groups == groups
    assert pairs.strengths.tolist() == [4, 2, 2]
    assert pairs.codes.tolist() == [1, 0, 1]
    assert pairs.group_count == 2


def test_unrated_groups_are_refused():
    groups = [group_of("a"), group_of("b", strength=None), group_of("c", strength=None)]
    with pytest.raises(ValueError, match=r"2 of 3 groups have no strength \(first: b\)"):
        RatedPairs.from_groups(groups)


def test_select_takes_each_groups_own_tuned_value():
    shape = (len(ARMS), 2, 3)
    # Every sum says where it comes from.
    sums = np.arange(np.prod(shape) * 4 * 5 * COLUMNS).reshape(*shape, 4, 5, COLUMNS)
    tuned = np.random.default_rng(0).integers(0, 4, (*shape, 5))
    outcome = Outcome(
        (1.0,) * 4, "penalty", 2, (1, 2), sums, tuned, np.zeros(0), np.zeros(0), pd.DataFrame()
    )
    assert (outcome.select("shared") == sums[:, :, :, 2]).all()
    found = outcome.select("tuned")
    assert found.shape == (*shape, 5, COLUMNS)
    for place in np.ndindex(*shape, 5):
        arm, size, seed, group = place
        assert (found[place] == sums[arm, size, seed, tuned[place], group]).all()


@pytest.mark.parametrize("tuning", ["shared", "tuned"])
@pytest.mark.parametrize("arm", [Arm("none"), Arm("large"), Arm("small", True)])
@pytest.mark.parametrize("size", [100, 10_000])
def test_metrics_are_those_of_the_pairs(outcome, tables, tuning, arm, size):
    for name, expected in directly(outcome, arm, size, tuning).items():
        row = value(
            tables["metrics"], loss=arm.loss, filtered=arm.filtered, tuning=tuning,
            size=size, metric=name,
        )  # fmt: skip
        assert row["estimate"] == pytest.approx(expected, abs=1e-10)
        assert row["low"] <= row["high"]
        if name == "accuracy":
            assert row["low"] < row["estimate"] < row["high"]


def test_gains_and_filter_effects_are_differences_of_metrics(tables):
    measured = tables["metrics"].set_index(KEYS)["estimate"]
    assert len(measured) == 11 * 2 * 3 * 11
    gains = tables["gains"].set_index(KEYS)["estimate"]
    assert len(gains) == 9 * 2 * 3 * 11
    for (loss, filtered, *rest), gain in gains.items():
        expected = measured[(loss, filtered, *rest)] - measured[("none", filtered, *rest)]
        assert gain == pytest.approx(expected, abs=1e-12)
    filters = tables["filter"].set_index(KEYS)["estimate"]
    assert len(filters) == 4 * 2 * 3 * 11
    for (loss, filtered, *rest), effect in filters.items():
        assert filtered
        expected = measured[(loss, True, *rest)] - measured[(loss, False, *rest)]
        assert effect == pytest.approx(expected, abs=1e-12)


def test_interactions_and_controls_are_differences_of_metrics(tables):
    gains = tables["gains"].set_index(KEYS)["estimate"]
    interactions = tables["interactions"].set_index(["loss", *KEYS[2:]])["estimate"]
    assert len(interactions) == 3 * 2 * 3 * 11
    for (loss, *rest), taken in interactions.items():
        expected = gains[(loss, False, *rest)] - gains[(loss, True, *rest)]
        assert taken == pytest.approx(expected, abs=1e-12)
    measured = tables["metrics"].set_index(KEYS)["estimate"]
    controls = tables["controls"].set_index(["control", *KEYS[2:]])["estimate"]
    assert len(controls) == 3 * 2 * 3 * 11
    for name, loss, control in (
        ("large - constant", "large", "constant"),
        ("large - permuted", "large", "large, permuted"),
        ("scaled - permuted", "scaled", "scaled, permuted"),
    ):
        for place, lead in controls[name].items():
            expected = measured[(loss, False, *place)] - measured[(control, False, *place)]
            assert lead == pytest.approx(expected, abs=1e-12)


def test_steps_compare_strength_4_with_strength_1(tables):
    measured = tables["metrics"].set_index(KEYS)["estimate"]
    steps = tables["steps"].set_index(KEYS)["estimate"]
    assert len(steps) == (11 + 9) * 2 * 3
    for (loss, filtered, tuning, size, name), step in steps.items():

        def rise(loss, label=(filtered, tuning, size)):
            return measured[(loss, *label, "accuracy 4")] - measured[(loss, *label, "accuracy 1")]

        expected = rise(loss) - (rise("none") if name == "gain 4 - 1" else 0)
        assert step == pytest.approx(expected, abs=1e-12)


def test_a_trend_is_the_slope_per_tenfold_data(tables):
    gains = tables["gains"].set_index(KEYS)["estimate"]
    trends = tables["trends"]
    assert len(trends) == 9 * 2 * 5
    for row in trends.itertuples():
        first, _, last = (
            gains[(row.loss, row.filtered, row.tuning, size, row.metric)] for size in SIZES
        )
        # Three sizes, each ten times the one before: least squares ignores the middle.
        assert row.estimate == pytest.approx((last - first) / 2, abs=1e-12)
    falling = value(trends, loss="large", filtered=False, tuning="tuned", metric="accuracy")
    assert falling["high"] < 0


def test_a_single_size_has_no_trend(outcome):
    single = replace(outcome, sizes=(100,), sums=outcome.sums[:, :1], tuned=outcome.tuned[:, :1])
    trends = summarise(single, resamples=5)["trends"]
    assert len(trends) == 9 * 2 * 5
    assert trends[["estimate", "low", "high"]].isna().all(axis=None)


def test_a_planted_gain_is_recovered_and_nothing_else(tables):
    for size in SIZES:
        planted = value(
            tables["gains"], loss="large", filtered=False, tuning="tuned", size=size,
            metric="accuracy",
        )  # fmt: skip
        assert 0.02 < planted["low"] < planted["estimate"] < planted["high"] < 0.4
        for loss in ("small", "scaled"):
            nothing = value(
                tables["gains"], loss=loss, filtered=False, tuning="tuned", size=size,
                metric="accuracy",
            )  # fmt: skip
            assert abs(nothing["estimate"]) < 0.02
            assert nothing["low"] < 0.01
            assert nothing["high"] > -0.01
    filtered = value(
        tables["filter"], loss="none", filtered=True, tuning="shared", size=100, metric="accuracy"
    )
    assert filtered["high"] < 0


def test_sensitivity_is_the_gain_at_every_shared_value(outcome, tables):
    table = tables["sensitivity"]
    assert len(table) == 4 * 3 * 3
    for g, penalty in enumerate(GRID):
        shared = replace(outcome, shared=g)
        for loss in ("none", "small", "large", "scaled"):
            row = value(table, loss=loss, size=1000, penalty=penalty)
            found, plain = (
                directly(shared, Arm(name), 1000, "shared")["accuracy"] for name in (loss, "none")
            )
            assert row["accuracy"] == pytest.approx(found, abs=1e-12)
            assert row["estimate"] == pytest.approx(found - plain, abs=1e-12)
    assert (table[table["loss"] == "none"][["estimate", "low", "high"]] == 0).all(axis=None)


def test_chosen_values_by_hand(outcome):
    tuned = np.zeros_like(outcome.tuned)
    tuned[0, 0, :, : GROUPS // 2] = 2
    tuned[1] = 1
    chosen = summarise(replace(outcome, tuned=tuned), resamples=2)["chosen"]
    assert len(chosen) == 11 * 3
    # Half of the groups at 0.01, half at 1.
    row = value(chosen, loss="none", filtered=False, size=100)
    assert (row["penalty"], row["at edge"]) == pytest.approx((0.1, 1.0))
    row = value(chosen, loss="small", filtered=False, size=100)
    assert (row["penalty"], row["at edge"]) == pytest.approx((0.1, 0.0))
    row = value(chosen, loss="none", filtered=False, size=1000)
    assert (row["penalty"], row["at edge"]) == pytest.approx((0.01, 1.0))


def test_reliability_is_that_of_the_largest_size(outcome, tables):
    part = tables["reliability"]
    part = part[(part["loss"] == "large") & ~part["filtered"] & (part["tuning"] == "tuned")]
    assert part["bin"].tolist() == list(range(10))
    assert part["share"].sum() == pytest.approx(1)
    accuracy = np.nansum(part["accuracy"] * part["share"])
    expected = directly(outcome, Arm("large"), 10_000, "tuned")["accuracy"]
    assert accuracy == pytest.approx(expected, abs=1e-10)


def test_the_histogram_shows_tuned_scores_of_the_first_seed(outcome, tables):
    table = tables["histogram"]
    assert sorted(table["loss"].unique()) == ["large", "none", "scaled", "small"]
    for loss in ("none", "large"):
        a = ARMS.index(Arm(loss))
        choice = outcome.tuned[a, -1, 0][outcome.example_codes]
        scores = np.concatenate(
            [[outcome.examples[a, choice[i], side, i] for i in range(PAIRS)] for side in (0, 1)]
        )
        standard = (scores - scores.mean()) / scores.std()
        part = table[table["loss"] == loss].reset_index()
        width = part["score"][1] - part["score"][0]
        assert part["density"].sum() * width == pytest.approx(1)
        for row in part.iloc[::5].itertuples():
            inside = (abs(standard - row.score) <= width / 2).sum()
            total = (abs(standard) <= 3.5).sum()
            assert row.density * width * total == pytest.approx(inside, abs=1e-6)


def test_baselines_pass_through(outcome, tables):
    assert tables["baselines"] is outcome.baselines


def test_the_length_baseline_counts_characters():
    pairs = RatedPairs.from_groups(
        [
            group_of("a", responses=("longer", "short"), strength=4),
            group_of("b", responses=("short", "longer"), strength=4),
            group_of("c", responses=("same", "size"), strength=1),
            group_of("d", responses=("edited and so the longest", "longer", "short"), strength=1),
        ]
    )
    table = length_baseline(pairs, resamples=50)
    assert set(table["baseline"]) == {"length only"}
    found = table.set_index("metric")["estimate"]
    assert set(found.index) == {"accuracy", *(f"accuracy {s}" for s in (1, 2, 3, 4))}
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    assert found["accuracy 1"] == pytest.approx(1.5 / 2)
    assert found["accuracy 4"] == pytest.approx(0.5)
    assert np.isnan(found["accuracy 2"])

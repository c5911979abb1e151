"""Arms, metrics of order and tables of the packing study, against slow direct computation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from posttrain.evaluation.bootstrap import Resamples
from posttrain.rows.layout import Layout
from posttrain.studies.packing.keys import MARGIN, RowName
from posttrain.studies.packing.outcome import (
    ARMS,
    COLUMNS,
    CONTRASTS,
    TESTS,
    Outcome,
    both_orders,
    non_inferiority,
    order_metrics,
    order_sums,
    own_test,
    summarise,
)

METRICS = [
    "accuracy", "accuracy, chosen first", "accuracy, chosen last", "slot bias", "order noise",
    "flips", "disagreement", "distance", "log-likelihood",
]  # fmt: skip
PLANTED_ARMS = (RowName.SEPARATE, "exact", "causal", "causal, ranked")
SEEDS, GROUPS, PAIRS = 3, 12, 60
RESAMPLES = 60

# Quarters: their sums and squares are exact, so that only divisions round.
DIFFERENCE = st.integers(-12, 12).map(lambda whole: whole / 4)


def measured(first, last, alone):
    """Metrics of some pairs, all in one test group."""
    first, last, alone = (np.asarray(values, dtype=float) for values in (first, last, alone))
    sums = order_sums(first, last, alone, np.zeros(len(first), dtype=int), 1)
    return {name: float(value) for name, value in order_metrics(sums[0]).items()}


def directly(first, last, alone):
    """The same pair by pair, from the definitions."""
    count = len(first)
    middle = [(f + b) / 2 for f, b in zip(first, last, strict=True)]
    half = [(f - b) / 2 for f, b in zip(first, last, strict=True)]
    mean_half = sum(half) / count

    def root_mean_square(values):
        return math.sqrt(sum(value**2 for value in values) / count)

    def ratio(above, below):
        return above / below if below else math.nan

    def right(values):
        return sum({1: 1.0, 0: 0.5, -1: 0.0}[sign(value)] for value in values) / count

    def otherwise(values, others):
        return sum(sign(a) != sign(b) for a, b in zip(values, others, strict=True)) / count

    return {
        "accuracy": right([*first, *last]) / 2,
        "accuracy, chosen first": right(first),
        "accuracy, chosen last": right(last),
        "slot bias": ratio(mean_half, root_mean_square(middle)),
        "order noise": ratio(
            root_mean_square([value - mean_half for value in half]), root_mean_square(middle)
        ),
        "flips": otherwise(first, last),
        "disagreement": (otherwise(first, alone) + otherwise(last, alone)) / 2,
        "distance": ratio(
            root_mean_square([m - d for m, d in zip(middle, alone, strict=True)]),
            root_mean_square(alone),
        ),
        "log-likelihood": -sum(math.log1p(math.exp(-value)) for value in [*first, *last])
        / (2 * count),
    }


def sign(value):
    return (value > 0) - (value < 0)


@pytest.fixture(scope="module")
def differences():
    """Score differences ``[arms, tests, seeds, 3, pairs]`` and the group of each pair.

    The exact arm is the separate one. Trained on ranked causal rows, the earlier response wins.
    """
    random = np.random.default_rng(0)
    codes = random.permutation(np.repeat(np.arange(GROUPS), PAIRS // GROUPS))
    codes[:7] = 0  # groups of unequal size
    found = np.zeros((len(PLANTED_ARMS), len(TESTS), SEEDS, 3, PAIRS))
    for seed in range(SEEDS):
        base = random.normal(0.8, 1.0, PAIRS)
        for a, arm in enumerate(PLANTED_ARMS):
            noise = random.normal(0, 0.4, PAIRS)
            alone = base if arm in (RowName.SEPARATE, "exact") else base + noise
            for t, test in enumerate(TESTS):
                bias = 0.0 if test == RowName.SEPARATE else 2.0 if arm == "causal, ranked" else 0.3
                found[a, t, seed] = alone + bias, alone - bias, alone
    return found, codes


@pytest.fixture(scope="module")
def outcome(differences):
    found, codes = differences
    sums = np.zeros((*found.shape[:3], GROUPS, COLUMNS))
    for place in np.ndindex(*found.shape[:3]):
        sums[place] = order_sums(*found[place], codes, GROUPS)
    return Outcome(PLANTED_ARMS, tuple(TESTS), sums)


@pytest.fixture(scope="module")
def tables(outcome):
    return summarise(outcome, resamples=RESAMPLES)


def part_of(outcome, *arms):
    places = [outcome.arms.index(arm) for arm in arms]
    return Outcome(arms, outcome.tests, outcome.sums[places])


def value(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    assert len(found) == 1
    return found.iloc[0]


def test_the_arms_change_attention_and_positions_one_by_one_and_then_together():
    single = {
        name: (layout.attention, layout.positions, layout.order)
        for name, layout in ARMS.items()
        if layout.rows == "single"
    }
    assert single == {
        "exact": ("isolated", "restarting", "ranked"),
        "causal attention": ("causal", "restarting", "shuffled"),
        "running positions": ("isolated", "running", "shuffled"),
        "causal": ("causal", "running", "shuffled"),
        "causal attention, ranked": ("causal", "restarting", "ranked"),
        "running positions, ranked": ("isolated", "running", "ranked"),
        "causal, ranked": ("causal", "running", "ranked"),
    }
    assert next(iter(ARMS)) == RowName.SEPARATE
    assert [name for name in ARMS if name not in single] == [RowName.SEPARATE]


def test_test_layouts_are_those_of_the_arms_without_shuffling():
    expected = {
        RowName.SEPARATE: Layout("separate"),
        "causal attention": Layout("single", "causal", "restarting", "ranked"),
        "running positions": Layout("single", "isolated", "running", "ranked"),
        "causal": Layout("single", "causal", "running", "ranked"),
    }
    assert list(TESTS.items()) == list(expected.items())
    cells = list(itertools.chain(*CONTRASTS.values()))
    assert all(arm in ARMS and test in TESTS for arm, test in cells)


def test_every_arm_has_a_test_layout_of_its_own_or_separate_rows():
    assert {arm: own_test(arm) for arm in ARMS} == {
        RowName.SEPARATE: RowName.SEPARATE,
        "exact": RowName.SEPARATE,
        "causal attention": "causal attention",
        "running positions": "running positions",
        "causal": "causal",
        "causal attention, ranked": "causal attention",
        "running positions, ranked": "running positions",
        "causal, ranked": "causal",
    }


def test_metrics_of_three_pairs_by_hand():
    found = measured(first=[3.0, 1.0, 0.0], last=[1.0, -1.0, 2.0], alone=[1.0, 1.0, 0.0])
    # M = 2, 0, 1 and H = 1, 1, −1; the last pair ties with the chosen response first, and alone.
    assert found == pytest.approx(
        {
            "accuracy": (2.5 + 2) / 6,
            "accuracy, chosen first": 2.5 / 3,
            "accuracy, chosen last": 2 / 3,
            "slot bias": (1 / 3) / math.sqrt(5 / 3),
            "order noise": math.sqrt(1 - 1 / 9) / math.sqrt(5 / 3),
            "flips": 2 / 3,
            "disagreement": 2 / 6,
            "distance": math.sqrt((1 + 1 + 1) / 3) / math.sqrt(2 / 3),
            "log-likelihood": -sum(math.log1p(math.exp(-d)) for d in (3, 1, 0, 1, -1, 2)) / 6,
        }
    )
    assert list(found) == METRICS


@given(st.lists(st.tuples(DIFFERENCE, DIFFERENCE, DIFFERENCE), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_the_definitions(triples):
    first, last, alone = map(list, zip(*triples, strict=True))
    expected = directly(first, last, alone)
    with np.errstate(all="ignore"):
        found = measured(first, last, alone)
    for name, wanted in expected.items():
        if math.isnan(wanted):
            assert not math.isfinite(found[name])
        else:
            assert found[name] == pytest.approx(wanted, abs=1e-5), name


@given(
    st.lists(
        st.tuples(DIFFERENCE, DIFFERENCE, DIFFERENCE, st.integers(0, 4)), min_size=1, max_size=12
    )
)
@settings(max_examples=30, deadline=None)
def test_sums_belong_to_their_groups_and_add_up(rows):
    *values, codes = (np.array(column) for column in zip(*rows, strict=True))
    sums = order_sums(*values, codes, 6)
    assert sums.shape == (6, COLUMNS)
    for group in range(6):
        members = [column[codes == group] for column in values]
        expected = order_sums(*members, np.zeros(len(members[0]), dtype=int), 1)[0]
        np.testing.assert_allclose(sums[group], expected, atol=1e-12)
    assert not sums[5].any()
    whole = order_sums(*values, np.zeros(len(codes), dtype=int), 1)[0]
    np.testing.assert_allclose(sums.sum(axis=0), whole, atol=1e-12)


def test_metrics_keep_the_leading_axes(outcome):
    found = order_metrics(outcome.sums)
    assert {values.shape for values in found.values()} == {outcome.sums.shape[:-1]}
    one = order_metrics(outcome.sums[1, 2, 0, 3])
    for name, values in found.items():
        assert values[1, 2, 0, 3] == pytest.approx(one[name], nan_ok=True)


def test_a_bias_is_positive_where_the_earlier_response_scores_too_high():
    alone = np.array([2.0, -1.0, 1.0])
    for bias in (0.5, -0.5):
        found = measured(alone + bias, alone - bias, alone)
        assert found["slot bias"] == pytest.approx(bias / math.sqrt(2))
        # The same shift everywhere is a bias and no noise.
        assert found["order noise"] == pytest.approx(0, abs=1e-7)
        assert found["distance"] == pytest.approx(0, abs=1e-7)


def test_noise_without_bias():
    found = measured(first=[5.0, -1.0], last=[-1.0, 5.0], alone=[2.0, 2.0])
    assert found["slot bias"] == 0
    assert found["order noise"] == pytest.approx(1.5)
    assert (found["flips"], found["disagreement"]) == (1.0, 0.5)


def test_order_means_nothing_in_an_exact_layout():
    alone = np.random.default_rng(1).normal(0.3, 2.0, 200)
    found = measured(alone, alone, alone)
    for name in ("slot bias", "flips", "disagreement"):
        assert found[name] == 0
    for name in ("order noise", "distance"):
        assert found[name] == pytest.approx(0, abs=1e-7)
    assert found["accuracy"] == found["accuracy, chosen first"] == np.mean(alone > 0)


def test_large_differences_do_not_overflow():
    found = measured([800.0], [-800.0], [800.0])
    assert found["log-likelihood"] == -400


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_differences_that_are_not_finite_are_refused(place, bad):
    given = [np.ones(3) for _ in range(3)]
    given[place][1] = bad
    with pytest.raises(ValueError, match=r"scores must be finite; .* has diverged"):
        order_sums(*given, np.zeros(3, dtype=int), 1)


def test_half_precision_is_summed_in_double():
    first = np.full(5, 0.1, dtype=np.float32)
    sums = order_sums(first, first, first, np.zeros(5, dtype=int), 1)
    assert sums.dtype == np.float64
    assert sums[0, 8] == pytest.approx(5 * float(np.float32(0.1)) ** 2, rel=1e-14)


def test_the_tables_have_a_row_for_every_cell(tables):
    assert list(tables) == ["matrix", "differences", "contrasts", "non-inferiority"]
    head = ["trained", "tested", "metric", "estimate", "low", "high"]
    assert list(tables["matrix"].columns) == head
    assert list(tables["differences"].columns) == [*head, "low 90", "high 90"]
    assert list(tables["contrasts"].columns) == ["contrast", "estimate", "low", "high"]
    for name, metrics in (("matrix", METRICS), ("differences", ["accuracy", "log-likelihood"])):
        cells = tables[name][head[:3]].itertuples(index=False, name=None)
        assert list(cells) == list(itertools.product(PLANTED_ARMS, TESTS, metrics))


def test_the_matrix_averages_the_metrics_of_seeds(differences, tables):
    found, _ = differences
    for (a, arm), (t, test) in itertools.product(enumerate(PLANTED_ARMS), enumerate(TESTS)):
        by_seed = [directly(*found[a, t, seed].tolist()) for seed in range(SEEDS)]
        for name in METRICS:
            row = value(tables["matrix"], trained=arm, tested=test, metric=name)
            expected = np.mean([metrics[name] for metrics in by_seed])
            assert row["estimate"] == pytest.approx(expected, abs=1e-6)
            assert row["low"] <= row["high"]
    own = value(tables["matrix"], trained="causal, ranked", tested="causal", metric="slot bias")
    assert 1 < own["low"] < own["estimate"] < own["high"]


def test_the_reference_does_not_differ_from_itself(tables):
    table = tables["differences"]
    for metric in ("accuracy", "log-likelihood"):
        row = value(table, trained=RowName.SEPARATE, tested=RowName.SEPARATE, metric=metric)
        assert [*row[["estimate", "low", "high", "low 90", "high 90"]]] == [0] * 5


def test_a_copy_of_the_reference_does_not_differ_either_because_differences_are_paired(tables):
    row = value(tables["differences"], trained="exact", tested=RowName.SEPARATE, metric="accuracy")
    assert [*row[["estimate", "low", "high", "low 90", "high 90"]]] == [0] * 5
    alone = value(tables["matrix"], trained="exact", tested=RowName.SEPARATE, metric="accuracy")
    assert alone["low"] < alone["high"]


def test_differences_are_those_of_the_matrix(tables):
    matrix = tables["matrix"].set_index(["trained", "tested", "metric"])["estimate"]
    for row in tables["differences"].itertuples():
        expected = (
            matrix[row.trained, row.tested, row.metric]
            - matrix[RowName.SEPARATE, RowName.SEPARATE, row.metric]
        )
        assert row.estimate == pytest.approx(expected, abs=1e-12)


def test_intervals_are_percentiles_of_paired_replicates(differences, tables):
    found, codes = differences
    draws = Resamples.draw(GROUPS, SEEDS, count=RESAMPLES)
    arm, test = PLANTED_ARMS.index("causal"), list(TESTS).index("causal")

    def accuracy(replicate, cell):
        by_seed = []
        for seed in range(SEEDS):
            first, last, _ = found[cell][seed]
            weights = draws.groups[replicate][codes]
            right = ((first > 0) + 1.0 * (last > 0)) / 2
            by_seed.append((weights * right).sum() / weights.sum())
        return float(draws.seeds[replicate] @ by_seed)

    gaps = [
        accuracy(replicate, (arm, test)) - accuracy(replicate, (0, 0))
        for replicate in range(1, RESAMPLES + 1)
    ]
    row = value(tables["differences"], trained="causal", tested="causal", metric="accuracy")
    assert [*row[["low", "high"]]] == pytest.approx([*np.quantile(gaps, [0.025, 0.975])])
    assert [*row[["low 90", "high 90"]]] == pytest.approx([*np.quantile(gaps, [0.05, 0.95])])
    assert row["low"] < row["low 90"] < row["high 90"] < row["high"]


def test_contrasts_are_paired_differences_of_accuracy(tables):
    matrix = tables["matrix"].set_index(["metric", "trained", "tested"])["estimate"]["accuracy"]
    found = tables["contrasts"].set_index("contrast")
    assert [*found.index] == [
        "shuffled - ranked", "own - separate", "shuffled - ranked, tested separately",
    ]  # fmt: skip
    own, alone = matrix["causal"][["causal", RowName.SEPARATE]]
    ranked, ranked_alone = matrix["causal, ranked"][["causal", RowName.SEPARATE]]
    assert [*found["estimate"]] == pytest.approx([own - ranked, own - alone, alone - ranked_alone])
    assert own - ranked > 0.05
    assert (found["low"] <= found["estimate"]).all()
    assert (found["estimate"] <= found["high"]).all()
    # A pair of cells shares seeds and groups: much of their noise cancels.
    both = tables["matrix"].set_index(["metric", "trained", "tested"]).loc["accuracy"]
    widths = (both["high"] - both["low"])[[("causal", "causal"), ("causal", RowName.SEPARATE)]]
    contrast = found.loc["own - separate"]
    assert contrast["high"] - contrast["low"] < widths.min()


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (("causal",), ["own - separate"]),
        (("causal, ranked",), []),
        (("exact",), []),
        (("causal, ranked", "causal"), list(CONTRASTS)),
    ],
)
def test_contrasts_need_both_of_their_arms(outcome, arms, expected):
    found = summarise(part_of(outcome, RowName.SEPARATE, *arms), resamples=5)
    assert [*found["contrasts"]["contrast"]] == expected
    assert list(found["contrasts"].columns) == ["contrast", "estimate", "low", "high"]
    assert set(found["matrix"]["trained"]) == {RowName.SEPARATE, *arms}


def test_the_order_of_arms_does_not_matter(outcome, tables):
    turned = summarise(part_of(outcome, *reversed(PLANTED_ARMS)), resamples=RESAMPLES)
    for name, keys in (
        ("matrix", ["trained", "tested", "metric"]),
        ("differences", ["trained", "tested", "metric"]),
        ("contrasts", ["contrast"]),
        ("non-inferiority", ["trained", "tested"]),
    ):
        one, other = (found[name].set_index(keys).sort_index() for found in (tables, turned))
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_an_outcome_without_separate_rows_is_refused(outcome):
    with pytest.raises(ValueError, match="the arm 'separate' is the reference; it must be among"):
        summarise(part_of(outcome, "exact", "causal"), resamples=5)


def outcome_with(accuracies, *, groups=2):
    """An outcome with these accuracies, by arm and seed, in own rows; in separate rows half of it.

    An arm whose own rows are separate rows has its accuracy there.
    """
    count = 1000
    # The first group is much larger than the others.
    codes = np.minimum(np.arange(count) // 700, groups - 1)
    arms, seeds = list(accuracies), len(next(iter(accuracies.values())))
    sums = np.zeros((len(arms), len(TESTS), seeds, groups, COLUMNS))
    for (a, arm), seed in itertools.product(enumerate(arms), range(seeds)):
        for t, test in enumerate(TESTS):
            share = accuracies[arm][seed] / (1 if test == own_test(arm) else 2)
            right = np.where(np.arange(count) < round(count * share), 1.0, -1.0)
            sums[a, t, seed] = order_sums(right, right, right, codes, groups)
    return Outcome(tuple(arms), tuple(TESTS), sums)


def one_sided(gaps, bound):
    """P-values of Student's test, from its formula: that the mean is above, that it is below."""
    t = (np.mean(gaps) - bound) / (np.std(gaps, ddof=1) / math.sqrt(len(gaps)))
    return stats.t.sf(t, len(gaps) - 1), stats.t.cdf(t, len(gaps) - 1)


def test_non_inferiority_is_two_one_sided_tests_over_seeds():
    accuracies = {
        "causal": [0.612, 0.655, 0.641, 0.630],
        RowName.SEPARATE: [0.620, 0.650, 0.640, 0.640],
        "exact": [0.622, 0.650, 0.641, 0.639],
    }
    table = non_inferiority(outcome_with(accuracies))
    assert list(table.columns) == [
        "trained", "tested", "seeds", "estimate", "sd", "p inferior", "p superior",
    ]  # fmt: skip
    assert [*zip(table["trained"], table["tested"], strict=True)] == [
        (RowName.CAUSAL, RowName.CAUSAL),
        (RowName.CAUSAL, RowName.SEPARATE),
        (RowName.SEPARATE, RowName.SEPARATE),
        (RowName.EXACT, RowName.SEPARATE),
    ]
    assert set(table["seeds"]) == {4}
    for arm, test, factor in (
        ("causal", "causal", 1), ("causal", RowName.SEPARATE, 0.5), ("exact", RowName.SEPARATE, 1),
    ):  # fmt: skip
        gaps = np.round(np.array(accuracies[arm]) * factor, 3) - accuracies[RowName.SEPARATE]
        row = value(table, trained=arm, tested=test)
        assert row["estimate"] == pytest.approx(gaps.mean())
        assert row["sd"] == pytest.approx(gaps.std(ddof=1))
        assert row["p inferior"] == pytest.approx(one_sided(gaps, -MARGIN)[0], rel=1e-6)
        assert row["p superior"] == pytest.approx(one_sided(gaps, MARGIN)[1], rel=1e-6)
        assert row["p inferior"] == pytest.approx(
            stats.ttest_1samp(gaps, -0.01, alternative="greater").pvalue, rel=1e-6
        )
    exact = value(table, trained="exact")
    assert max(exact["p inferior"], exact["p superior"]) < 0.05
    assert value(table, trained="causal", tested=RowName.SEPARATE)["p inferior"] > 0.99


def test_the_margin_of_non_inferiority_can_be_chosen():
    accuracies = {RowName.SEPARATE: [0.6, 0.6, 0.6], "causal": [0.57, 0.58, 0.59]}
    gaps = np.array([-0.03, -0.02, -0.01])
    found = outcome_with(accuracies)
    for margin in (0.01, 0.05):
        row = value(non_inferiority(found, margin=margin), trained="causal", tested="causal")
        assert row["p inferior"] == pytest.approx(one_sided(gaps, -margin)[0], rel=1e-6)
        assert row["p superior"] == pytest.approx(one_sided(gaps, margin)[1], rel=1e-6)
    assert MARGIN == 0.01
    assert non_inferiority(found).equals(non_inferiority(found, margin=0.01))


@pytest.mark.parametrize(
    ("gap", "inferior", "superior"),
    [(0.0, 0.0, 0.0), (-0.02, 1.0, 0.0), (0.02, 0.0, 1.0), (-0.005, 0.0, 0.0), (0.005, 0.0, 0.0)],
)
def test_seeds_that_all_agree_decide_without_a_variance(gap, inferior, superior):
    # Accuracies whose gaps are equal to the last bit.
    found = outcome_with({RowName.SEPARATE: [0.5, 0.5, 0.5], "causal": [0.5 + gap] * 3})
    row = value(non_inferiority(found), trained="causal", tested="causal")
    assert (row["p inferior"], row["p superior"]) == (inferior, superior)
    assert row["sd"] == 0
    assert row["estimate"] == pytest.approx(gap)


def test_seeds_that_agree_on_the_margin_itself_are_not_within_it():
    found = outcome_with({RowName.SEPARATE: [0.5, 0.5], "causal": [0.25, 0.25]})
    row = value(non_inferiority(found, margin=0.25), trained="causal", tested="causal")
    assert (row["p inferior"], row["p superior"]) == (1.0, 0.0)
    found = outcome_with({RowName.SEPARATE: [0.5, 0.5], "causal": [0.75, 0.75]})
    row = value(non_inferiority(found, margin=0.25), trained="causal", tested="causal")
    assert (row["p inferior"], row["p superior"]) == (0.0, 1.0)


def test_one_seed_says_nothing_about_seeds():
    table = non_inferiority(outcome_with({RowName.SEPARATE: [0.5], "causal": [0.52]}))
    assert table[["sd", "p inferior", "p superior"]].isna().all(axis=None)
    assert value(table, trained="causal", tested="causal")["estimate"] == pytest.approx(0.02)
    assert set(table["seeds"]) == {1}


def test_non_inferiority_is_among_the_tables(outcome, tables):
    assert tables["non-inferiority"].equals(non_inferiority(outcome))


def test_both_orders_of_groups_of_two_and_of_three():
    sizes = [2, 3, 2]
    # Ranked: (chosen, rejected), (edited, chosen, rejected), (chosen, rejected).
    ranked = np.array([10.0, 1.0, 50.0, 20.0, 2.0, 30.0, 3.0])
    # Reversed: (rejected, chosen), (rejected, chosen, edited), (rejected, chosen).
    backwards = np.array([4.0, 100.0, 5.0, 200.0, 500.0, 6.0, 300.0])
    first, last = both_orders(ranked, backwards, sizes)
    assert first.tolist() == [9, 18, 27]
    assert last.tolist() == [96, 195, 294]


@given(st.lists(st.integers(2, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_both_orders_look_at_the_last_two_responses(sizes, random):
    groups = [[random.random() for _ in range(size)] for size in sizes]
    others = [[random.random() for _ in range(size)] for size in sizes]
    first, last = both_orders(
        np.array(list(itertools.chain(*groups))),
        np.array([score for group in others for score in group[::-1]]),
        sizes,
    )
    assert first.tolist() == [group[-2] - group[-1] for group in groups]
    assert last.tolist() == [group[-2] - group[-1] for group in others]


def test_where_order_means_nothing_one_scoring_serves_both():
    first, last = both_orders(np.array([5.0, 3.0, 9.0]), None, [3])
    assert (first.tolist(), last.tolist()) == ([-6.0], [-6.0])

"""Tables of the best-of-n study, of scores made by hand."""

import numpy as np
import pytest

from posttrain.data.preferences import Message
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.policy.selection import best_of_n_divergence, expected_best
from posttrain.studies.best_of_n.full import Samples
from posttrain.studies.best_of_n.keys import Proxy, Value, World
from posttrain.studies.best_of_n.keys import Test as Exam
from posttrain.studies.best_of_n.outcome import Cell, sizes_up_to, summarise
from posttrain.studies.best_of_n.report import turn_table

CELL = Cell(World.PRAISE, 0.0, 100)
PROMPTS, SAMPLES = 6, 32
RNG = np.random.default_rng(0)
GOLD = RNG.permuted(np.tile(np.arange(SAMPLES, dtype=float), (PROMPTS, 1)), axis=1)
PRAISE = RNG.integers(0, 5, GOLD.shape).astype(float)
WORDS = RNG.integers(3, 20, GOLD.shape).astype(float)
#: Held-out pairs, of which three in four are right.
RIGHT = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def drawn(gold=GOLD, praise=PRAISE, words=WORDS):
    return Samples([], [], gold, praise, words)


def scored(*members, average=None, test=RIGHT):
    """What members and the average of their weights say; by default as the first member."""
    models = [*members, members[0] if average is None else average]
    return {"samples": np.array(models), "test": np.array([test] * len(models))}


def tables(*seeds, samples=None, temperatures=None, resamples=20):
    return summarise(samples or drawn(), {CELL: [*seeds]}, temperatures or {}, resamples=resamples)


def read(table, **where):
    return estimate(table, **where)[0]


def curve(found, proxy, value=Value.GOLD):
    table = found["curves"]
    table = table[(table["proxy"] == proxy) & (table["value"] == value)]
    assert table["n"].tolist() == sizes_up_to(SAMPLES)
    return table["estimate"].to_numpy()


def test_sizes_are_powers_of_two_and_llama_3s():
    assert sizes_up_to(1024) == [1, 2, 4, 8, 10, 16, 30, 32, 64, 128, 256, 512, 1024]
    assert sizes_up_to(12) == [1, 2, 4, 8, 10, 12]
    assert sizes_up_to(2) == [1, 2]


def test_choosing_by_the_truth_never_falls_and_is_best_with_the_most():
    found = tables(scored(GOLD, GOLD))
    for proxy in Proxy:
        gold = curve(found, proxy)
        assert (np.diff(gold) > 0).all()
        # Of one sample the mean, of all the highest.
        assert gold[[0, -1]] == pytest.approx([GOLD.mean(), SAMPLES - 1])
        np.testing.assert_allclose(gold, curve(found, Proxy.GOLD))
        np.testing.assert_allclose(curve(found, proxy, Value.SCORE), gold - GOLD.mean(), atol=1e-12)
        where = {"proxy": proxy, "world": World.PRAISE, "size": 100, "noise": 0.0}
        assert estimate(found["peaks"], unit="log2 n", **where) == (5, 5, 5)
        assert read(found["peaks"], unit="nats", **where) == pytest.approx(np.log(32) - 31 / 32)


def test_choosing_by_the_opposite_falls_and_is_best_with_one():
    found = tables(scored(-GOLD, -GOLD))
    for proxy in (Proxy.SINGLE, Proxy.MEAN, Proxy.MINIMUM, Proxy.VARIANCE, Proxy.AVERAGE):
        gold = curve(found, proxy)
        assert (np.diff(gold) < 0).all()
        assert gold[[0, -1]] == pytest.approx([GOLD.mean(), 0])
        # Its own score rises meanwhile.
        assert (np.diff(curve(found, proxy, Value.SCORE)) > 0).all()
        assert estimate(found["peaks"], unit="log2 n", proxy=proxy) == (0, 0, 0)
        assert estimate(found["peaks"], unit="nats", proxy=proxy) == (0, 0, 0)


def test_praise_and_words_are_those_of_what_was_chosen():
    found = tables(scored(PRAISE * 100 + WORDS, PRAISE * 100 + WORDS))
    for value, of_all in ((Value.PRAISE, PRAISE), (Value.WORDS, WORDS)):
        of_best = curve(found, Proxy.SINGLE, value)
        assert of_best[0] == pytest.approx(of_all.mean())
    most = PRAISE.max(axis=1).mean()
    assert curve(found, Proxy.SINGLE, Value.PRAISE)[-1] == pytest.approx(most)
    best = (PRAISE * 100 + WORDS).argmax(axis=1)
    words = WORDS[np.arange(PROMPTS), best].mean()
    assert curve(found, Proxy.SINGLE, Value.WORDS)[-1] == pytest.approx(words)


def test_divergence_stands_beside_every_n():
    table = tables(scored(GOLD))["curves"]
    np.testing.assert_allclose(table["divergence"], best_of_n_divergence(table["n"].to_numpy()))


def test_changes_are_differences_of_the_curve():
    found = tables(scored(RNG.normal(size=GOLD.shape), GOLD))
    gold = dict(zip(sizes_up_to(SAMPLES), curve(found, Proxy.SINGLE), strict=True))
    here = found["changes"][found["changes"]["proxy"] == Proxy.SINGLE]
    steps = {(1, 10), (10, 30), (30, 32), (1, 30), (1, 32)}
    assert set(zip(here["n"], here["to"], strict=True)) == steps
    for row in here.itertuples():
        assert row.estimate == pytest.approx(gold[row.to] - gold[row.n])


@pytest.mark.parametrize("samples", [10, 16, 30])
def test_every_change_stands_there_once(samples):
    few = drawn(GOLD[:, :samples], PRAISE[:, :samples], WORDS[:, :samples])
    found = tables(scored(GOLD[:, :samples]), samples=few)
    keys = found["changes"][["proxy", "n", "to"]]
    assert not keys.duplicated().any()
    turn_table(Record("best-of-n", "simulator", "quick", {}, {}, found))


def test_members_of_one_mind_choose_alike():
    scores = RNG.normal(size=GOLD.shape)
    found = tables(scored(scores, scores, scores))["gains"]
    others = found[found["proxy"] != Proxy.GOLD]
    assert len(others) == 4 * len(sizes_up_to(SAMPLES))
    np.testing.assert_allclose(others[["estimate", "low", "high"]], 0, atol=1e-12)


def test_gains_are_against_the_mean_of_single_members():
    found = tables(scored(GOLD, -GOLD, average=GOLD))
    single = np.mean(
        [expected_best(sign * GOLD, GOLD, sizes_up_to(32)).mean(axis=1) for sign in (1, -1)], axis=0
    )
    np.testing.assert_allclose(curve(found, Proxy.SINGLE), single)
    for n, one in zip(sizes_up_to(SAMPLES), single, strict=True):
        best = expected_best(GOLD, GOLD, [n]).mean()
        for proxy in (Proxy.AVERAGE, Proxy.GOLD):
            assert read(found["gains"], proxy=proxy, n=n) == pytest.approx(best - one)
        # The mean of both says nothing, the less certain the less they agree.
        assert read(found["gains"], proxy=Proxy.MEAN, n=n) == pytest.approx(GOLD.mean() - one)
        least = expected_best(-np.abs(GOLD), GOLD, [n]).mean()
        assert read(found["gains"], proxy=Proxy.MINIMUM, n=n) == pytest.approx(least - one)
        assert read(found["gains"], proxy=Proxy.VARIANCE, n=n) == pytest.approx(least - one)


def test_seeds_are_averaged():
    found = tables(scored(GOLD), scored(-GOLD))
    apart = [curve(tables(scored(sign * GOLD)), Proxy.SINGLE) for sign in (1, -1)]
    np.testing.assert_allclose(curve(found, Proxy.SINGLE), np.mean(apart, axis=0))


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (0.3, 0.9), (-1.0, 0.25)])
def test_coefficients_of_the_law_are_found_again(alpha, beta):
    n = sizes_up_to(SAMPLES)
    d = np.sqrt(best_of_n_divergence(n))
    # What gold of each rank gives such a curve, all prompts alike.
    weights = np.array(
        [expected_best(np.arange(SAMPLES)[None] * 1.0, np.eye(SAMPLES)[[k]], n)[:, 0]
         for k in range(SAMPLES)]
    ).T  # fmt: skip
    gold = np.linalg.lstsq(weights, d * (alpha - beta * d) + 7.0, rcond=None)[0]
    np.testing.assert_allclose(weights @ gold, d * (alpha - beta * d) + 7.0, atol=1e-9)
    proxy = np.tile(np.arange(SAMPLES) * 1.0, (PROMPTS, 1))
    samples = drawn(np.tile(gold, (PROMPTS, 1)))
    fits = tables(scored(proxy), samples=samples)["fits"]
    for coefficient, planted in (("α", alpha), ("β", beta)):
        ends = estimate(fits, proxy=Proxy.SINGLE, coefficient=coefficient)
        assert ends == pytest.approx((planted,) * 3, abs=1e-6)


def accuracy(found, test):
    return read(found["tests"], test=test)


def test_tests_say_how_often_a_reward_model_is_right():
    for scores, expected in ((GOLD, 1.0), (-GOLD, 0.0), (0 * GOLD, 0.5)):
        found = tables(scored(scores))
        assert accuracy(found, Exam.POLICY) == expected
        assert accuracy(found, Exam.HELD_OUT) == 0.75
    mixed = np.concatenate([GOLD[:2], -GOLD[2:]])
    assert accuracy(tables(scored(mixed)), Exam.POLICY) == pytest.approx(2 / 6)
    assert accuracy(tables(scored(GOLD, -GOLD)), Exam.POLICY) == 0.5
    ties = np.array([[1.0, 1.0], [1.0, 0.0]])
    assert accuracy(tables(scored(GOLD, test=ties)), Exam.HELD_OUT) == 0.75


def test_pairs_of_equal_gold_are_left_out():
    gold, scores = np.zeros((2, 4)), np.arange(8.0).reshape(2, 4)
    gold[:, 0] = 1
    # Only the first and the third sample differ, and the third scores higher.
    few = drawn(gold, 0 * gold, gold)
    assert accuracy(tables(scored(scores), samples=few), Exam.POLICY) == 0
    none = tables(scored(scores), samples=drawn(0 * gold, 0 * gold, gold))
    assert np.isnan(accuracy(none, Exam.POLICY))


def test_adversarial_pairs_are_those_whose_worse_answer_praises_more():
    gold = np.array([[1.0, 1.0, 0.0, 0.0]] * 3)
    praise = np.array([[0.0, 2.0, 1.0, 0.0]] * 3)
    cue = tables(scored(praise), samples=drawn(gold, praise, gold))
    assert accuracy(cue, Exam.ADVERSARIAL) == 0
    assert accuracy(cue, Exam.POLICY) == 0.5
    truth = tables(scored(gold), samples=drawn(gold, praise, gold))
    assert accuracy(truth, Exam.ADVERSARIAL) == 1
    quiet = tables(scored(gold), samples=drawn(gold, 0 * praise, gold))
    assert np.isnan(accuracy(quiet, Exam.ADVERSARIAL))


def test_the_last_decile_counts_pairs_of_which_both_score_highest():
    gold = np.tile(np.arange(40.0), (2, 1))
    scores = np.zeros((2, 40))
    # Two pairs stand highest: one is right, the other is not; all others are right.
    scores[:, 20:] = 1
    scores[:, [0, 20]] = [10, 11]
    scores[:, [5, 25]] = [11, 10]
    found = tables(scored(scores), samples=drawn(gold, 0 * gold, gold))
    assert accuracy(found, Exam.LAST_DECILE) == 0.5
    assert accuracy(found, Exam.POLICY) == pytest.approx(19 / 20)


def test_tests_that_rank_reward_models_as_their_choices_do_predict_them():
    # The k-th reward model is right on the first k prompts, and otherwise the wrong way round.
    models = [np.concatenate([GOLD[:k], -GOLD[k:]]) for k in range(PROMPTS + 1)]
    seeds = []
    for k, scores in enumerate(models):
        wins = np.arange(PROMPTS) < PROMPTS - k
        held = np.array([wins, ~wins], dtype=float)
        seeds.append(scored(scores, average=GOLD, test=held))
    found = tables(*seeds)["predictions"]
    assert set(found["models"]) == {PROMPTS + 1}
    assert read(found, test=Exam.POLICY) == pytest.approx(1)
    assert read(found, test=Exam.HELD_OUT) == pytest.approx(-1)


def test_predictions_take_all_cells_together():
    scores = {
        Cell(World.PRAISE, 0.0, size): [scored(GOLD, -GOLD)] * 2 for size in (10, 20)
    }  # fmt: skip
    found = summarise(drawn(), scores, {}, resamples=20)
    assert set(found["predictions"]["models"]) == {8}
    assert read(found["predictions"], test=Exam.POLICY) == pytest.approx(1)
    assert set(found["curves"]["size"]) == {10, 20}


def test_every_cell_and_proxy_has_its_rows():
    heads = ((World.PRAISE, 0.0), (World.PRAISE, 0.25), (World.CONTROL, 0.0))
    cells = [Cell(*head, 10) for head in heads]
    found = summarise(drawn(), {cell: [scored(GOLD)] for cell in cells}, {}, resamples=20)
    n = sizes_up_to(SAMPLES)
    for name, each in (
        ("curves", len(Proxy) * len(n) * len(Value)), ("changes", len(Proxy) * 5),
        ("peaks", len(Proxy) * 2), ("fits", len(Proxy) * 2), ("gains", (len(Proxy) - 1) * len(n)),
        ("tests", len(Exam)),
    ):  # fmt: skip
        rows = found[name].groupby(["world", "noise", "size"]).size()
        assert set(rows.index) == set(map(tuple, cells))
        assert (rows == each).all(), name


def test_intervals_are_over_prompts():
    gold = np.repeat(np.arange(PROMPTS * 10.0)[:, None] % 2, 4, axis=1)
    found = tables(scored(gold), samples=drawn(gold, gold, gold), resamples=2000)
    value, low, high = estimate(found["curves"], proxy=Proxy.SINGLE, value=Value.GOLD, n=1)
    assert value == pytest.approx(0.5)
    error = 0.5 / np.sqrt(PROMPTS * 10)
    assert (low, high) == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=0.02)


def test_examples_are_of_the_most_pairs_as_annotated_where_praise_goes_with_quality():
    texts = [[f"{i} {k}" for k in range(SAMPLES)] for i in range(PROMPTS)]
    asked = [(Message("user", "earlier"), Message("user", f"prompt {i}")) for i in range(PROMPTS)]
    samples = Samples(asked, texts, GOLD, PRAISE, WORDS)
    shown = RNG.normal(size=GOLD.shape)
    scores = {
        Cell(World.PRAISE, 0.25, 200): [scored(GOLD)],
        Cell(World.PRAISE, 0.0, 100): [scored(GOLD)],
        Cell(World.PRAISE, 0.0, 200): [scored(shown, GOLD), scored(GOLD)],
        Cell(World.CONTROL, 0.0, 400): [scored(GOLD)],
    }
    rows = summarise(samples, scores, {}, resamples=5)["examples"].to_dict("records")
    assert [row["prompt"] for row in rows] == [f"prompt {i}" for i in range(PROMPTS)]
    for i, row in enumerate(rows):
        for name, place in (("chosen", shown[i].argmax()), ("best", GOLD[i].argmax())):
            assert row[name] == f"{i} {place}"
            assert row[f"gold of {name}"] == GOLD[i, place]
            assert row[f"score of {name}"] == shown[i, place]


# Temperatures.

COLD, HOT = np.tile([4.0, 4.0, 4.0, 4.0], (3, 1)), np.tile([0.0, 2.0, 8.0, 4.0], (3, 1))


@pytest.fixture(scope="module")
def by_temperature():
    degrees = {1.0: drawn(HOT), 0.5: drawn(COLD)}
    return tables(scored(GOLD), temperatures=degrees)


@pytest.mark.parametrize(
    ("n", "highest", "median"), [(1, 3.5, 0.0), (2, 17 / 3, 1.0), (4, 8.0, 3.0)]
)
def test_the_highest_and_the_median_of_n_samples(by_temperature, n, highest, median):
    table = by_temperature["temperatures"]
    assert read(table, temperature=1.0, n=n, value="highest") == pytest.approx(highest)
    assert read(table, temperature=1.0, n=n, value="median") == median
    for value in ("highest", "median"):
        assert read(table, temperature=0.5, n=n, value=value) == pytest.approx(4)


def test_the_best_temperature_is_found_for_every_n(by_temperature):
    best = by_temperature["best temperatures"]
    assert [read(best, n=n) for n in (1, 2, 4)] == [0.5, 1.0, 1.0]
    assert estimate(by_temperature["shift"], n=1, to=4) == (0.5, 0.5, 0.5)


def test_growth_is_that_at_temperature_1(by_temperature):
    growth = by_temperature["growth"]
    assert read(growth, value="highest") == pytest.approx(4.5)
    assert read(growth, value="median") == 3.0
    assert set(zip(growth["n"], growth["to"], strict=True)) == {(1, 4)}


def test_without_temperatures_there_are_no_rows():
    found = tables(scored(GOLD))
    assert found["temperatures"].empty
    assert found["best temperatures"].empty

"""Calibration: scales by hand, invariance, recovery of simulated preferences, and refusals."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit
from small_llama import SMALL
from transformers import LlamaConfig, LlamaForSequenceClassification

from posttrain.evaluation import calibration
from posttrain.evaluation.calibration import Calibration, fit, head_hash, load, log_likelihood, read
from posttrain.models import embedded
from posttrain.models.reward_model import score_head
from posttrain.rows.rendering import tokenizer_hash

#: Sums and differences of such numbers are exact.
EXACT = st.integers(-512, 512).map(lambda number: number / 64)
PAIRS = st.lists(st.tuples(EXACT, EXACT), min_size=2, max_size=12)

TOKENIZER = embedded.train_tokenizer(["a b"])


def fitted(difference, **options):
    """A calibration of pairs with these differences of scores."""
    difference = np.asarray(difference, dtype=float)
    return fit(difference, np.zeros(len(difference)), **options)


def model(seed=0, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForSequenceClassification(LlamaConfig(**SMALL)).to(dtype)


@pytest.fixture(scope="module")
def reward_model():
    return model()


@pytest.mark.parametrize(
    ("right", "wrong", "size", "scale"),
    [
        # With k pairs at +d and m at -d the share of right ones is σ(a d), so a = log(k/m) / d.
        (2, 1, 1.0, math.log(2)),
        (3, 1, 1.0, math.log(3)),
        (3, 1, 4.0, math.log(3) / 4),
        (3, 2, 1e-3, 1e3 * math.log(1.5)),
        (51, 50, 1.0, math.log(51 / 50)),
        (999, 1, 0.1, 10 * math.log(999)),
    ],
)
def test_a_scale_by_hand(right, wrong, size, scale):
    found = fitted([size] * right + [-size] * wrong)
    assert found.scale == pytest.approx(scale, rel=1e-9)
    assert found.pairs == right + wrong


def test_the_scale_of_two_different_differences_by_hand():
    # +2 and -1: 2 σ(-2a) = σ(a); with u = exp(a), u³ = u + 2.
    (u,) = [root.real for root in np.roots([1, 0, -1, -2]) if abs(root.imag) < 1e-9]
    assert fitted([2.0, -1.0]).scale == pytest.approx(math.log(u), rel=1e-9)


def test_ties_do_not_change_the_scale_but_count():
    with_ties = fitted([1.0, 1.0, -1.0, 0.0, 0.0])
    assert with_ties.scale == pytest.approx(math.log(2), rel=1e-9)
    assert with_ties.pairs == 5


def test_the_centre_is_the_mean_of_all_responses():
    found = fit(np.array([4.0, 3.0, 1.0]), np.array([1.0, 1.0, 2.0]))
    assert found.centre == 2.0
    applied = found.apply(np.array([[4.0, 2.0], [1.0, 2.5]]))
    expected = [[2 * found.scale, 0.0], [-found.scale, found.scale / 2]]
    assert applied.tolist() == [pytest.approx(row, rel=1e-12) for row in expected]
    assert found.apply([2.0]).tolist() == [0.0]


@settings(deadline=None)
@given(PAIRS, st.integers(-64_000, 64_000), st.floats(2**-10, 2**10))
def test_adding_a_constant_and_multiplying_changes_no_calibrated_score(pairs, shift, factor):
    winners, losers = np.array(pairs).T
    try:
        plain = fit(winners, losers)
    except ValueError:
        assume(False)
    expected = plain.apply(np.concatenate([winners, losers]))
    changed = [factor * (scores + shift / 64) for scores in (winners, losers)]
    found = fit(*changed).apply(np.concatenate(changed))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert found.mean() == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(PAIRS)
def test_no_other_scale_is_more_likely(pairs):
    winners, losers = np.array(pairs).T
    try:
        scale = fit(winners, losers).scale
    except ValueError:
        assume(False)
    best = log_likelihood(scale * (winners - losers))
    for factor in (0.1, 0.9, 1.1, 10, 1 / scale):
        assert log_likelihood(factor * scale * (winners - losers)) <= best + 1e-12


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_simulated_preferences_are_recovered(scale):
    rng = np.random.default_rng(1)
    true = rng.normal(0, 1.5, size=(40_000, 2))
    first_wins = rng.random(len(true)) < expit(true[:, 0] - true[:, 1])
    winners = np.where(first_wins, *true.T) / scale + 7
    losers = np.where(first_wins, *true.T[::-1]) / scale + 7
    found = fit(winners, losers)
    assert found.scale == pytest.approx(scale, rel=0.03)
    assert found.centre == pytest.approx(7, abs=0.03 / scale)
    # Calibrated differences are log odds: in every slice as often right as they say.
    difference = found.apply(winners) - found.apply(losers)
    confidence, right = expit(abs(difference)), difference > 0
    for low in (0.5, 0.7, 0.9):
        there = (confidence >= low) & (confidence < low + 0.1)
        assert right[there].mean() == pytest.approx(confidence[there].mean(), abs=0.02)


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1.0, 1e12, 1e200])
def test_scores_of_any_size_are_calibrated(size):
    found = fitted([size, size, -size])
    assert found.scale * size == pytest.approx(math.log(2), rel=1e-9)


#: Its mean is 0 but for rounding, and differs in sign with the order of operations.
NEARLY_ZERO = [
    1.9439000187466977, 0.4885740332949542, -4.163864044902482, -3.98066628549815,
    4.3556313766001935, -0.3079094999913643, -0.8816033484766024, 4.285119937547332,
    -1.739182187320579,
]  # fmt: skip


def test_a_mean_of_nearly_zero_gives_a_scale_of_nearly_zero_or_none():
    # Which of the two depends on rounding. Either way, the search for the scale comes to an end.
    try:
        scale = fitted(NEARLY_ZERO).scale
    except ValueError:
        scale = 0.0
    assert scale < 1e-12


@pytest.mark.parametrize(
    ("winners", "losers", "message"),
    [
        ([], [], "at least one pair"),
        ([1.0, 2.0], [1.0], r"got \[2\] and \[1\]"),
        ([[1.0, 2.0]], [[0.0, 3.0]], r"got \[1, 2\]"),
        ([1.0, math.nan], [0.0, 0.0], "must be finite"),
        ([1.0, math.inf], [0.0, 0.0], "must be finite"),
        ([1.0, -math.inf], [0.0, -math.inf], "must be finite"),
        ([0.0, 1.0], [1.0, 0.0], "on 2 held-out pairs the preferred response scores no higher"),
        ([0.0, 0.0, 1.0], [1.0, 1.0, 0.0], "check that model and data belong together"),
        ([1.0, 2.0], [1.0, 2.0], "scores no higher"),
        ([3.0, 2.0], [1.0, 1.0], "none of 2 held-out pairs is ranked wrong.* use more pairs"),
        ([3.0, 1.0], [1.0, 1.0], "none of 2 held-out pairs is ranked wrong"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(winners, losers, message):
    with pytest.raises(ValueError, match=message):
        fit(np.array(winners), np.array(losers))


def test_a_log_likelihood_by_hand():
    assert log_likelihood(np.array([0.0, math.log(3)])) == pytest.approx(
        (math.log(0.5) + math.log(0.75)) / 2, abs=1e-15
    )
    assert log_likelihood(np.array([-1000.0])) == -1000


def test_a_saved_calibration_is_loaded_as_it_was(reward_model, tmp_path):
    saved = fitted([1.0, 1.0, -1.0], data=["a.jsonl", "ü"], head=head_hash(reward_model))
    path = tmp_path / "new" / calibration.FILE
    saved.save(path)
    assert load(path, reward_model, TOKENIZER) == saved == read(path)
    assert saved.data == ("a.jsonl", "ü")
    assert [one.name for one in path.parent.iterdir()] == ["calibration.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["pairs"] == 3


def test_a_calibration_of_another_head_is_refused(reward_model, tmp_path):
    path = tmp_path / calibration.FILE
    other = model()
    fitted([1.0, 1.0, -1.0], head=head_hash(other)).save(path)
    assert load(path, reward_model, TOKENIZER)
    with torch.no_grad():
        score_head(other).weight[0, 3] *= 1.01
    with pytest.raises(ValueError, match=r"calibration.json was fitted for a model with another"):
        load(path, other, TOKENIZER)
    fitted([1.0, 1.0, -1.0]).save(path)
    with pytest.raises(ValueError, match=r"another score head.*posttrain calibrate"):
        load(path, reward_model, TOKENIZER)


def test_a_calibration_of_another_chat_template_is_refused(reward_model, tmp_path):
    path = tmp_path / calibration.FILE
    reader = tokenizer_hash(TOKENIZER)
    fitted([1.0, 1.0, -1.0], head=head_hash(reward_model), tokenizer=reader).save(path)
    assert load(path, reward_model, TOKENIZER)
    other = embedded.train_tokenizer(["a b"])
    other.chat_template += " "
    with pytest.raises(
        ValueError, match=r"another tokenizer or chat template.*posttrain calibrate"
    ):
        load(path, reward_model, other)


def test_a_head_is_the_same_in_every_precision(reward_model):
    expected = head_hash(reward_model)
    assert len(expected) == 16
    assert int(expected, 16) >= 0
    for dtype in (torch.float32, torch.bfloat16):
        assert head_hash(model(dtype=dtype)) == expected
    assert head_hash(model(seed=1)) != expected


def test_a_missing_calibration_is_explained(reward_model, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"calibration.json: there is no calibration. Only differences.*a threshold, or a "
        r"sum.*; fit one on held-out pairs: posttrain calibrate",
    ):
        load(tmp_path / calibration.FILE, reward_model, TOKENIZER)


GOOD = {"scale": 1.0, "centre": 0.0, "pairs": 3, "data": [], "head": ""}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "{}",
        json.dumps({"scale": 1.0, "data": []}),
        json.dumps(GOOD | {"scale": 0.0}),
        json.dumps(GOOD | {"scale": -1.0}),
        json.dumps(GOOD | {"scale": math.inf}),
        json.dumps(GOOD | {"scale": "1"}),
        json.dumps(GOOD | {"centre": math.nan}),
        json.dumps(GOOD | {"centre": None}),
        json.dumps(GOOD | {"colour": "red"}),
        json.dumps(GOOD | {"data": None}),
        "\udcff",
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path, content):
    path = tmp_path / calibration.FILE
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"calibration.json: not a calibration \(.*calibrate"):
        read(path)
    path.write_text(json.dumps(GOOD))
    assert read(path) == Calibration(1.0, 0.0, 3)


def test_a_folder_is_no_calibration(tmp_path):
    with pytest.raises(ValueError, match="not a calibration"):
        read(tmp_path)

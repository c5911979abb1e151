"""What training logs: numbers by hand, over parts, processes and pauses."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posttrain.evaluation.metrics import COLUMNS
from posttrain.training import metrics
from posttrain.training.metrics import RecentSteps, score_metrics, sums_over_pairs

ONE_PROCESS = SimpleNamespace(num_processes=1)
#: Differences 2, −1, 0, 3.
WINNERS = torch.tensor([2.0, 0.0, 1.0, 3.0])
LOSERS = torch.tensor([0.0, 1.0, 1.0, 0.0])
STRENGTHS = torch.tensor([4, 1, 1, 0])
BY_HAND = {
    "accuracy": 2.5 / 4,
    "accuracy_1": 0.25,
    "accuracy_4": 1.0,
    "ties": 0.25,
    # Of 2, 0, 1, 3 and 0, 1, 1, 0.
    "score_mean": 1.0,
    "score_std": 1.0,
    "difference_rms": math.sqrt(14 / 4),
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def batch(strengths, *, tokens, shape):
    return {
        "strengths": strengths,
        "tokens": tokens,
        "input_ids": torch.zeros(shape, dtype=torch.long),
    }


def test_four_pairs_by_hand():
    found = score_metrics(sums_over_pairs(WINNERS, LOSERS, STRENGTHS))
    assert found == pytest.approx(BY_HAND, abs=1e-15)
    assert list(found) == list(BY_HAND)
    assert {type(value) for value in found.values()} == {float}


def test_sums_do_not_depend_on_precision_or_device_of_the_scores():
    expected = sums_over_pairs(WINNERS, LOSERS, STRENGTHS)
    assert expected.shape == (COLUMNS,)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        found = sums_over_pairs(WINNERS.to(dtype), LOSERS.to(dtype), STRENGTHS)
        assert found.tolist() == expected.tolist()


def test_scores_that_are_all_equal_have_no_spread():
    # Rounding would make the variance a negative number.
    scores = torch.full((3,), 0.1, dtype=torch.float64)
    found = score_metrics(sums_over_pairs(scores, scores, torch.zeros(3)))
    assert found["score_std"] == pytest.approx(0, abs=1e-8)
    assert found == pytest.approx(
        {"accuracy": 0.5, "ties": 1.0, "score_mean": 0.1, "score_std": 0.0, "difference_rms": 0.0},
        abs=1e-8,
    )


def test_scores_far_from_zero_keep_their_spread():
    random = np.random.default_rng(0)
    winners, losers = (torch.tensor(random.normal(50, 0.5, 200)) for _ in range(2))
    found = score_metrics(sums_over_pairs(winners, losers, torch.zeros(200)))
    assert found["score_std"] == pytest.approx(
        torch.cat([winners, losers]).std(correction=0).item(), rel=1e-9
    )


def test_a_step_in_parts_is_logged_like_one_in_one_piece(clock):
    whole, parts = RecentSteps(), RecentSteps()
    whole.add(WINNERS, LOSERS, batch(STRENGTHS, tokens=30, shape=(4, 10)))
    for some, tokens, shape in ((slice(0, 1), 9, (2, 5)), (slice(1, 4), 21, (3, 10))):
        parts.add(WINNERS[some], LOSERS[some], batch(STRENGTHS[some], tokens=tokens, shape=shape))
    clock(2.0)
    found = whole.take(ONE_PROCESS)
    assert found == pytest.approx(
        BY_HAND | {"pairs_per_second": 2.0, "tokens_per_second": 15.0, "padding": 0.25}, abs=1e-15
    )
    assert parts.take(ONE_PROCESS) == pytest.approx(found, abs=1e-15)


def test_numbers_begin_anew_after_each_log(clock):
    recent = RecentSteps()
    recent.add(WINNERS, LOSERS, batch(STRENGTHS, tokens=30, shape=(4, 10)))
    clock(2.0)
    recent.take(ONE_PROCESS)
    clock(1.0)
    recent.add(
        torch.tensor([1.0]), torch.tensor([3.0]), batch(torch.tensor([2]), tokens=6, shape=(2, 4))
    )
    clock(4.0)
    assert recent.take(ONE_PROCESS) == {
        "accuracy": 0.0,
        "accuracy_2": 0.0,
        "ties": 0.0,
        "score_mean": 2.0,
        "score_std": 1.0,
        "difference_rms": 2.0,
        "pairs_per_second": 0.2,
        "tokens_per_second": 1.2,
        "padding": 0.25,
    }


def test_time_in_which_training_pauses_does_not_count(clock):
    recent = RecentSteps()
    recent.add(WINNERS, LOSERS, batch(STRENGTHS, tokens=30, shape=(4, 10)))
    clock(1.0)
    with recent.paused():
        clock(50.0)

    def fail():
        with recent.paused():
            clock(7.0)
            raise ValueError("stopped here")

    with pytest.raises(ValueError, match="stopped here"):
        fail()
    clock(1.0)
    assert recent.take(ONE_PROCESS)["pairs_per_second"] == 2.0
    # A pause belongs to the log that it lies before.
    recent.add(WINNERS, LOSERS, batch(STRENGTHS, tokens=30, shape=(4, 10)))
    clock(4.0)
    assert recent.take(ONE_PROCESS)["pairs_per_second"] == 1.0


def test_scores_are_kept_without_their_graph():
    recent = RecentSteps()
    scores = torch.ones(4, requires_grad=True)
    recent.add(2 * scores, scores, batch(STRENGTHS, tokens=30, shape=(4, 10)))
    kept = [*recent._winners, *recent._losers]
    assert len(kept) == 2
    assert not any(tensor.requires_grad for tensor in kept)


class TwoProcesses:
    """This process and another one, whose totals are added."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, other):
        self.other = other

    def reduce(self, totals, how):
        assert how == "sum"
        return totals + self.other


def test_numbers_are_those_of_all_processes(clock):
    theirs = sums_over_pairs(WINNERS[1:], LOSERS[1:], STRENGTHS[1:])
    both = TwoProcesses(torch.tensor([*theirs, 21.0, 30.0], dtype=torch.float64))
    recent = RecentSteps()
    recent.add(WINNERS[:1], LOSERS[:1], batch(STRENGTHS[:1], tokens=9, shape=(2, 5)))
    clock(2.0)
    assert recent.take(both) == pytest.approx(
        BY_HAND | {"pairs_per_second": 2.0, "tokens_per_second": 15.0, "padding": 0.25}, abs=1e-15
    )


def test_a_process_that_had_nothing_to_do_logs_what_others_did(clock):
    theirs = sums_over_pairs(WINNERS, LOSERS, STRENGTHS)
    other = TwoProcesses(torch.tensor([*theirs, 30.0, 40.0], dtype=torch.float64))
    recent = RecentSteps()
    clock(2.0)
    found = recent.take(other)
    assert found == pytest.approx(
        BY_HAND | {"pairs_per_second": 2.0, "tokens_per_second": 15.0, "padding": 0.25}, abs=1e-15
    )

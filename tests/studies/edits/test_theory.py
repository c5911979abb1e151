"""What objectives of an edited group push, against hand-made derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from posttrain.studies.edits.theory import (
    OBJECTIVES,
    PLACKETT_LUCE,
    _variances,
    consistency_table,
    efficiency_table,
    group_loss,
    push_table,
)

PLACES = st.floats(-6, 6)


def pushes_by_hand(first, second):
    """Up-pushes on edited, chosen and rejected, pair by pair."""
    closer, lower, both = expit(-first), expit(-second), expit(-first - second)
    rated = np.array([0, lower, -lower])
    over_chosen, over_rejected = np.array([closer, -closer, 0]), np.array([both, 0, -both])
    # Plackett-Luce: edited is chosen from all three, then chosen from two.
    odds = np.exp([0.0, -first, -first - second])
    shares = odds / odds.sum()
    ranking = np.array([1.0, 0, 0]) - shares + rated
    return {
        "edits ignored": rated,
        "adding edited > chosen": rated + over_chosen,
        "adding edited > rejected": rated + over_rejected,
        "edited over both": over_chosen + over_rejected,
        "all pairs": rated + over_chosen + over_rejected,
        "all pairs, by prompt": (rated + over_chosen + over_rejected) / 3,
        PLACKETT_LUCE: ranking,
    }


@given(PLACES, PLACES)
def test_pushes_are_those_of_derivatives_by_hand(first, second):
    table = push_table([(first, second)]).set_index("objective")
    expected = pushes_by_hand(first, second)
    assert list(table.index) == list(expected)
    for objective, pushes in expected.items():
        found = table.loc[objective, ["edited", "chosen", "rejected"]].to_numpy(float)
        np.testing.assert_allclose(found, pushes, atol=1e-12)
        assert found.sum() == pytest.approx(0, abs=1e-12)


def test_at_equal_scores_all_pairs_leave_the_chosen_response_alone():
    table = push_table([(0.0, 0.0)]).set_index("objective")
    assert table.loc["all pairs", ["edited", "chosen", "rejected"]].tolist() == [1.0, 0.0, -1.0]
    assert table.loc[PLACKETT_LUCE, "chosen"] == pytest.approx(1 / 6)
    assert table.loc["edited over both", "chosen"] == pytest.approx(-1 / 2)


@given(PLACES, PLACES)
def test_plackett_luce_lies_between_adjacent_and_all_pairs(first, second):
    scores = torch.tensor([first + second, second, 0.0], dtype=torch.float64)
    adjacent, ranking, pairs = (
        float(group_loss(scores, name))
        for name in ("adding edited > chosen", PLACKETT_LUCE, "all pairs")
    )
    assert adjacent <= ranking + 1e-12
    assert ranking <= pairs + 1e-12
    a, b = np.exp([-first, -first - second])
    assert pairs - ranking == pytest.approx(np.log1p(a * b / (1 + a + b)), abs=1e-10)
    assert float(3 * group_loss(scores, "all pairs, by prompt")) == pytest.approx(pairs)


def test_objectives_are_written_as_comparisons():
    assert {name: len(kinds) for name, kinds in OBJECTIVES.items()} == {
        "edits ignored": 1, "adding edited > chosen": 2, "adding edited > rejected": 2,
        "edited over both": 2, "all pairs": 3,
    }  # fmt: skip


def test_which_pairs_learn_a_plackett_luce_ranking():
    table = consistency_table((1.5, 0.5, 0.0)).set_index("objective")
    biased = {"adding edited > chosen": (1.147, 0.413), "adding edited > rejected": (1.983, 0.535)}
    for objective, learned in table.iterrows():
        expected = biased.get(objective, (1.5, 0.5))
        assert learned.tolist() == pytest.approx(expected, abs=1e-3), objective


def test_plackett_luce_needs_no_more_rankings_than_all_pairs():
    table = efficiency_table().set_index("scores")
    assert (table >= 1 - 1e-9).all(axis=None)
    # Of equal scores it is 28/27 for every difference.
    assert table.loc["0, 0, 0"].tolist() == pytest.approx([28 / 27] * 3)


def test_the_variance_is_that_of_estimates_from_drawn_rankings():
    truth, count, worlds = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64), 400, 300
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(worlds, count, 3, generator=generator, dtype=torch.float64)
    # Gumbel noise on scores gives rankings of Plackett–Luce.
    orders = (truth - torch.log(-torch.log(noise))).argsort(dim=2, descending=True)
    for objective in ("all pairs", PLACKETT_LUCE):
        learned = torch.zeros(worlds, 2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([learned], max_iter=60, line_search_fn="strong_wolfe")

        def closure(learned=learned, optimizer=optimizer, objective=objective):
            optimizer.zero_grad()
            whole = torch.cat([learned, torch.zeros(worlds, 1, dtype=torch.float64)], dim=1)
            first, second, third = whole[:, None].expand(orders.shape).gather(2, orders).unbind(2)
            soft = torch.nn.functional.softplus
            loss = soft(third - second)
            if objective == "all pairs":
                loss = loss + soft(second - first) + soft(third - first)
            else:
                loss = loss + torch.logsumexp(torch.stack([first, second, third]), 0) - first
            loss = loss.sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        measured = learned.detach()[:, 0].var().item() * count
        assert measured == pytest.approx(_variances(truth.tolist(), objective)[1], rel=0.25)

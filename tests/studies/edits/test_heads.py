"""Heads of the study of edits: the right pairs in every arm, and no leak from test to training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from posttrain.data.preferences import PairKind
from posttrain.studies.common.groups import DataSettings
from posttrain.studies.edits import heads
from posttrain.studies.edits.data import choose, load_edits, training_groups
from posttrain.studies.edits.heads import Comparisons, HeadSettings, run
from posttrain.studies.edits.keys import ArmName
from posttrain.studies.edits.metrics import edit_metrics
from posttrain.studies.edits.outcome import ARMS, Cell

SETTINGS = HeadSettings(
    sizes=[14], shares=[0.5], seeds=2, folds=3, inner_folds=2, penalties=[0.1, 3.0], resamples=5
)


@pytest.fixture(scope="module")
def groups(tiny_checkpoint):
    data = DataSettings(groups=90, edited_share=1.0)
    found = load_edits("simulator", tiny_checkpoint, data)
    # Neighbours split together.
    ranked = [replace(group, cluster_id=f"topic {k // 2}") for k, group in enumerate(found.ranked)]
    return replace(found, ranked=ranked)


@pytest.fixture
def firsts(groups):
    return np.cumsum([0, *(len(group.responses) for group in groups.ranked)])[:-1]


def test_comparisons_are_those_of_every_arms_training_groups(groups, firsts):
    order = np.random.default_rng(0).permutation(90)
    chosen = {name: choose(order, groups.edits, ARMS[name], 14, 0.5) for name in ARMS}
    trained = {name: training_groups(groups, ARMS[name], part) for name, part in chosen.items()}
    found = Comparisons.from_groups(chosen, trained, firsts)
    responses = [
        (group.prompt, response) for group in groups.tokens for response in group.responses
    ]
    assert len(set(zip(found.winners, found.losers, strict=True))) == len(found.groups)
    for a, (name, part) in enumerate(chosen.items()):
        expected = sorted(
            (g.tokens.prompt, g.tokens.responses[p.winner], g.tokens.responses[p.loser], p.weight)
            for g in training_groups(groups, ARMS[name], part)
            for p in g.pairs
        )
        got = sorted(
            (*responses[winner], responses[loser][1], weight)
            for winner, loser, weight in zip(
                found.winners, found.losers, found.weights[a], strict=True
            )
            if weight > 0
        )
        assert got == expected
    for i, winner, loser in zip(found.groups, found.winners, found.losers, strict=True):
        last = firsts[i] + len(groups.ranked[i].responses)
        assert firsts[i] <= winner < loser < last


def gold_features(groups, noise=0.0):
    """Features that are the gold quality, each with noise of its own."""
    gold = np.concatenate([np.array(truth) for truth in groups.gold])
    random = np.random.default_rng(1)
    return torch.from_numpy(gold[:, None] + noise * random.normal(size=(len(gold), 4))).float()


@pytest.fixture
def with_features(monkeypatch):
    def use(values):
        monkeypatch.setattr(heads, "features", lambda *_: values)

    return use


def test_heads_on_the_truth_find_it_and_every_group_is_tested_once(groups, with_features):
    with_features(gold_features(groups))
    outcome, tuning = run(None, groups, SETTINGS)
    assert set(outcome.sums) == set(SETTINGS.cells)
    for cell, sums in [*outcome.sums.items(), *outcome.shared.items()]:
        found = edit_metrics(sums.sum(axis=1))
        assert (found["gold"] == 1).all(), cell
        assert (found["edited > chosen"] == 1).all()
        assert sums[:, :, 0].sum(axis=1).tolist() == [90, 90]
    assert outcome.account == {
        "test groups": 90, "test groups with an edit": int((groups.edits >= 0).sum()),
        "clusters": 45,
    }  # fmt: skip
    assert len(tuning) == len(ARMS)
    assert set(tuning["at edge"]) == {1.0}  # the grid has two values
    # All penalties rank everything right, and of equals the strongest is taken.
    np.testing.assert_allclose(tuning["penalty"], 3.0)
    assert outcome.costs[Cell(ArmName.IGNORE, 14, 0.5)]["groups"] == 14
    assert outcome.costs[Cell("all pairs", 14, 0.5)]["edits"] > 2


def test_no_head_sees_a_topic_that_it_is_tested_on(groups, with_features, monkeypatch):
    topics = np.array([group.cluster_id for group in groups.ranked])
    of_response = np.repeat(topics, [len(group.responses) for group in groups.ranked])
    tested = []
    true_fit = heads._fit

    def watch(groups, compared, base, found, firsts, test, settings):
        trained = {*of_response[compared.winners], *of_response[compared.losers]}
        assert trained == set(topics[compared.groups]) >= set(topics[base])
        assert not trained & set(of_response[test])
        tested.extend(test)
        return true_fit(groups, compared, base, found, firsts, test, settings)

    monkeypatch.setattr(heads, "_fit", watch)
    with_features(gold_features(groups))
    run(None, groups, SETTINGS)
    # Every response once a seed.
    assert sorted(tested) == sorted([*range(len(of_response))] * 2)


def test_inner_folds_keep_groups_together_and_take_in_what_arms_add(
    groups, with_features, monkeypatch
):
    seen = []
    true_heads = heads.tuned_heads

    def watch(differences, *, fold, judged, choices, weights, **rest):
        seen.append((fold, judged, weights.numpy(), choices))
        return true_heads(
            differences, fold=fold, judged=judged, choices=choices, weights=weights, **rest
        )

    collected = []
    true_of = Comparisons.from_groups.__func__

    def from_groups(cls, *arguments):
        collected.append(true_of(cls, *arguments))
        return collected[-1]

    monkeypatch.setattr(heads, "tuned_heads", watch)
    monkeypatch.setattr(Comparisons, "from_groups", classmethod(from_groups))
    with_features(gold_features(groups, noise=2.0))
    run(None, groups, SETTINGS)
    # Once for pairs and once for rankings, in three folds with two seeds.
    assert len(collected) == 6
    assert len(seen) == 12
    plain = list(ARMS).index(ArmName.IGNORE)
    for number, compared in enumerate(collected):
        for fold, judged, weights, choices in seen[2 * number : 2 * number + 2]:
            names = np.array([groups.ranked[i].cluster_id for i in compared.groups])
            assert len({(name, k) for name, k in zip(names, fold, strict=True)}) == len(set(names))
            assert set(fold) == {-1, 0, 1}
            # Judged are the choices of annotators among the groups that all arms share.
            assert judged.sum() == 14
            assert (compared.weights[plain][judged] == 1).all()
            assert compared.weights[plain].sum() == 14
            assert (fold[judged] >= 0).all()
            ranked = choices is not None
            assert len(weights) == (1 if ranked else len(ARMS) - 1)
            if ranked:
                assert choices.tolist() == compared.winners.tolist()


def test_the_units_of_a_feature_do_not_matter(groups, with_features):
    found = gold_features(groups, noise=2.0)
    with_features(found)
    expected, _ = run(None, groups, SETTINGS)
    with_features(found * torch.tensor([1.0, 1000.0, 0.01, 1.0]))
    outcome, _ = run(None, groups, SETTINGS)
    for cell, sums in expected.sums.items():
        one, other = (edit_metrics(part.sum(axis=(0, 1))) for part in (sums, outcome.sums[cell]))
        assert 0.5 < one["gold"] < 1
        for name in ("gold", PairKind.RATED, "edited > chosen"):
            assert one[name] == pytest.approx(other[name], abs=0.01), cell


def test_the_shared_penalty_is_that_of_all_arms(groups, with_features):
    with_features(gold_features(groups, noise=2.0))
    outcome, _ = run(None, groups, SETTINGS)
    only, tuning = run(None, groups, replace(SETTINGS, penalties=[0.1]))
    np.testing.assert_allclose(tuning["penalty"], 0.1)
    differ = 0
    for cell in SETTINGS.cells:
        np.testing.assert_allclose(outcome.shared[cell], only.sums[cell], atol=1e-4)
        np.testing.assert_array_equal(only.shared[cell], only.sums[cell])
        differ += not np.allclose(outcome.shared[cell], outcome.sums[cell], atol=1e-3)
    assert differ


def test_margins_of_an_arm_reach_its_heads(groups, firsts, monkeypatch):
    wide = replace(ARMS["all pairs"], pairing=replace(ARMS["all pairs"].pairing, margins="large"))
    monkeypatch.setitem(ARMS, "all pairs", wide)
    order = np.random.default_rng(0).permutation(90)
    chosen = {name: choose(order, groups.edits, ARMS[name], 14, 0.5) for name in ARMS}
    trained = {name: training_groups(groups, ARMS[name], part) for name, part in chosen.items()}
    found = Comparisons.from_groups(chosen, trained, firsts)
    margins = dict(zip(chosen, found.margins, strict=True))
    assert sorted(margins["all pairs"][margins["all pairs"] > 0]) == sorted(
        p.margin for g in trained["all pairs"] for p in g.pairs if p.margin > 0
    )
    assert (margins["all pairs"] > 0).any()
    assert not margins[ArmName.IGNORE].any()


def test_a_shared_penalty_outside_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"shared_penalty 0.5 is not one of penalties \[0.1\]"):
        HeadSettings(penalties=[0.1], shared_penalty=0.5)


def test_too_few_groups_are_refused(groups, monkeypatch):
    monkeypatch.setattr(heads, "features", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match=r"groups with .* edits need .* training groups, of which"):
        run(None, groups, replace(SETTINGS, sizes=[55], shares=[1.0]))


@pytest.mark.parametrize("penalties", [[], [1.0, 0.1]])
def test_penalties_must_ascend(penalties):
    with pytest.raises(ValueError, match="penalties must be one or more, ascending"):
        HeadSettings(penalties=penalties)

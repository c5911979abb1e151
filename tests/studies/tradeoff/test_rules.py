"""Choices by one model and by two: every metric by hand, and what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tradeoff_synthetic import calibrations, candidate_set, outcome_of

from posttrain.evaluation.combining import Rule
from posttrain.studies.tradeoff.data import CandidateSet
from posttrain.studies.tradeoff.keys import MAIN_EXCHANGE, ArmName, Chosen, Team
from posttrain.studies.tradeoff.outcome import ArmOutcome
from posttrain.studies.tradeoff.rules import (
    BEST,
    RANDOM,
    SelectionMetrics,
    System,
    _best,
    best_elsewhere,
    calibrated,
    choice_tables,
    conflict_table,
    systems,
)

WEIGHTS, THRESHOLDS = (1.0, 2.0), (0.15, 0.5)
CANDIDATES = candidate_set()
#: The helpful model likes answers, the safe one refusals.
SCORES = {
    ArmName.HELPFUL: [[-4.0, 0.5, -1.5, 0.25, -4.0], [-3.0, 1.0, 2.0, 1.0, -2.0]],
    ArmName.SAFE: [[1.0, -4.0, -6.0, 0.0, 0.125], [2.0, -1.0, -1.5, 0.5, 0.25]],
}


def metric(table, name, *system):
    """Estimate of one metric of a system."""
    team, system, *rest = system
    here = (table["team"] == team) & (table["system"] == system) & (table["metric"] == name)
    if rest:
        here &= table["parameter"] == rest[0]
    return table[here]["estimate"].item()


def found_systems(scores=SCORES, candidates=CANDIDATES):
    return dict(systems(outcome_of(candidates, scores), WEIGHTS, THRESHOLDS))


def test_of_equal_scores_each_is_chosen_as_often():
    scores = np.array([[1.0, 1, 0, 2, 2], [0, 3, 1, 1, 2], [0, 0, 0, -1, -2]])
    assert _best(scores, CANDIDATES.prompt_of).tolist() == [
        [0.5, 0.5, 0, 0.5, 0.5],
        [0, 1, 0, 0, 1],
        [1 / 3, 1 / 3, 1 / 3, 1, 0],
    ]


@given(
    arrays(int, (2, 9), elements=st.integers(-3, 3)),
    st.lists(st.integers(1, 4), min_size=1, max_size=9).filter(lambda counts: sum(counts) <= 9),
)
def test_choices_of_a_prompt_sum_to_one_and_are_never_below_the_best(scores, counts):
    prompt_of = np.repeat(np.arange(len(counts)), counts)
    scores = scores[:, : len(prompt_of)]
    chosen = _best(scores, prompt_of)
    for prompt in range(len(counts)):
        here = prompt_of == prompt
        np.testing.assert_allclose(chosen[:, here].sum(axis=1), 1)
        best = scores[:, here].max(axis=1, keepdims=True)
        assert ((chosen[:, here] > 0) == (scores[:, here] == best)).all()


def test_the_metrics_of_a_choice_by_hand():
    chosen = SelectionMetrics(CANDIDATES)
    # One model answers both prompts, the other shares between two responses of the first one.
    choice = np.array([[0, 1.0, 0, 1, 0], [0.5, 0, 0.5, 0, 1]])
    sums = chosen.sums(choice)
    assert sums.shape[:2] == (2, 2)
    found = chosen.metrics(sums.sum(axis=1))
    assert found["answers unsafe"].tolist() == [1, 0.5]
    assert found["refuses lookalike"].tolist() == [0, 1]
    assert np.isnan(found["refuses other"]).all()
    assert found["errors"].tolist() == [0.5, 0.75]
    assert found["helpfulness"].tolist() == [0, (-2.75 - 4) / 2]
    assert found["safety"].tolist() == [-2, -3.25 / 2]
    assert found["combined 1"].tolist() == [-2, (-6 - 4) / 2]
    assert found["combined 4"].tolist() == [-8, (-15.75 - 4) / 2]
    # Safety ×2: −4, −8 and −14.5; 0 and −4. Best −4, on average −53/6 − 2 = −65/6.
    np.testing.assert_allclose(
        found["recovered 2"], [(65 / 6 - 8) / (65 / 6 - 4), (65 / 6 - 9.25 - 4) / (65 / 6 - 4)]
    )


def test_metrics_of_several_prompts_weigh_prompts_alike():
    chosen = SelectionMetrics(CANDIDATES)
    sums = chosen.sums(np.array([[0, 0, 1.0, 0, 1]]))
    # As a bootstrap replicate that draws the first prompt twice and the second one once.
    found = chosen.metrics((np.array([2, 1]) @ sums[0])[None])
    assert found["helpfulness"] == pytest.approx((2 * -1.5 - 4) / 3)
    assert found["answers unsafe"] == found["refuses lookalike"] == 1


def test_without_gold_only_errors_are_counted():
    chosen = SelectionMetrics(candidate_set(gold=False))
    found = chosen.metrics(chosen.sums(np.array([[1.0, 0, 0, 0, 1]])).sum(axis=1))
    assert list(found) == ["answers unsafe", "refuses lookalike", "refuses other", "errors"]
    assert found["errors"] == 0.5


def test_an_error_needs_a_response_that_does_better():
    alone = replace(CANDIDATES, pairs=CANDIDATES.pairs[2:])
    assert alone.errs.tolist() == [False, False, False, False, True]
    chosen = SelectionMetrics(alone)
    assert chosen.metrics(chosen.sums(np.array([[0, 1.0, 0, 0, 1]])).sum(axis=1))["errors"] == 0.5


def test_the_random_choice_recovers_nothing_and_the_best_one_everything():
    outcome = outcome_of(CANDIDATES, SCORES)
    table = choice_tables(outcome, weights=WEIGHTS, thresholds=THRESHOLDS, resamples=20)["choices"]
    recovered = [f"recovered {rate}" for rate in (1, 2, 4)]
    for name in recovered:
        assert metric(table, name, Team.NOBODY, RANDOM) == 0
        assert metric(table, name, Team.NOBODY, BEST, float(name.split()[1])) == 1
    # What is best at one rate of exchange is not beyond the best at another.
    shares = table[table["metric"].isin(recovered)]
    assert (shares["estimate"] <= 1 + 1e-12).all()
    assert (shares["high"] <= 1 + 1e-12).all()
    # At a rate of 1 the refusal of the bomb and the answer are equally good: −4.
    assert metric(table, "answers unsafe", Team.NOBODY, BEST, 1.0) == 0.5
    assert metric(table, "answers unsafe", Team.NOBODY, BEST, 2.0) == 0
    assert metric(table, "answers unsafe", Team.NOBODY, RANDOM) == pytest.approx(2 / 3)
    assert metric(table, "refuses lookalike", Team.NOBODY, RANDOM) == 0.5


def test_all_systems_are_there_and_choose_what_their_rule_says():
    found = found_systems(SCORES | {ArmName.JOINT: [[0, 1, 2, 0, 1.0], [3, 2, 1, 1, 0]]})
    assert [(s.team, s.name) for s in found if s.team in (Team.NOBODY, Team.SINGLE)] == [
        (Team.NOBODY, RANDOM), (Team.NOBODY, BEST), (Team.NOBODY, BEST), (Team.NOBODY, BEST),
        (Team.SINGLE, ArmName.HELPFUL), (Team.SINGLE, ArmName.SAFE), (Team.SINGLE, ArmName.JOINT),
    ]  # fmt: skip
    team = [(s.name, s.parameter) for s in found if s.team == "specialists"]
    assert team == [
        ("sum", 1.0), ("sum", 2.0),
        ("switch", 0.15), ("switch, unsafe prompts flagged", 0.15),
        ("switch", 0.5), ("switch, unsafe prompts flagged", 0.5),
        ("gate", 0.15), ("gate, unsafe prompts flagged", 0.15),
        ("gate", 0.5), ("gate, unsafe prompts flagged", 0.5),
        ("switch, not calibrated", 0.15),
    ]  # fmt: skip
    assert len(found) == 7 + len(team)
    for system, chosen in found.items():
        assert chosen.shape == (1 if system.team == Team.NOBODY else 2, 5)
    assert found[System(Team.SINGLE, ArmName.JOINT)].tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
    assert found[System(Team.SINGLE, ArmName.SAFE)].tolist() == [[1, 0, 0, 0, 1], [1, 0, 0, 1, 0]]
    # −4 + 2 and 0.5 − 8; 0.25 and −4 + 0.25 in the first model, −3 + 4 and 1 − 2 in the second.
    assert found[System("specialists", "sum", 2.0)].tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 0]]
    # σ(−1.0) is above 0.15 and σ(−1.5) too: the second model lets the most helpful one through.
    switch = System("specialists", "switch", 0.15)
    assert found[switch].tolist() == [[0.5, 0.5, 0, 1, 0], [0, 0, 1, 1, 0]]
    assert found[replace(switch, name="switch, unsafe prompts flagged")].tolist() == [
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 0],
    ]
    gate = System("specialists", "gate", 0.5)
    assert found[gate].tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 0]]
    assert found[replace(gate, parameter=0.15)].tolist() == [[1, 0, 0, 1, 0], [0, 0, 1, 1, 0]]


def test_only_unsafe_prompts_are_flagged():
    # On the harmless prompt the safe model prefers the refusal: flagged, it would be chosen.
    scores = {ArmName.HELPFUL: [[0, 0, 0, 1.0, 0]], ArmName.SAFE: [[1.0, 2, 3, 4, 5]]}
    found = found_systems(scores)
    for kind in ("switch", "gate"):
        system = System("specialists", f"{kind}, unsafe prompts flagged", 0.15)
        assert found[system].tolist() == [[0, 0, 1, 1, 0]]
        assert found[replace(system, name=kind)].tolist() == [[1 / 3, 1 / 3, 1 / 3, 1, 0]]


def test_teams_take_their_calibrated_members_each_in_its_place():
    outcome = outcome_of(
        CANDIDATES,
        SCORES
        | {
            ArmName.HELPFULNESS_MIX: [[0, 1.0, 2, 3, 4], [0, 0, 0, 0, 0]],
            ArmName.SAFETY_MIX: [[4.0, 3, 2, 1, 0.5], [1, 2, 3, 4, 5]],
        },
    )
    arms = dict(outcome.arms)
    # The scale of the first model of safety is large, so that its calibrated score decides.
    arms[ArmName.SAFETY_MIX] = replace(
        arms[ArmName.SAFETY_MIX], calibrations=calibrations(10.0, 0.1)
    )
    found = dict(systems(replace(outcome, arms=arms), WEIGHTS, THRESHOLDS))
    assert found[System("Llama 2's mixes", "sum", 1.0)].tolist() == [
        [1, 0, 0, 1, 0], [0, 0, 1, 0, 1],
    ]  # fmt: skip
    assert calibrated(arms[ArmName.SAFETY_MIX])[0].tolist() == [40, 30, 20, 10, 5]
    np.testing.assert_allclose(calibrated(arms[ArmName.SAFETY_MIX])[1], [0.1, 0.2, 0.3, 0.4, 0.5])
    # With swapped roles, what is weighed would be helpfulness: 2 · (0 … 4) + 10 · (4 … 0.5).
    weak = arms | {
        ArmName.SAFETY_MIX: replace(arms[ArmName.SAFETY_MIX], calibrations=calibrations(0.7, 0.7))
    }
    found = dict(systems(replace(outcome, arms=weak), WEIGHTS, THRESHOLDS))
    assert found[System("Llama 2's mixes", "sum", 2.0)][0].tolist() == [1, 0, 0, 0, 1]
    assert found[System("Llama 2's mixes", "sum", 1.0)][0].tolist() == [0, 0, 1, 0, 1]


def test_the_switch_without_calibration_takes_raw_scores():
    outcome = outcome_of(CANDIDATES, SCORES)
    scaled = {
        name: replace(arm, calibrations=calibrations(1e-6, 1e-6))
        for name, arm in outcome.arms.items()
    }
    found = dict(systems(replace(outcome, arms=scaled), WEIGHTS, THRESHOLDS))
    raw = Rule("switch", threshold=0.15).combine(
        *(np.array(SCORES[arm]) for arm in (ArmName.HELPFUL, ArmName.SAFE))
    )
    system = System("specialists", "switch, not calibrated", 0.15)
    assert found[system].tolist() == _best(raw, CANDIDATES.prompt_of).tolist()
    assert found[replace(system, name="switch")].tolist() != found[system].tolist()


@given(
    arrays(float, (2, 5), elements=st.integers(-8, 8).map(float)),
    arrays(float, (2, 5), elements=st.integers(-8, 8).map(float)),
    st.tuples(st.integers(-16, 16), st.integers(-16, 16)),
)
def test_the_zeros_of_two_scores_do_not_matter_to_their_sum(helpfulness, safety, shifts):
    first = found_systems({ArmName.HELPFUL: helpfulness, ArmName.SAFE: safety})
    moved = found_systems(
        {ArmName.HELPFUL: helpfulness + shifts[0], ArmName.SAFE: safety + shifts[1]}
    )
    for weight in WEIGHTS:
        system = System("specialists", "sum", weight)
        np.testing.assert_array_equal(first[system], moved[system])


@given(arrays(float, (1, 5), elements=st.floats(-3, 3)))
def test_nothing_recovers_more_than_the_best(scores):
    chosen = SelectionMetrics(CANDIDATES)
    found = chosen.metrics(chosen.sums(_best(scores, CANDIDATES.prompt_of)).sum(axis=1))
    for rate in (1, 2, 4):
        assert found[f"recovered {rate}"] <= 1 + 1e-12


def test_advantages_are_those_of_the_sum_of_specialists_over_each_other_system():
    mixes = {
        ArmName.HELPFULNESS_MIX: SCORES[ArmName.SAFE],
        ArmName.SAFETY_MIX: SCORES[ArmName.HELPFUL],
    }
    outcome = outcome_of(CANDIDATES, SCORES | mixes)
    tables = choice_tables(outcome, weights=WEIGHTS, thresholds=THRESHOLDS, resamples=50)
    choices, advantages = tables["choices"], tables["advantages"]
    assert choices[["low", "high"]].notna().all(axis=None)
    keys = ["team", "system", "parameter", "metric"]
    reference = choices[
        (choices["team"] == "specialists") & (choices["system"] == "sum")
        & (choices["parameter"] == MAIN_EXCHANGE)
    ].set_index("metric")["estimate"]  # fmt: skip
    assert not choices["system"].isin(list(Chosen)).all()
    choices = choices[~choices["system"].isin(list(Chosen))]
    assert len(advantages) == len(choices) - len(reference)
    both = advantages.merge(choices, on=keys, suffixes=("", " of other"))
    assert len(both) == len(advantages)
    expected = both["metric"].map(reference) - both["estimate of other"]
    np.testing.assert_allclose(both["estimate"], expected, atol=1e-12)
    # The other team's sum is no reference, but one of those that are compared.
    other = metric(advantages, "helpfulness", "Llama 2's mixes", "sum", 2.0)
    assert other == pytest.approx(
        -2 - metric(choices, "helpfulness", "Llama 2's mixes", "sum", 2.0)
    )
    assert metric(advantages, "errors", Team.SINGLE, ArmName.HELPFUL) == -0.5
    assert metric(advantages, "recovered 2", Team.NOBODY, RANDOM) == 1


def test_advantages_are_paired():
    # Two systems that choose alike differ by nothing in every replicate.
    outcome = outcome_of(CANDIDATES, SCORES)
    tables = choice_tables(outcome, weights=WEIGHTS, thresholds=THRESHOLDS, resamples=50)
    best = tables["choices"]
    best = best[(best["system"] == BEST) & (best["metric"] == "safety")]
    assert (best["low"] < best["high"]).any()
    gaps = tables["advantages"]
    same = gaps[(gaps["system"] == BEST) & (gaps["parameter"] == 2.0)]
    assert (same[["estimate", "low", "high"]] == 0).all(axis=None)


def test_prompts_of_a_kind_that_is_missing_have_no_row():
    outcome = outcome_of(CANDIDATES, SCORES)
    table = choice_tables(outcome, weights=WEIGHTS, thresholds=THRESHOLDS, resamples=5)["choices"]
    assert "refuses other" not in set(table["metric"])
    assert {"answers unsafe", "refuses lookalike"} <= set(table["metric"])


def three_kinds():
    """Besides the unsafe and the harmless prompt, one that is neither, of three responses."""
    base = CANDIDATES
    return CandidateSet(
        [*base.prompts, base.prompts[0]],
        [*base.responses, ("no", "yes", "yes !")],
        [*base.tokens, base.tokens[0]],
        np.array(["unsafe", "lookalike", "other"]),
        np.concatenate([base.pairs, [[6, 5], [7, 5]]]),
        np.concatenate([base.gold, [[-4, 0], [-1, -1.5], [-2, -1.5]]]),
    )


def test_how_often_models_do_right_by_hand():
    candidates = three_kinds()
    scores = {
        ArmName.HELPFUL: [[0, 1.0, -1, 2, 1, 0, 3, 0], [1, 0, 0, 0, 0, 1, 0, 2]],
        ArmName.SAFE: [[2, 1.0, 0, 0, 1, 2, 1, 0], [2, 1, 0, 0, 1, 2, 1, 0]],
    }
    table = conflict_table(outcome_of(candidates, scores), resamples=20)
    found = table.set_index(["arm", "kind"])["estimate"]
    assert found[ArmName.HELPFUL, "unsafe"] == (0.5 + 1) / 2
    assert found[ArmName.HELPFUL, "lookalike"] == (1 + 0.5) / 2
    # A refusal of neither kind of prompt is wrong: 3 > 0, 0 = 0; 0 < 1, 2 > 1.
    assert found[ArmName.HELPFUL, "other"] == (0.75 + 0.5) / 2
    assert found[ArmName.SAFE, "unsafe"] == 1
    assert found[ArmName.SAFE, "lookalike"] == 0
    assert found[ArmName.SAFE, "other"] == 0
    # Golds disagree on (1, 0), (2, 0), (6, 5) and (7, 5), the more helpful one first.
    assert found[ArmName.SAFE, "golds disagree"] == 0
    assert found[ArmName.HELPFUL, "golds disagree"] == ((1 + 0 + 1 + 0.5) + (0 + 0 + 0 + 1)) / 8
    assert list(dict.fromkeys(table["kind"])) == ["unsafe", "lookalike", "other", "golds disagree"]


def test_intervals_of_conflicts_resample_prompts_and_not_pairs():
    # All pairs of a prompt are right, or none: pairs would give a narrower interval than prompts.
    texts = [("no", *(f"a {k}" for k in range(8)))] * 6
    base = CANDIDATES
    pairs = [(9 * p, 9 * p + k) for p in range(6) for k in range(1, 9)]
    candidates = CandidateSet(
        [base.prompts[0]] * 6, texts, [base.tokens[0]] * 6, np.array(["unsafe"] * 6),
        np.array(pairs),
    )  # fmt: skip
    scores = np.zeros((1, 54))
    scores[0, ::9] = [1, -1, 1, -1, 1, -1]
    table = conflict_table(outcome_of(candidates, {ArmName.HELPFUL: scores}), resamples=400)
    (row,) = table.to_dict("records")
    assert row["estimate"] == 0.5
    assert row["low"] <= 1 / 6 + 1e-9
    assert row["high"] >= 5 / 6 - 1e-9


def test_kinds_that_do_not_occur_and_golds_that_agree_have_no_row():
    agree = replace(CANDIDATES, gold=np.array([[0, 0], [-1, -1], [-2, -1], [0, 0], [-1, 0]]))
    table = conflict_table(outcome_of(agree, SCORES), resamples=5)
    assert set(table["kind"]) == {"unsafe", "lookalike"}
    unknown = conflict_table(outcome_of(candidate_set(gold=False), SCORES), resamples=5)
    assert set(unknown["kind"]) == {"unsafe", "lookalike"}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_model_that_gave_no_number_is_refused():
    broken = {ArmName.HELPFUL: [[0, np.nan, 0, 0, 0]], ArmName.SAFE: [[0, 0, 0, 0, 0.0]]}
    with pytest.raises(ValueError, match="scores must be finite"):
        found_systems(broken)


def test_calibrations_are_as_many_as_models():
    arm = ArmOutcome(np.zeros((2, 1, 0, 2)), np.zeros((2, 5)), calibrations(1.0))
    with pytest.raises(ValueError, match="zip"):
        calibrated(arm)


def many_prompts(count):
    """As many unsafe prompts as harmless ones, each with a response that errs and one that not."""
    return CandidateSet(
        [()] * count,
        [("right", "wrong")] * count,
        [],
        np.array(["unsafe", "lookalike"] * (count // 2)),
        np.array([[2 * k, 2 * k + 1] for k in range(count)]),
    )


def choosing(right):
    """Probability of each response, one model, where some prompts are chosen for rightly."""
    right = np.asarray(right, dtype=float)
    return np.stack([right, 1 - right], axis=1).ravel()[None]


def test_the_best_way_is_found_on_other_prompts():
    candidates = many_prompts(40)
    chosen = SelectionMetrics(candidates)
    good, bad = np.arange(40) % 8 > 1, np.arange(40) % 8 > 5
    sums = {
        System(Team.SINGLE, "good"): chosen.sums(choosing(good)),
        System(Team.SINGLE, "bad"): chosen.sums(choosing(bad)),
        System("specialists", "sum", 1.0): chosen.sums(choosing(bad)),
        System("specialists", "gate, unsafe prompts flagged", 0.5): chosen.sums(choosing(good)),
        System(Team.NOBODY, RANDOM): chosen.sums(choosing(np.ones(40))),
    }
    found = best_elsewhere(sums, chosen, candidates.kinds)
    assert set(found) == {
        System(Team.SINGLE, Chosen.ARM),
        System("specialists", Chosen.RULE),
        System("specialists", Chosen.FLAGGED),
    }
    for system, source in (
        (System(Team.SINGLE, Chosen.ARM), System(Team.SINGLE, "good")),
        (System("specialists", Chosen.RULE), System("specialists", "sum", 1.0)),
    ):
        np.testing.assert_array_equal(found[system], sums[source])


@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_no_prompt_decides_what_is_chosen_for_it(flips):
    # Two ways, one right where the other is wrong: chosen on all prompts, the better one would be
    # right on half of them or more; chosen on others, each prompt's own answer counts for nothing.
    candidates = many_prompts(40)
    chosen = SelectionMetrics(candidates)
    one = np.array(flips)
    sums = {
        System(Team.SINGLE, "one"): chosen.sums(choosing(one)),
        System(Team.SINGLE, "other"): chosen.sums(choosing(~one)),
    }
    before = best_elsewhere(sums, chosen, candidates.kinds)[System(Team.SINGLE, Chosen.ARM)]
    turned = one.copy()
    turned[0] = ~turned[0]
    after = best_elsewhere(
        {
            System(Team.SINGLE, "one"): chosen.sums(choosing(turned)),
            System(Team.SINGLE, "other"): chosen.sums(choosing(~turned)),
        },
        chosen,
        candidates.kinds,
    )[System(Team.SINGLE, Chosen.ARM)]
    # The same way is used at that prompt, so what comes of it is turned as well.
    assert before[0, 0, 0] == 1 - after[0, 0, 0]


def test_two_models_are_compared_with_the_best_single_one_and_with_that_of_all_data():
    scores = SCORES | {ArmName.JOINT: SCORES[ArmName.SAFE]}
    tables = choice_tables(
        outcome_of(CANDIDATES, scores), weights=WEIGHTS, thresholds=THRESHOLDS, resamples=20
    )
    against, choices = tables["against one"], tables["choices"]
    assert set(against["one model"]) == {Chosen.ARM, ArmName.JOINT}
    for row in against.itertuples():
        _, team, system, one, name, estimate, *_ = row
        gap = metric(choices, name, team, system) - metric(choices, name, Team.SINGLE, one)
        assert estimate == pytest.approx(gap, abs=1e-12)

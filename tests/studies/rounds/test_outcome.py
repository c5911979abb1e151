"""Tables of the rounds study, of values made by hand."""

import numpy as np
import pytest

from posttrain.evidence.claims import estimate
from posttrain.studies.rounds.keys import Arm, Measure, Ranked
from posttrain.studies.rounds.outcome import summarise

PROMPTS, SAMPLES, ROUNDS = 10, 2, 2
#: The first answer is the better one.
BETTER_FIRST = np.tile([1.0, 0.0], (PROMPTS, 1))


def flat(value, samples=SAMPLES):
    return np.full((PROMPTS, samples), float(value))


def right(count):
    """Scores that rank so many of ten prompts' answers rightly."""
    agrees = np.arange(PROMPTS) < count
    return np.stack([agrees, ~agrees], axis=1).astype(float)


def policy(gold=BETTER_FIRST, level=0.0, **scores):
    values = {
        "gold": gold + level, "praise": flat(3 * level), "words": flat(5 + level),
        "ended": flat(level > 0), "log ratio": flat(0.5 * level),
    }  # fmt: skip
    return values | {name.replace("_", " "): one for name, one in scores.items()}


def run(levels=(0, 1, 3), before=(9, 8), after=(6, 7), lift=0.0):
    """Values after no, one and two rounds; of ten prompts so many are ranked rightly."""
    return [
        policy(level=levels[0], round_1=right(5), round_2=right(5) + 2, goes_on=right(before[0])),
        policy(level=levels[1], made_it=right(after[0]), goes_on=right(before[1])),
        policy(level=levels[2], made_it=right(after[1]) + lift),
    ]


def tables(resamples=50, **arms):
    return summarise(arms, resamples=resamples)


def read(table, **where):
    return estimate(table, **where)[0]


@pytest.fixture(scope="module")
def found():
    other = run(levels=(0, 2, 2))
    return tables(**{Arm.LLAMA3: [run(), run()], Arm.FROZEN: [run(), other], Arm.SFT: [run()] * 2})


@pytest.mark.parametrize(("number", "level"), [(0, 0), (1, 1), (2, 3)])
def test_levels_are_means_of_the_policys_answers(found, number, level):
    expected = {
        Measure.GOLD: 0.5 + level, Measure.DIVERGENCE: 0.5 * level, Measure.PRAISE: 3 * level,
        Measure.WORDS: 5 + level, Measure.ENDED: float(level > 0),
    }  # fmt: skip
    for measure, value in expected.items():
        where = {"arm": Arm.LLAMA3, "round": number, "measure": measure}
        assert read(found["levels"], **where) == pytest.approx(value)


def test_the_first_policy_has_not_moved(found):
    for arm in (Arm.LLAMA3, Arm.FROZEN):
        for measure in (Measure.DIVERGENCE, Measure.SCORE):
            where = {"arm": arm, "round": 0, "measure": measure}
            assert estimate(found["levels"], **where) == (0, 0, 0)


def test_scores_are_less_what_the_same_reward_model_gives_the_first_policy():
    # The second reward model gives the first policy 2 more than the first one does.
    levels = tables(arm=[run(lift=7.0)])["levels"]
    assert read(levels, arm="arm", round=1, measure=Measure.SCORE) == pytest.approx(0)
    assert read(levels, arm="arm", round=2, measure=Measure.SCORE) == pytest.approx(5)


def test_steps_and_growth_are_differences(found):
    gold = {"measure": Measure.GOLD}
    assert read(found["steps"], arm=Arm.LLAMA3, round=1, **gold) == pytest.approx(1)
    assert read(found["steps"], arm=Arm.LLAMA3, round=2, **gold) == pytest.approx(2)
    assert set(found["steps"]["round"]) == {1, 2}
    # From the first round, not from the first policy.
    assert read(found["growth"], arm=Arm.LLAMA3) == pytest.approx(2)
    assert read(found["growth"], arm=Arm.FROZEN) == pytest.approx(1)


def test_gains_are_against_the_first_arm(found):
    gains = found["gains"]
    assert set(gains["arm"]) == {Arm.FROZEN, Arm.SFT}
    assert set(gains["round"]) == {1, 2}
    # One seed of two is 1 higher after the first round, and 1 lower after the second.
    for number, gap in ((1, 0.5), (2, -0.5)):
        where = {"arm": Arm.FROZEN, "round": number, "measure": Measure.GOLD}
        assert read(gains, **where) == pytest.approx(gap)


def test_arms_that_are_alike_gain_exactly_nothing(found):
    same = found["gains"][found["gains"]["arm"] == Arm.SFT]
    assert len(same) == 2 * len(Measure)
    assert (same[["estimate", "low", "high"]] == 0).all().all()


def test_rankings_are_shares_of_pairs_in_the_order_of_gold(found):
    expected = {
        (1, Ranked.LAST): 0.9, (1, Ranked.NEXT): 0.6, (1, Ranked.REFRESHED): 0.8,
        (2, Ranked.LAST): 0.8, (2, Ranked.NEXT): 0.7,
    }  # fmt: skip
    here = found["ranking"][found["ranking"]["arm"] == Arm.LLAMA3]
    keys = list(zip(here["round"], here["ranked"], strict=True))
    assert dict(zip(keys, here["estimate"], strict=True)) == pytest.approx(expected)
    assert len(keys) == len(expected)


def test_decay_and_renewal_are_means_over_rounds(found):
    decay = (0.6 - 0.9 + 0.7 - 0.8) / 2
    assert read(found["shifts"], arm=Arm.LLAMA3, shift="decay") == pytest.approx(decay)
    assert read(found["shifts"], arm=Arm.LLAMA3, shift="renewal") == pytest.approx(0.2)


def test_a_reward_model_that_is_kept_renews_nothing():
    kept = tables(arm=[run(before=(9, 6), after=(6, 5))])
    assert read(kept["shifts"], arm="arm", shift="renewal") == 0


def test_one_round_decays_and_nothing_renews():
    first, second, _ = run()
    del second["goes on"]
    found = tables(arm=[[first, second]])
    assert found["shifts"]["shift"].tolist() == ["decay"]
    assert read(found["shifts"], arm="arm", shift="decay") == pytest.approx(-0.3)
    assert read(found["growth"], arm="arm") == 0


def test_equal_golds_do_not_count_and_equal_scores_count_half():
    gold = BETTER_FIRST.copy()
    gold[5:] = 0.5
    scores = flat(0)
    scores[0, 0], scores[1, 1] = 1, 1
    first = policy(gold, round_1=flat(0), goes_on=scores)
    found = tables(arm=[[first, policy(made_it=flat(0))]])["ranking"]
    # Of five pairs one is right, one is wrong, and three are undecided.
    assert read(found, ranked=Ranked.LAST) == pytest.approx(0.5)
    scores[1, 1] = 0
    found = tables(arm=[[first | {"goes on": scores}, policy(made_it=right(10))]])["ranking"]
    assert read(found, ranked=Ranked.LAST) == pytest.approx((1 + 4 * 0.5) / 5)
    assert read(found, ranked=Ranked.NEXT) == 1


def test_all_pairs_of_a_prompts_answers_count():
    gold = np.tile([2.0, 1.0, 0.0], (PROMPTS, 1))
    scores = np.tile([1.0, 2.0, 0.0], (PROMPTS, 1))

    def three(**more):
        values = policy() | {
            name: flat(0, 3) for name in ("praise", "words", "ended", "log ratio")
        }  # fmt: skip
        return values | {"gold": gold} | more

    first = three(**{"round 1": flat(0, 3), "goes on": scores})
    found = tables(arm=[[first, three(**{"made it": -gold})]])["ranking"]
    assert read(found, ranked=Ranked.LAST) == pytest.approx(2 / 3)
    assert read(found, ranked=Ranked.NEXT) == 0


def test_intervals_are_over_prompts_and_seeds():
    low, high = run(levels=(0, 0, 0)), run(levels=(0, 2, 0))
    level = {"round": 1, "measure": Measure.GOLD, "arm": "arm"}
    one = tables(arm=[low], resamples=500)["levels"]
    assert estimate(one, **level) == pytest.approx((0.5, 0.5, 0.5))
    two = tables(arm=[low, high], resamples=500)["levels"]
    assert estimate(two, **level) == pytest.approx((1.5, 0.5, 2.5))
    half = [policy(np.repeat([[0.0], [1.0]], 5, axis=0) + flat(0)) | one for one in (
        {"round 1": flat(0), "goes on": flat(0)}, {"made it": flat(0)}
    )]  # fmt: skip
    spread = tables(arm=[half], resamples=2000)["levels"]
    error = 1.96 * 0.5 / np.sqrt(PROMPTS)
    assert estimate(spread, **level) == pytest.approx((0.5, 0.5 - error, 0.5 + error), abs=0.06)

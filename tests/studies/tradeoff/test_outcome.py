"""Arms of the study of helpfulness and safety, its settings and its tables, by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tradeoff_synthetic import calibrations, candidate_set

from posttrain.data.preferences import Message, RankedGroup
from posttrain.evaluation.calibration import Calibration
from posttrain.studies.tradeoff.data import TradeoffData
from posttrain.studies.tradeoff.full import FullSettings, HumanFullSettings
from posttrain.studies.tradeoff.heads import HeadSettings
from posttrain.studies.tradeoff.keys import BOTH, OWN, ArmName, Contrast
from posttrain.studies.tradeoff.outcome import (
    ARMS,
    CONTRASTS,
    TEAM_DOMAINS,
    TEAMS,
    TUNINGS,
    ArmOutcome,
    Outcome,
    TestPairs,
    accuracy_tables,
    calibration_table,
    most_groups,
)

#: Sources of ten pairs each; two of helpfulness, one of safety.
TESTS = ("first", "second", "third")
DOMAIN_OF = {"first": "helpfulness", "second": "helpfulness", "third": "safety"}
#: Of ten pairs of each source, how many an arm ranks right: tuned, and shared.
RIGHT = {
    ArmName.HELPFUL: ((9, 8, 4), (7, 8, 5)),
    ArmName.HELPFULNESS_MIX: ((8, 6, 6), (6, 6, 6)),
    ArmName.SAFETY_MIX: ((5, 5, 7), (5, 4, 7)),
    ArmName.SAFE: ((2, 4, 9), (3, 3, 9)),
    ArmName.JOINT: ((8, 9, 8), (7, 7, 7)),
    ArmName.AUXILIARY: ((5, 6, 8), (5, 5, 5)),
}


def test_arms_are_those_that_the_study_promises():
    counts = {name: arm.counts(100) for name, arm in ARMS.items()}
    assert {name: (found["helpfulness"], found["safety"]) for name, found in counts.items()} == {
        "helpfulness only": (100, 0),
        "10 % safety": (90, 10),
        "25 % safety": (75, 25),
        "50 % safety": (50, 50),
        "75 % safety": (25, 75),
        "90 % safety": (10, 90),
        "safety only": (0, 100),
        "joint, all data": (100, 100),
        "90 % safety, auxiliary loss": (10, 90),
    }
    assert [name for name, arm in ARMS.items() if arm.auxiliary] == [ArmName.AUXILIARY]
    assert [name for name, arm in ARMS.items() if arm.scale == 2] == [ArmName.JOINT]
    assert TEAMS["specialists"] == (ArmName.HELPFUL, ArmName.SAFE)
    assert TEAM_DOMAINS == {
        ArmName.HELPFUL: "helpfulness",
        ArmName.HELPFULNESS_MIX: "helpfulness",
        ArmName.QUARTER: "helpfulness",
        ArmName.SAFE: "safety",
        ArmName.SAFETY_MIX: "safety",
    }
    assert {arm for pair in CONTRASTS.values() for arm in pair} <= {*ARMS, OWN}
    # A pair of arms that differ in one thing only.
    assert replace(ARMS[ArmName.AUXILIARY], auxiliary=False) == ARMS[ArmName.SAFETY_MIX]


@pytest.mark.parametrize("size", [1, 7, 333, 1000])
def test_every_arm_has_its_size(size):
    for name, arm in ARMS.items():
        assert sum(arm.counts(size).values()) == (2 * size if name == ArmName.JOINT else size)
        assert min(arm.counts(size).values()) >= 0


def test_the_most_groups_of_each_domain_are_those_of_the_greediest_arm():
    assert most_groups(100, [ArmName.HELPFUL, ArmName.SAFETY_MIX]) == {
        "helpfulness": 100,
        "safety": 90,
    }
    assert most_groups(100, [ArmName.HELPFULNESS_MIX]) == {"helpfulness": 50, "safety": 50}
    assert most_groups(100, [ArmName.HELPFULNESS_MIX, ArmName.JOINT]) == {
        "helpfulness": 100,
        "safety": 100,
    }


def pairs_of(right, count=10):
    """Scores of chosen and rejected of which the first few are right, ``[pairs, 2]``."""
    gaps = np.where(np.arange(count) < right, 1.0, -1.0)
    return np.stack([gaps, np.zeros(count)], axis=1)


def planted(right=RIGHT, seeds=1):
    """An outcome whose arms rank as many pairs right as is said."""
    sources = np.repeat(TESTS, 10)
    tested = TestPairs(
        np.tile([1, 2, 2, 3, 3, 3, 4, 4, 4, 4], 3),
        sources,
        np.array([DOMAIN_OF[name] for name in sources]),
        np.arange(30),
        np.stack([np.tile([9, 9, 5, 1, 1, 1, 1, 1, 1, 1], 3), np.full(30, 5)], axis=1),
    )
    arms = {}
    for name, both in right.items():
        scores = np.stack([np.concatenate([pairs_of(n) for n in part]) for part in both])
        arms[name] = ArmOutcome(
            np.repeat(scores[:, None], seeds, axis=1), np.zeros((seeds, 5)), calibrations()
        )
    return Outcome(tested, candidate_set(), arms, pd.DataFrame())


@pytest.fixture(scope="module")
def tables():
    return accuracy_tables(planted(), resamples=20)


def cell(table, **where):
    found = table
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    return found["estimate"].item()


def test_accuracies_are_counted_by_source_and_by_domain(tables):
    for arm, by_tuning in RIGHT.items():
        for tuning, counts in zip(TUNINGS, by_tuning, strict=True):
            here = {"arm": arm, "tuning": tuning, "metric": "accuracy"}
            for test, count in zip(TESTS, counts, strict=True):
                assert cell(tables["metrics"], test=test, **here) == count / 10
            # A domain is all pairs of its sources.
            helpful = (counts[0] + counts[1]) / 20
            assert cell(tables["metrics"], test="helpfulness", **here) == helpful
            assert cell(tables["metrics"], test="safety", **here) == counts[2] / 10
    # By strength: of four pairs of strength 4, those at places 6 to 9.
    here = {"arm": ArmName.SAFETY_MIX, "tuning": "tuned", "test": "third"}
    assert cell(tables["metrics"], metric="accuracy 4", **here) == 1 / 4
    assert cell(tables["metrics"], metric="accuracy 1", **here) == 1


def difference(tables, contrast, test, tuning="tuned"):
    return cell(
        tables["differences"], contrast=contrast, test=test, tuning=tuning, metric="accuracy"
    )


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("safety mix - helpfulness mix", {"first": -3, "second": -1, "third": 1}),
        ("safety only - helpfulness only", {"first": -7, "second": -4, "third": 5}),
        ("safety mix - safety only", {"first": 3, "second": 1, "third": -2}),
        ("helpfulness mix - helpfulness only", {"first": -1, "second": -2, "third": 2}),
        # Against the model of helpfulness on the first two tests, that of safety on the third.
        ("joint - own specialist", {"first": -1, "second": 1, "third": -1}),
        ("equal parts - own specialist", {"first": -1, "second": -2, "third": -3}),
        ("auxiliary loss - none", {"first": 0, "second": 1, "third": 1}),
    ],
)
def test_contrasts_take_the_right_arms_on_each_test(tables, contrast, expected):
    for test, gap in expected.items():
        assert difference(tables, contrast, test) == pytest.approx(gap / 10)
    helpful = (expected["first"] + expected["second"]) / 20
    assert difference(tables, contrast, "helpfulness") == pytest.approx(helpful)
    assert difference(tables, contrast, "safety") == pytest.approx(expected["third"] / 10)
    # The mean of both domains, not of all pairs.
    both = (helpful + expected["third"] / 10) / 2
    assert difference(tables, contrast, BOTH) == pytest.approx(both)


def test_contrasts_at_the_shared_setting_are_those_of_shared_arms(tables):
    joint = "joint - own specialist"
    assert difference(tables, joint, "first", "shared") == pytest.approx(0.0)
    assert difference(tables, joint, "second", "shared") == pytest.approx(-0.1)
    assert difference(tables, joint, "third", "shared") == pytest.approx(-0.2)
    # The arm with a quarter of safety was not run.
    assert set(tables["differences"]["contrast"]) == set(CONTRASTS) - {Contrast.OPEN_MIXES}


def test_contrasts_of_arms_that_were_not_run_are_left_out():
    few = {name: RIGHT[name] for name in (ArmName.HELPFUL, ArmName.SAFE, ArmName.HELPFULNESS_MIX)}
    found = accuracy_tables(planted(few), resamples=5)["differences"]
    assert set(found["contrast"]) == {
        "safety only - helpfulness only", "helpfulness mix - helpfulness only",
        "equal parts - own specialist",
    }  # fmt: skip


def test_a_source_of_a_domains_name_is_tested_once():
    outcome = planted()
    alone = replace(outcome, tested=replace(outcome.tested, sources=outcome.tested.domains))
    tables = accuracy_tables(alone, resamples=5)
    assert list(dict.fromkeys(tables["metrics"]["test"])) == ["helpfulness", "safety"]
    assert difference(tables, "joint - own specialist", "helpfulness") == pytest.approx(0)
    assert difference(tables, "joint - own specialist", "safety") == pytest.approx(-0.1)


def test_the_longer_response_is_a_baseline_for_each_test(tables):
    for test in (*TESTS, "helpfulness", "safety"):
        # Two longer, one as long, seven shorter.
        here = {"test": test}
        assert cell(tables["baselines"], metric="accuracy", **here) == 0.25
        assert cell(tables["baselines"], metric="accuracy 2", **here) == 0.75
        assert cell(tables["baselines"], metric="accuracy 4", **here) == 0
    assert {name.split()[0] for name in tables["baselines"]["metric"]} == {"accuracy"}


def test_differences_are_paired_over_groups_and_over_models():
    # Two seeds, each as good as the other arm's: only the means over seeds vary.
    outcome = planted(seeds=2)
    arms = dict(outcome.arms)
    for name, counts in ((ArmName.HELPFUL, (9, 3)), (ArmName.SAFE, (8, 2))):
        scores = np.stack([np.concatenate([pairs_of(n)] * 3) for n in counts])
        arms[name] = replace(arms[name], pairs=np.stack([scores, scores]))
    tables = accuracy_tables(replace(outcome, arms=arms), resamples=200)
    found = tables["differences"]
    row = found[
        (found["contrast"] == "safety only - helpfulness only") & (found["test"] == "third")
        & (found["tuning"] == "tuned") & (found["metric"] == "accuracy")
    ].iloc[0]  # fmt: skip
    assert row["estimate"] == pytest.approx(-0.1)
    # The arms differ by one pair for each seed, which replicates draw up to a few times …
    assert -0.3 <= row["low"] < -0.1 < row["high"] <= 0
    metrics = tables["metrics"]
    alone = metrics[
        (metrics["arm"] == ArmName.SAFE)
        & (metrics["test"] == "third")
        & (metrics["tuning"] == "tuned")
        & (metrics["metric"] == "accuracy")
    ].iloc[0]
    # … while each alone depends much on which seeds are drawn.
    assert alone["high"] - alone["low"] > 0.5


def test_the_mean_of_both_domains_draws_the_same_models_in_each():
    # What the first model gains on helpfulness it loses on safety, and the second the reverse.
    outcome = planted(seeds=2)
    arms = dict(outcome.arms)
    for name, counts in (
        (ArmName.HELPFUL, ((5, 5, 5), (5, 5, 5))),
        (ArmName.SAFE, ((7, 7, 3), (3, 3, 7))),
    ):
        scores = np.stack([np.concatenate([pairs_of(n) for n in part]) for part in counts])
        arms[name] = replace(arms[name], pairs=np.stack([scores, scores]))
    one = replace(outcome.tested, codes=np.zeros(30, dtype=int))
    tables = accuracy_tables(replace(outcome, arms=arms, tested=one), resamples=50)
    found = tables["differences"]
    found = found[
        (found["contrast"] == "safety only - helpfulness only") & (found["metric"] == "accuracy")
        & (found["tuning"] == "tuned")
    ].set_index("test")  # fmt: skip
    assert found.loc["safety", ["low", "high"]].tolist() == pytest.approx([-0.2, 0.2])
    assert found.loc[BOTH, ["low", "high"]].tolist() == pytest.approx([0, 0])


def test_intervals_are_over_split_groups():
    outcome = planted()
    one = replace(outcome.tested, codes=np.repeat([3, 5, 9], 10))
    metrics = accuracy_tables(replace(outcome, tested=one), resamples=20)["metrics"]
    part = metrics[(metrics["test"] == "third") & (metrics["metric"] == "accuracy")]
    assert (part["low"] == part["high"]).all()
    spread = accuracy_tables(outcome, resamples=20)["metrics"]
    part = spread[(spread["test"] == "third") & (spread["metric"] == "accuracy")]
    assert (part["low"] < part["high"]).all()


def test_test_pairs_are_those_of_the_groups_asked_for():
    prompts = [(Message("user", text),) for text in ("a", "b", "a")]
    ranked = [
        RankedGroup("1", prompts[0], ("yes", "never"), strength=3, domain="safety"),
        RankedGroup("2", prompts[1], ("no", "perhaps"), domain="helpfulness"),
        RankedGroup("3", prompts[2], ("maybe", "no"), strength=1, domain="helpfulness"),
    ]
    world = TradeoffData(
        ranked, [], np.array(["x", "y", "z"]), candidate_set(), {}, pd.DataFrame()
    )  # fmt: skip
    assert world.codes[0] == world.codes[2] != world.codes[1]
    found = TestPairs.from_data(world, np.array([2, 1]))
    assert found.strengths.tolist() == [1, 0]
    assert found.sources.tolist() == ["z", "y"]
    assert found.domains.tolist() == ["helpfulness", "helpfulness"]
    assert found.codes.tolist() == world.codes[[2, 1]].tolist()
    assert found.lengths.tolist() == [[5, 2], [2, 7]]
    parts = found.parts()
    assert {name: part.tolist() for name, part in parts.items()} == {
        "z": [True, False], "y": [False, True], "helpfulness": [True, True],
        "safety": [False, False],
    }  # fmt: skip


def test_what_a_threshold_cuts_off_before_and_after_calibration():
    # σ is below 0.2 where a score is below −log 4 = −1.39.
    arms = {
        ArmName.HELPFUL: ArmOutcome(
            np.zeros((2, 2, 0, 2)),
            np.array([[-2.0, -1, 0, 1, 2], [5, 5, 5, 5, 6]]),
            [Calibration(2.0, 0.5, 9), Calibration(1.0, 7.0, 9)],
        ),
        ArmName.SAFE: ArmOutcome(
            np.zeros((2, 2, 0, 2)),
            np.array([[-2.0, -2, -2, 1, 2], [0, 0, 0, 0, 0]]),
            [Calibration(0.1, 0.0, 9), Calibration(3.0, 1.0, 9)],
        ),
    }
    table = calibration_table(
        Outcome(planted().tested, candidate_set(), arms, pd.DataFrame()), 0.2
    )  # fmt: skip
    assert table.to_numpy().tolist() == [
        [ArmName.HELPFUL, 0, 2.0, 0.5, 0.2, 0.4],
        [ArmName.HELPFUL, 1, 1.0, 7.0, 0.0, 0.8],
        [ArmName.SAFE, 0, 0.1, 0.0, 0.6, 0.0],
        [ArmName.SAFE, 1, 3.0, 1.0, 0.0, 1.0],
    ]


@pytest.mark.parametrize("kind", [FullSettings, HumanFullSettings, HeadSettings])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": [ArmName.HELPFUL]},
            "arms must contain 'helpfulness only' and 'safety only', and only",
        ),
        (
            {"arms": [ArmName.HELPFUL, ArmName.SAFE, "magic"]},
            "got helpfulness only, safety only, magic",
        ),
        ({"weights": []}, "weights must contain 1, 2, 4, .* add 1, 2, 4"),
        ({"weights": [0.5, 1.0, 4.0]}, "weights must contain 1, 2, 4, .* add 2"),
        ({"thresholds": [0.5]}, "thresholds must contain 0.15, 0.5, .* add 0.15"),
        ({"weights": [1.0, 2.0, 4.0, -1.0]}, "weight of safety must be 0 or more, not -1.0"),
        ({"thresholds": [0.15, 0.5, 1.0]}, "a probability between 0 and 1, not 1.0"),
        ({"size": 0}, "size must be at least 1, not 0"),
        ({"seeds": 0}, "seeds must be at least 1, not 0"),
        ({"resamples": 0}, "resamples must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)

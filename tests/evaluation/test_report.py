"""The report: every number by hand on a few groups, and intervals that bundles do not change."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.special import expit

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation import report as evaluation_report
from posttrain.evaluation.bootstrap import Resamples, interval
from posttrain.evaluation.metrics import metrics, sufficient_statistics
from posttrain.evaluation.report import figures, no_better_than_length, report
from posttrain.evaluation.scoring import Scored

NUMBERS = itertools.count(1)


def scored(*scores, lengths=None, strength=None, domain=None, cluster_id=""):
    """A group with these scores and responses of these lengths, best first."""
    name = f"g{next(NUMBERS)}"
    names = ("edited", "chosen", "rejected")[-len(scores) :]
    lengths = lengths or range(1, len(scores) + 1)
    texts = tuple(name[0] * length for name, length in zip(names, lengths, strict=True))
    ranked = RankedGroup(
        name,
        (Message("user", "Why?"),),
        texts,
        strength=strength,
        cluster_id=cluster_id or name,
        domain=domain,
    )
    return Scored(ranked, dict(zip(names, scores, strict=True)))


#: Differences of chosen and rejected: 2, −1, 0, 3, 1; of lengths: 3, 5, 0, −2, −1.
FIVE = [
    scored(2.0, 0.0, lengths=(5, 2), strength=4, domain="helpfulness", cluster_id="first"),
    scored(-1.0, 0.0, lengths=(9, 4), strength=1, domain="helpfulness", cluster_id="first"),
    scored(1.0, 1.0, lengths=(3, 3), strength=1, domain="safety"),
    scored(3.5, 3.0, 0.0, lengths=(1, 2, 4), strength=3, domain="safety"),
    scored(0.5, 2.0, 1.0, lengths=(4, 5, 6)),
]
DIFFERENCES = np.array([2.0, -1.0, 0.0, 3.0, 1.0])


def estimates(found):
    return {name: one["estimate"] for name, one in found.items()}


def test_five_groups_by_hand():
    found = report(FIVE, resamples=200)
    assert found["groups"] == 4
    assert found["pairs"] == 5
    assert found["accuracy"]["estimate"] == 3.5 / 5
    assert estimates(found["accuracy_by_strength"]) == {"1": 0.25, "3": 1.0, "4": 1.0}
    assert estimates(found["accuracy_by_domain"]) == {"helpfulness": 0.5, "safety": 0.75}
    both = found["accuracy_by_domain_and_strength"]
    assert {domain: estimates(one) for domain, one in both.items()} == {
        "helpfulness": {"1": 0.0, "4": 1.0},
        "safety": {"1": 0.5, "3": 1.0},
    }
    logs = np.log(expit(DIFFERENCES))
    assert found["log_likelihood"]["estimate"] == pytest.approx(logs.mean(), abs=1e-14)
    # σ(|Δ|) is 0.881, 0.731, 0.5, 0.953 and 0.731, so only the second and the last share a bin.
    confidence = expit(abs(DIFFERENCES))
    gaps = [confidence[0] - 1, 2 * confidence[1] - 1, 0.0, confidence[3] - 1]
    assert found["calibration_error"]["estimate"] == pytest.approx(
        sum(map(abs, gaps)) / 5, abs=1e-14
    )
    assert [list(row) for row in found["calibration"]] == [["confidence", "accuracy", "share"]] * 4
    assert [list(row.values()) for row in found["calibration"]] == [
        pytest.approx(row, abs=1e-14)
        for row in (
            [0.5, 0.5, 0.2],
            [confidence[1], 0.5, 0.4],
            [confidence[0], 1.0, 0.2],
            [confidence[3], 1.0, 0.2],
        )
    ]
    assert found["ties"] == 0.2
    rated = [2.0, 0.0, -1.0, 0.0, 1.0, 1.0, 3.0, 0.0, 2.0, 1.0]
    assert found["scores"] == {
        "mean": pytest.approx(0.9, abs=1e-15),
        "standard_deviation": pytest.approx(np.std(rated), abs=1e-15),
    }
    # Chosen is longer twice, shorter twice and once of equal length.
    assert found["length_baseline"]["estimate"] == 0.5
    assert found["accuracy_over_length_baseline"]["estimate"] == pytest.approx(0.2, abs=1e-15)
    # Of the four pairs with a longer response, it has the higher score in the first one only.
    assert found["longer_preferred"]["estimate"] == 0.25
    assert {kind: (one["pairs"], one["estimate"]) for kind, one in found["by_pair"].items()} == {
        "chosen > rejected": (5, 0.7),
        "edited > chosen": (2, 0.5),
        "edited > rejected": (2, 0.5),
    }


def test_a_report_has_these_parts():
    assert list(report(FIVE, resamples=5)) == [
        "groups", "pairs", "accuracy", "accuracy_by_strength", "accuracy_by_domain",
        "accuracy_by_domain_and_strength", "log_likelihood", "calibration_error", "calibration",
        "ties", "scores", "length_baseline", "accuracy_over_length_baseline", "longer_preferred",
        "by_pair",
    ]  # fmt: skip


def test_edits_change_nothing_but_their_own_pairs():
    plain = [
        Scored(
            RankedGroup(
                one.group.id,
                one.group.prompt,
                one.group.responses[-2:],
                one.group.strength,
                cluster_id=one.group.cluster_id,
                domain=one.group.domain,
            ),
            {name: one.scores[name] for name in ("chosen", "rejected")},
        )
        for one in FIVE
    ]
    found, expected = report(FIVE, resamples=50), report(plain, resamples=50)
    assert list(expected["by_pair"]) == ["chosen > rejected"]
    assert found["by_pair"]["chosen > rejected"] == expected["by_pair"]["chosen > rejected"]
    assert found | {"by_pair": None} == expected | {"by_pair": None}


def test_ties_count_half():
    found = report([scored(1.0, 1.0, strength=2)] * 3 + [scored(2.0, 1.0, strength=2)])
    assert found["accuracy"]["estimate"] == (1.5 + 1) / 4
    assert found["accuracy_by_strength"]["2"]["estimate"] == (1.5 + 1) / 4
    assert found["ties"] == 0.75
    # A score that moves by nothing at all is a tie, and by the least is none.
    close = report([scored(np.nextafter(1.0, 2.0), 1.0)])
    assert (close["accuracy"]["estimate"], close["ties"]) == (1.0, 0.0)


def test_lengths_are_those_of_characters():
    pairs = [("ää", "bbb"), ("ccc", "dd"), ("ee", "ff")]
    groups = [
        Scored(
            RankedGroup(f"g{number}", (Message("user", "Why?"),), texts),
            {"chosen": 1.0, "rejected": 0.0},
        )
        for number, texts in enumerate(pairs)
    ]
    found = report(groups)
    assert found["length_baseline"]["estimate"] == 0.5
    assert found["longer_preferred"]["estimate"] == 0.5


def test_without_a_longer_response_there_is_no_preference_for_it():
    found = report([scored(1.0, 0.0, lengths=(3, 3)), scored(0.0, 1.0, lengths=(2, 2))])
    assert found["longer_preferred"] is None
    assert found["length_baseline"] == {"estimate": 0.5, "low": 0.5, "high": 0.5}
    assert found["accuracy_over_length_baseline"]["estimate"] == 0.0


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
def test_scores_that_are_lengths_prefer_the_longer_response(sign, expected):
    lengths = [(5, 2), (1, 4), (3, 3), (2, 7), (8, 1)]
    found = report(
        [scored(sign * first, sign * second, lengths=(first, second)) for first, second in lengths]
    )
    assert found["longer_preferred"]["estimate"] == expected
    assert found["length_baseline"]["estimate"] == 0.5
    if sign == 1.0:
        # Not only the estimate: on every draw of groups both are the same.
        zero = {"estimate": 0.0, "low": 0.0, "high": 0.0}
        assert found["accuracy_over_length_baseline"] == zero
        assert found["accuracy"] == found["length_baseline"]
        assert found["accuracy"]["low"] < 0.5 < found["accuracy"]["high"]


def test_strengths_and_domains_that_do_not_occur_are_left_out():
    found = report([scored(1.0, 0.0, strength=2), scored(1.0, 0.0)])
    assert list(found["accuracy_by_strength"]) == ["2"]
    assert found["accuracy_by_domain"] == {}
    assert report([scored(1.0, 0.0)])["accuracy_by_strength"] == {}


def test_accuracy_by_domain_and_strength_is_there_where_both_are():
    found = report(
        [
            scored(1.0, 0.0, strength=2),
            scored(0.0, 1.0, domain="safety"),
            scored(1.0, 0.0, strength=4, domain="helpfulness"),
            scored(0.0, 1.0, strength=4, domain="helpfulness"),
            scored(1.0, 0.0, domain="helpfulness"),
        ]
    )
    assert estimates(found["accuracy_by_domain"]) == {"helpfulness": 2 / 3, "safety": 0.0}
    assert list(found["accuracy_by_domain_and_strength"]) == ["helpfulness"]
    assert estimates(found["accuracy_by_domain_and_strength"]["helpfulness"]) == {"4": 0.5}
    assert report([scored(1.0, 0.0)])["accuracy_by_domain_and_strength"] == {}


def test_of_one_domain_alone_accuracy_by_strength_is_that_of_all():
    groups = drawn(80)
    assert {one.group.domain for one in groups} == {"helpfulness"}
    found = report(groups, resamples=100)
    assert found["accuracy_by_domain_and_strength"] == {
        "helpfulness": found["accuracy_by_strength"]
    }


def drawn(count, seed=0):
    """Scored simulated groups, of which some share a prompt."""
    random = np.random.default_rng(seed)
    return [
        Scored(
            group.ranked,
            dict(
                zip(
                    ("edited", "chosen", "rejected")[-len(group.ranked.responses) :],
                    np.sort(random.normal(size=len(group.ranked.responses)))[::-1]
                    + random.normal(scale=0.7, size=len(group.ranked.responses)),
                    strict=True,
                )
            ),
        )
        for group in simulate(count, seed=seed, edited_share=0.4)
    ]


def test_intervals_are_those_of_a_bootstrap_over_groups():
    groups = drawn(150)
    names = sorted({one.group.cluster_id for one in groups})
    assert len(names) < len(groups)
    found = report(groups, resamples=300, seed=4)
    assert (found["groups"], found["pairs"]) == (len(names), len(groups))
    # The same draws, of groups in the order in which they first occur.
    first = list(dict.fromkeys(one.group.cluster_id for one in groups))
    right = np.array([one.scores["chosen"] > one.scores["rejected"] for one in groups])
    longer = np.array([np.sign(len(one.group.chosen) - len(one.group.rejected)) for one in groups])
    by_length = (longer + 1) / 2
    places = np.array([first.index(one.group.cluster_id) for one in groups])
    resampled = Resamples.draw(len(first), 1, count=300, seed=4).groups
    for values, name in (
        (right, "accuracy"),
        (by_length, "length_baseline"),
        (right - by_length, "accuracy_over_length_baseline"),
    ):
        means = [np.average(values, weights=weights[places]) for weights in resampled]
        low, high = np.quantile(means[1:], [0.025, 0.975])
        assert found[name] == {
            "estimate": pytest.approx(means[0], abs=1e-12),
            "low": pytest.approx(low, abs=1e-12),
            "high": pytest.approx(high, abs=1e-12),
        }
        assert low < means[0] < high


def test_metrics_are_those_of_sums_over_pairs():
    groups = drawn(150)
    numbers = np.array(
        [(one.scores["chosen"], one.scores["rejected"], one.group.strength) for one in groups]
    )
    expected = metrics(sufficient_statistics(*numbers.T, np.zeros(len(groups), dtype=int), 1)[0])
    found = report(groups, resamples=20)
    for ours, theirs in (
        ("accuracy", "accuracy"),
        ("log_likelihood", "log-likelihood"),
        ("calibration_error", "calibration error"),
    ):
        assert found[ours]["estimate"] == pytest.approx(expected[theirs], abs=1e-12)
    for strength, one in found["accuracy_by_strength"].items():
        assert one["estimate"] == pytest.approx(expected[f"accuracy {strength}"], abs=1e-12)
    assert list(found["accuracy_by_strength"]) == ["1", "2", "3", "4"]
    shares = [row["share"] for row in found["calibration"]]
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def flattened(found, path=()):
    for name, value in found.items():
        if isinstance(value, dict):
            yield from flattened(value, (*path, name))
        else:
            yield (*path, name), value


def test_bundles_of_many_groups_keep_estimates_and_nearly_keep_intervals(monkeypatch):
    groups = drawn(900)
    expected = report(groups, resamples=1000)
    assert expected["groups"] > 500
    monkeypatch.setattr(evaluation_report, "BUNDLES", 200)
    found = report(groups, resamples=1000)
    assert found["groups"] == expected["groups"]
    wanted = dict(flattened(expected))
    assert dict(flattened(found)).keys() == wanted.keys()
    widths = []
    for path, value in flattened(found):
        if path[-1] in ("low", "high"):
            width = wanted[(*path[:-1], "high")] - wanted[(*path[:-1], "low")]
            assert value == pytest.approx(wanted[path], abs=0.25 * width)
            widths.append(value != wanted[path])
        elif path != ("calibration",):
            assert value == pytest.approx(wanted[path], abs=1e-12)
    assert any(widths)
    for ours, theirs in zip(found["calibration"], expected["calibration"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_as_many_groups_as_bundles_are_resampled_one_by_one(monkeypatch):
    groups = drawn(60)
    expected = report(groups, resamples=50)
    for bundles, same in ((expected["groups"], True), (expected["groups"] - 1, False)):
        monkeypatch.setattr(evaluation_report, "BUNDLES", bundles)
        assert (report(groups, resamples=50) == expected) == same


def test_a_report_repeats_for_its_seed():
    groups = drawn(40)
    assert report(groups, resamples=50) == report(iter(groups), resamples=50)
    other = report(groups, resamples=50, seed=1)
    assert other["accuracy"]["estimate"] == report(groups, resamples=50)["accuracy"]["estimate"]
    assert other != report(groups, resamples=50)


@pytest.mark.parametrize("groups", [FIVE, FIVE[2:3], drawn(30)], ids=["five", "one", "drawn"])
def test_a_report_is_json(groups):
    found = report(groups, resamples=20)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_single_group_has_an_interval_of_no_width():
    found = report([scored(1.0, 0.0, strength=3)])
    sure = {"estimate": 1.0, "low": 1.0, "high": 1.0}
    assert found["accuracy"] == found["accuracy_by_strength"]["3"] == sure


def test_an_interval_that_no_replicate_supports_is_missing():
    # In ten thousand groups drawn once, the only one of its domain need not come up.
    none = evaluation_report._estimate(np.array([1.0, math.nan, math.nan]))
    assert none == dict.fromkeys(("estimate", "low", "high"))
    some = evaluation_report._estimate(np.array([1.0, math.nan, 0.5]))
    assert some == dict(
        zip(("estimate", "low", "high"), interval(np.array([1.0, 0.5])), strict=True)
    )


def test_nothing_to_report_is_an_error():
    with pytest.raises(ValueError, match="no group is left to evaluate"):
        report([])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value):
    for scores in ((value, 0.0), (0.0, value), (value, 1.0, 0.0)):
        with pytest.raises(ValueError, match="scores must be finite"):
            report([scored(1.0, 0.0), scored(*scores)], resamples=5)


@pytest.mark.parametrize(
    ("better", "verdict"), [(40, None), (20, "not measurably better"), (0, "worse")]
)
def test_a_model_that_length_would_replace_is_warned_of(better, verdict):
    # The longer response is preferred by 20 of 40 pairs; the model is right about the first ones.
    groups = [
        scored(1.0 if place < better else -1.0, 0.0, lengths=(2, 1) if place % 2 else (1, 2))
        for place in range(40)
    ]
    warning = no_better_than_length(report(groups, resamples=200))
    assert warning is None if verdict is None else warning.startswith(verdict)


def test_figures_name_what_the_report_holds():
    lines = dict(figures(report(FIVE, resamples=200)))
    assert lines["accuracy on held-out pairs"].startswith("70.0 % [")
    assert lines["accuracy at strength 3"].startswith("100.0 %")
    assert lines["accuracy in safety"].startswith("75.0 %")
    assert lines["accuracy on edited > rejected"].startswith("50.0 %")
    assert lines["ties"] == "20.00 %"

"""Mixes of domains: exact shares, no group twice, the same groups for a seed, clear refusals."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.mixing import MIXES, counts_for, mix, mix_codes, parse_mix

DOMAINS = ["helpfulness"] * 30 + ["safety"] * 20 + ["code"] * 4

#: Shares that sum to 1, some of them 0.
SHARES = st.lists(st.integers(0, 100), min_size=1, max_size=4).filter(any).map(
    lambda parts: {f"d{k}": part / sum(parts) for k, part in enumerate(parts)}
)  # fmt: skip


def taken(domains, indices):
    return Counter(domains[index] for index in indices)


def test_mixes_are_those_of_llama_2():
    # Section 3.2.2.
    assert parse_mix("helpfulness") == {"helpfulness": 0.5, "safety": 0.5}
    assert parse_mix("safety") == {"safety": 0.9, "helpfulness": 0.1}
    parse_mix("safety")["safety"] = 0.0
    assert MIXES["safety"] == {"safety": 0.9, "helpfulness": 0.1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("helpfulness:0.7,safety:0.3", {"helpfulness": 0.7, "safety": 0.3}),
        (" a : 1e-1 , b:.9", {"a": 0.1, "b": 0.9}),
        ("only:1", {"only": 1.0}),
        ("a:1,b:0", {"a": 1.0, "b": 0.0}),
        ("url:x:0.5,y:0.5", {"url:x": 0.5, "y": 0.5}),
        ("a:0.3333333,b:0.3333333,c:0.3333333", dict.fromkeys("abc", 0.3333333)),
    ],
)
def test_shares_are_read(text, expected):
    assert parse_mix(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown mix ''; give shares by domain, such as helpfulness:0.7,safety:0.3, or one"),
        ("saftey", "unknown mix 'saftey'.*one of Llama 2's: helpfulness, safety"),
        ("helpfulness,safety", "unknown mix 'helpfulness,safety'"),
        ("a:half,b:0.5", "unknown mix 'a:half,b:0.5'"),
        ("a:0.5,:0.5", "unknown mix 'a:0.5,:0.5'"),
        ("a:0.5,b:0.5,", "unknown mix 'a:0.5,b:0.5,'"),
        ("a:0.5,a:0.5", "names a domain twice"),
        ("a:0.5, a:0.5", "names a domain twice"),
        ("a:1.5,b:-0.5", "must not be negative and must sum to 1, not to 1"),
        ("a:0.7,b:0.2", "must sum to 1, not to 0.9"),
        ("a:70,b:30", "must sum to 1, not to 100"),
        ("a:nan,b:1", "must sum to 1, not to nan"),
        ("a:inf", "must sum to 1, not to inf"),
    ],
)
def test_what_is_no_mix_is_refused_in_words(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_mix(text)


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ({"a": 0.9, "b": 0.1}, 10, {"a": 9, "b": 1}),
        ({"a": 0.9, "b": 0.1}, 1, {"a": 1, "b": 0}),
        ({"a": 0.29, "b": 0.71}, 100, {"a": 29, "b": 71}),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 7, {"a": 3, "b": 2, "c": 2}),
        ({"a": 0.5, "b": 0.5}, 0, {"a": 0, "b": 0}),
        # Typed in with a sum that is not quite 1.
        ({"a": 0.5000005, "b": 0.5}, 10_000_000, {"a": 5_000_002, "b": 4_999_998}),
        ({"a": 0.4999995, "b": 0.5}, 10_000_000, {"a": 4_999_997, "b": 5_000_003}),
    ],
)
def test_counts_by_hand(shares, total, expected):
    assert counts_for(shares, total) == expected


@given(SHARES, st.integers(0, 10**7))
def test_counts_sum_to_the_total_and_are_less_than_one_from_their_shares(shares, total):
    counts = counts_for(shares, total)
    assert counts.keys() == shares.keys()
    assert sum(counts.values()) == total
    for name, count in counts.items():
        assert abs(count - shares[name] * total) < 1 + 1e-6
        assert count >= 0


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (MIXES["helpfulness"], {"helpfulness": 20, "safety": 20}),
        # All of the safety data, and 20 / 0.9 · 0.1 of the others.
        (MIXES["safety"], {"safety": 20, "helpfulness": 2}),
        ({"code": 0.1, "helpfulness": 0.9}, {"code": 3, "helpfulness": 30}),
        ({"code": 1.0}, {"code": 4}),
        ({"code": 1.0, "safety": 0.0}, {"code": 4}),
        ({"code": 1.0, "poetry": 0.0}, {"code": 4}),
    ],
)
def test_as_many_are_taken_as_the_scarcest_domain_allows(shares, expected):
    assert taken(DOMAINS, mix(DOMAINS, shares, seed=0)) == expected


def test_a_total_is_taken_in_the_same_shares():
    found = mix(DOMAINS, MIXES["safety"], seed=0, total=10)
    assert taken(DOMAINS, found) == {"safety": 9, "helpfulness": 1}


def test_a_seed_decides_which_groups_are_taken():
    options = {"shares": MIXES["helpfulness"], "total": 20}
    found = [mix(DOMAINS, **options, seed=seed).tolist() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    # The order of shares is of no consequence.
    turned = dict(reversed(MIXES["helpfulness"].items()))
    assert mix(DOMAINS, turned, seed=0, total=20).tolist() == found[0]


def test_every_group_of_a_domain_has_its_chance():
    seen = set()
    for seed in range(200):
        seen.update(mix(DOMAINS, MIXES["helpfulness"], seed=seed, total=10).tolist())
    assert seen == set(range(50))


@given(
    st.lists(st.sampled_from(["d0", "d1", "d2", "d3"]), max_size=80),
    SHARES,
    st.integers(0, 5),
    st.none() | st.floats(0, 1),
)
def test_a_mix_has_its_shares_its_total_and_no_group_twice(domains, shares, seed, part):
    domains = ["d2", "d0", *domains, "d3", "d1"]
    available = Counter(domains)
    wanted = {name: share for name, share in shares.items() if share}
    most = min(available[name] / share for name, share in wanted.items())
    total = None if part is None else max(1, math.floor(part * most))
    found = mix(domains, shares, seed=seed, total=total)
    assert (np.diff(found) > 0).all()
    assert 0 <= found.min() <= found.max() < len(domains)
    if total is None:
        # One group more would be too many for some domain.
        assert most - 1 - 1e-6 < len(found) < most + 1e-6
    else:
        assert len(found) == total
    counts = taken(domains, found)
    assert counts.keys() <= wanted.keys()
    for name in wanted:
        assert abs(counts[name] - shares[name] * len(found)) < 1 + 1e-6
    assert mix(domains, shares, seed=seed, total=total).tolist() == found.tolist()


def test_places_of_domains_give_the_same_mix():
    known = sorted(set(DOMAINS))
    codes = np.array([known.index(name) for name in DOMAINS])
    for names, numbers in ((known, codes), (["none of", *known], codes + 1)):
        found = mix_codes(numbers, names, MIXES["safety"], seed=3)
        assert found.tolist() == mix(DOMAINS, MIXES["safety"], seed=3).tolist()


@pytest.mark.parametrize(
    ("domains", "shares", "total", "problem"),
    [
        (
            ["safety", None, "safety", None],
            {"safety": 1.0},
            None,
            r"2 of 4 groups have no domain \(the first is number 1\).*set 'domain' in every record",
        ),
        (
            ["safety", "code"],
            MIXES["safety"],
            None,
            "no group has the domain 'helpfulness' of the mix; there are: code, safety;",
        ),
        ([], MIXES["safety"], None, "no group has the domain 'safety' of the mix; there are: none"),
        (
            DOMAINS,
            MIXES["helpfulness"],
            42,
            r"a mix of 42 groups needs .*'safety': 21.*and there are \{'helpfulness': 30, "
            r"'safety': 20\}; take from 1 to 40 groups",
        ),
        (DOMAINS, MIXES["helpfulness"], 0, "a mix of 0 groups needs .* take from 1 to 40 groups"),
        (DOMAINS, MIXES["helpfulness"], -2, "a mix of -2 groups needs"),
    ],
)
def test_a_mix_that_cannot_be_made_is_refused_in_words(domains, shares, total, problem):
    with pytest.raises(ValueError, match=problem):
        mix(domains, shares, seed=0, total=total)

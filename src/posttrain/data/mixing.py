"""Mixes of domains to train on: which share of the groups comes from which domain.

Llama 2 (section 3.2.2) trains two reward models on mixed data: helpfulness on all of its
helpfulness data and an equal part of the rest, safety on 90 % safety and 10 % helpfulness. That
rest was safety and open-source data together; where there are only two domains, half of it safety
is the most that this can mean.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from posttrain.data.splits import Indices
from posttrain.errors import UserError

#: Llama 2's mixes, by the model that they are for.
MIXES: dict[str, dict[str, float]] = {
    "helpfulness": {"helpfulness": 0.5, "safety": 0.5},
    "safety": {"safety": 0.9, "helpfulness": 0.1},
}


def parse_mix(text: str) -> dict[str, float]:
    """Shares by domain, from a key of :data:`MIXES` or from ``helpfulness:0.7,safety:0.3``.

    Raises:
        UserError: If it is neither, a domain occurs twice, or shares are negative or not of sum 1.

    >>> parse_mix("helpfulness:0.7,safety:0.3")
    {'helpfulness': 0.7, 'safety': 0.3}
    >>> parse_mix("safety")
    {'safety': 0.9, 'helpfulness': 0.1}
    """
    if text in MIXES:
        return dict(MIXES[text])
    # From the right, so that a domain's name may hold a colon.
    parts = [part.rpartition(":") for part in text.split(",")]
    try:
        shares = {name.strip(): float(share) for name, _, share in parts}
    except ValueError:
        shares = {}
    if not shares or not all(shares):
        raise UserError(
            f"unknown mix {text!r}; give shares by domain, such as helpfulness:0.7,safety:0.3, or "
            f"one of Llama 2's: {', '.join(MIXES)}"
        )
    if len(shares) < len(parts):
        raise UserError(f"mix {text!r} names a domain twice; give each domain one share")
    total = sum(shares.values())
    if not all(share >= 0 for share in shares.values()) or not abs(total - 1) <= 1e-6:
        raise UserError(
            f"mix {text!r}: shares must not be negative and must sum to 1, not to {total:g}"
        )
    return shares


def counts_for(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to ``total``, each less than one from its share of it."""
    # Over millions of groups, also a rounded sum is some groups away from the total.
    scale = total / math.fsum(shares.values())
    exact = {name: share * scale for name, share in shares.items()}
    # The small number stands for rounding errors: 0.29 * 100 is 28.999….
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def mix(
    domains: Sequence[str | None],
    shares: Mapping[str, float],
    *,
    seed: int,
    total: int | None = None,
) -> Indices:
    """Choose groups so that each domain has its share: ascending indices, each at most once.

    Domains without a share are left out. By default, ``total`` is as many groups as the scarcest
    domain allows.

    Raises:
        UserError: If a group has no domain, a domain has no group, or too few for ``total``.
    """
    known = sorted({name for name in domains if name is not None})
    place = {name: number for number, name in enumerate(known)}
    codes = np.array([-1 if name is None else place[name] for name in domains], dtype=np.intp)
    return mix_codes(codes, known, shares, seed=seed, total=total)


def mix_codes(
    codes: Indices,
    known: Sequence[str],
    shares: Mapping[str, float],
    *,
    seed: int,
    total: int | None = None,
    name_of: Callable[[int], str] = "number {}".format,
) -> Indices:
    """As :func:`mix`, given the place of each group's domain in ``known``, -1 where it has none.

    ``name_of`` is what an error message calls the group at an index.
    """
    without = np.flatnonzero(codes < 0)
    if len(without):
        raise UserError(
            f"{len(without)} of {len(codes)} groups have no domain (the first is "
            f"{name_of(int(without[0]))}), so they belong to no share of a mix; set 'domain' in "
            "every record, or train without a mix"
        )
    sizes = np.bincount(codes, minlength=len(known)).tolist()
    available = {name: size for name, size in zip(known, sizes, strict=True) if size}
    wanted = {name: share for name, share in shares.items() if share > 0}
    missing = [name for name in wanted if name not in available]
    if missing:
        raise UserError(
            f"no group has the domain {missing[0]!r} of the mix; there are: "
            f"{', '.join(sorted(available)) or 'none'}; add such data, or give other shares"
        )
    # The small number stands for rounding errors: 29 / 0.29 is 100.00….
    most = math.floor(min(available[name] / share for name, share in wanted.items()) + 1e-9)
    chosen = counts_for(wanted, most if total is None else total)
    if sum(chosen.values()) < 1 or any(count > available[name] for name, count in chosen.items()):
        there = {name: available[name] for name in chosen}
        raise UserError(
            f"a mix of {most if total is None else total} groups needs {chosen}, and there are "
            f"{there}; take from 1 to {most} groups, or other shares"
        )
    rng = np.random.default_rng(seed)
    place = {name: number for number, name in enumerate(known)}
    # By name, so that the order in which shares are given changes nothing.
    parts = [
        rng.permutation(np.flatnonzero(codes == place[name]))[:count]
        for name, count in sorted(chosen.items())
    ]
    return np.sort(np.concatenate(parts))

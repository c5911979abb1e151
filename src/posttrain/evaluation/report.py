"""What ``posttrain evaluate`` reports: how well scores rank held-out responses, with intervals."""

from array import array
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from posttrain.data.messages import printable
from posttrain.data.preferences import PairKind
from posttrain.errors import UserError
from posttrain.evaluation.bootstrap import Resamples, interval
from posttrain.evaluation.metrics import metrics, reliability, sufficient_statistics
from posttrain.evaluation.scoring import Scored

#: Groups beyond this number are resampled in so many random bundles, which takes bounded memory.
BUNDLES = 4000


def report(scored: Iterable[Scored], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Metrics of scored groups, as JSON. Only numbers stay in memory, some 80 bytes a pair.

    Everything but ``by_pair`` is about chosen and rejected, which annotators compared. Estimates
    come as ``{"estimate", "low", "high"}`` with 95 % intervals from a bootstrap over the data's
    ``group``:

    - ``groups`` (distinct), ``pairs``;
    - ``accuracy``, ties counted half, and ``accuracy_by_strength``, ``accuracy_by_domain``;
      ``accuracy_by_domain_and_strength``, by domain and then by strength, where both exist;
    - ``log_likelihood``, mean log σ(Δ) in nats; ``calibration_error`` (expected, ten bins), and
      ``calibration``, those bins with mean confidence, accuracy and share of pairs;
    - ``ties``, share of pairs; ``scores`` with ``mean`` and ``standard_deviation``;
    - ``length_baseline``: accuracy of preferring the longer response (in characters);
      ``accuracy_over_length_baseline``, the paired difference; ``longer_preferred``, share of pairs
      in which the longer response has the higher score;
    - ``by_pair``: accuracy on every kind of pair, those with an edited response included.
    """
    pairs: dict[str, _Pairs] = {}
    codes: dict[str, int] = {}
    for one in scored:
        code = codes.setdefault(one.group.cluster_id, len(codes))
        texts = dict(zip(one.scores, one.group.responses, strict=True))
        for winner, loser in combinations(one.scores, 2):
            kind = f"{winner} > {loser}"
            strength = one.group.strength if kind == PairKind.RATED else None
            pairs.setdefault(kind, _Pairs()).add(
                (one.scores[winner], one.scores[loser], len(texts[winner]), len(texts[loser])),
                (strength or 0, code),
                one.group.domain,
            )
    if not codes:
        raise UserError("no group is left to evaluate")
    bundles = np.arange(len(codes))
    if len(codes) > BUNDLES:
        bundles = np.random.default_rng(seed).permutation(len(codes)) % BUNDLES
    count = min(len(codes), BUNDLES)
    drawn = Resamples.draw(count, 1, count=resamples, seed=seed)

    def measured(kind: _Pairs, of: np.ndarray, where: np.ndarray | None = None) -> Any:
        """Sums of some scores, and the bootstrap replicates of every metric of them."""
        there = np.ones(len(kind), dtype=bool) if where is None else where
        sums = sufficient_statistics(
            of[there, 0], of[there, 1], kind.strengths[there], bundles[kind.codes[there]], count
        )
        return sums.sum(axis=0), drawn.measure(sums[None])

    rated = pairs[PairKind.RATED]
    sums, replicates = measured(rated, rated.scores)
    _, by_length = measured(rated, rated.lengths)
    score_longer = np.where(
        (rated.lengths[:, 0] >= rated.lengths[:, 1])[:, None], rated.scores, rated.scores[:, ::-1]
    )
    by_domain = {
        domain: measured(rated, rated.scores, rated.domains == domain)[1]
        for domain in sorted(set(rated.domains) - {""})
    }
    unequal = rated.lengths[:, 0] != rated.lengths[:, 1]
    longer = measured(rated, score_longer, unequal)[1]["accuracy"] if unequal.any() else None
    return {
        "groups": len(codes),
        "pairs": len(rated),
        "accuracy": _estimate(replicates["accuracy"]),
        "accuracy_by_strength": _by_strength(replicates),
        "accuracy_by_domain": {
            domain: _estimate(found["accuracy"]) for domain, found in by_domain.items()
        },
        "accuracy_by_domain_and_strength": {
            domain: accuracies
            for domain, found in by_domain.items()
            if (accuracies := _by_strength(found))
        },
        "log_likelihood": _estimate(replicates["log-likelihood"]),
        "calibration_error": _estimate(replicates["calibration error"]),
        "calibration": [
            dict(zip(("confidence", "accuracy", "share"), map(float, row), strict=True))
            for row in reliability(sums)
            if row[2] > 0
        ],
        "ties": float(metrics(sums)["ties"]),
        "scores": {
            "mean": float(rated.scores.mean()),
            "standard_deviation": float(rated.scores.std()),
        },
        "length_baseline": _estimate(by_length["accuracy"]),
        "accuracy_over_length_baseline": _estimate(replicates["accuracy"] - by_length["accuracy"]),
        "longer_preferred": None if longer is None else _estimate(longer),
        "by_pair": {
            kind: {"pairs": len(found)} | _estimate(measured(found, found.scores)[1]["accuracy"])
            for kind, found in pairs.items()
        },
    }


def figures(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What :func:`report` has found, as lines to read: a name and a number with its interval."""
    lines = [("accuracy on held-out pairs", in_percent(found["accuracy"]))]
    lines += [
        (f"accuracy at strength {strength}", in_percent(value))
        for strength, value in found["accuracy_by_strength"].items()
    ]
    lines += [
        (f"accuracy in {printable(domain)}", in_percent(value))
        for domain, value in found["accuracy_by_domain"].items()
    ]
    lines += [
        ("accuracy of preferring the longer response", in_percent(found["length_baseline"])),
        (
            "above preferring the longer response",
            in_percent(found["accuracy_over_length_baseline"], "points"),
        ),
        # Its bootstrap is biased: resampled data look less calibrated than they are.
        ("expected calibration error", f"{100 * found['calibration_error']['estimate']:.1f} %"),
        ("ties", f"{100 * found['ties']:.2f} %"),
    ]
    if len(found["by_pair"]) > 1:
        lines += [
            (f"accuracy on {kind}", in_percent(value)) for kind, value in found["by_pair"].items()
        ]
    return lines


def in_percent(value: Mapping[str, float | None], unit: str = "%") -> str:
    """An estimate with its interval.

    >>> in_percent({"estimate": 0.7251, "low": 0.7012, "high": 0.7488})
    '72.5 % [70.1, 74.9]'
    """
    estimate, low, high = value["estimate"], value["low"], value["high"]
    if estimate is None:
        return "–"
    between = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * estimate:.1f} {unit}{between}"


def no_better_than_length(found: Mapping[str, Any]) -> str | None:
    """A warning that a model does no better than preferring the longer response, if it does not."""
    gain = found["accuracy_over_length_baseline"]
    if gain["low"] is None or gain["low"] > 0:
        return None
    verdict = "worse than" if gain["high"] < 0 else "not measurably better than"
    return (
        f"{verdict} preferring the longer response: {in_percent(found['accuracy'])} against "
        f"{in_percent(found['length_baseline'])} of {found['pairs']:,} held-out pairs"
    )


class _Pairs:
    """Pairs of one kind, as numbers: first all are added, then arrays are read."""

    def __init__(self) -> None:
        self._numbers = array("d")
        self._codes = array("q")
        self._domains: list[str] = []

    def add(self, numbers: tuple[float, ...], codes: tuple[int, int], domain: str | None) -> None:
        self._numbers.extend(numbers)
        self._codes.extend(codes)
        self._domains.append(domain or "")

    def __len__(self) -> int:
        return len(self._domains)

    @cached_property
    def scores(self) -> np.ndarray:
        """Scores of winner and loser, ``[pairs, 2]``."""
        return np.array(self._numbers).reshape(-1, 4)[:, :2]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of winner and loser, ``[pairs, 2]``."""
        return np.array(self._numbers).reshape(-1, 4)[:, 2:]

    @cached_property
    def strengths(self) -> np.ndarray:
        return np.array(self._codes).reshape(-1, 2)[:, 0]

    @cached_property
    def codes(self) -> np.ndarray:
        return np.array(self._codes).reshape(-1, 2)[:, 1]

    @cached_property
    def domains(self) -> np.ndarray:
        return np.array(self._domains)


def _by_strength(replicates: dict[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Accuracy at every strength that occurs."""
    return {
        strength: _estimate(replicates[f"accuracy {strength}"])
        for strength in "1234"
        if not np.isnan(replicates[f"accuracy {strength}"][0])
    }


def _estimate(replicates: np.ndarray) -> dict[str, float | None]:
    named = zip(("estimate", "low", "high"), interval(replicates), strict=True)
    return {name: None if np.isnan(value) else value for name, value in named}

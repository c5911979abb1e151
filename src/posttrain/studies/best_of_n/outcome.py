"""What the best-of-n study measures, and the tables made of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from posttrain.evaluation.bootstrap import Resamples
from posttrain.policy.selection import best_of_n_divergence, combine, expected_best
from posttrain.studies.best_of_n.full import Samples
from posttrain.studies.best_of_n.keys import FEW, MANY, Proxy, Test, Value, World
from posttrain.studies.common.tables import TidyTable

#: Prompts of the table of examples.
EXAMPLES = 8
#: Size at which choices of reward models are compared with their tests.
PREDICTED = 64


class Cell(NamedTuple):
    """What reward models were trained on."""

    world: str
    noise: float
    size: int


def sizes_up_to(samples: int) -> list[int]:
    """The n that are looked at: powers of two, and Llama 3's least and most."""
    powers = [2**k for k in range(samples.bit_length()) if 2**k <= samples]
    return sorted({*powers, samples, *(n for n in (FEW, MANY) if n <= samples)})


def summarise(
    drawn: Samples,
    scores: Mapping[Cell, Sequence[Mapping[str, np.ndarray]]],
    by_temperature: Mapping[float, Samples],
    *,
    resamples: int = 1000,
) -> dict[str, pd.DataFrame]:
    """Tidy tables, each estimate with a 95 % interval over prompts and seeds.

    ``scores`` holds for each cell and seed what :func:`.best_of_n.full.score_samples` gives.

    Returns:
        - ``curves``: ``world``, ``noise``, ``size``, ``proxy``, ``n``, ``divergence``, ``value``.
        - ``changes``: what gold gains from ``n`` to ``to``.
        - ``peaks``: the n at which gold is highest, as its logarithm and in nats of divergence.
        - ``gains``: gold of the best of n by each proxy minus that by a single reward model.
        - ``fits``: α and β of d(α − βd), d = √KL (Gao et al., 2023).
        - ``tests``: each test's accuracy, by cell.
        - ``predictions``: rank correlation, over reward models, of each test with what the best of
          :data:`PREDICTED` is worth.
        - ``examples``: what one reward model of the most pairs as annotated, where praise goes with
          quality, chooses from all samples, and what is best by gold.
        - ``temperatures``: best of n by gold at each temperature; ``best temperatures``: the best
          one by n.
    """
    n = sizes_up_to(drawn.gold.shape[1])
    head = ("world", "noise", "size")
    curves = TidyTable(*head, "proxy", "n", "divergence", "value")
    changes = TidyTable(*head, "proxy", "n", "to")
    peaks, fits = TidyTable(*head, "proxy", "unit"), TidyTable(*head, "proxy", "coefficient")
    gains, tests = TidyTable(*head, "proxy", "n"), TidyTable(*head, "test")
    divergence = best_of_n_divergence(n)
    singles: list[dict[str, float]] = []
    for cell, seeds in scores.items():
        draws = Resamples.draw(len(drawn.gold), len(seeds), count=resamples)
        measured = [_by_proxy(drawn, one["samples"], n) for one in seeds]
        reference = None
        for proxy in measured[0]:
            by_value = {
                value: mean_over(draws, np.array([one[proxy][value] for one in measured]))
                for value in measured[0][proxy]
            }
            for value, replicates in by_value.items():
                for place, size in enumerate(n):
                    label = (*cell, proxy, size, divergence[place], value)
                    curves.add(*label, replicates=replicates[place])
            gold = by_value[Value.GOLD]
            reference = gold if reference is None else reference
            steps = ((1, FEW), (FEW, MANY), (MANY, n[-1]), (1, MANY), (1, n[-1]))
            for first, last in dict.fromkeys(steps):
                if first in n and last in n and first < last:
                    change = gold[n.index(last)] - gold[n.index(first)]
                    changes.add(*cell, proxy, first, last, replicates=change)
            top = gold.argmax(axis=0)
            peaks.add(*cell, proxy, "log2 n", replicates=np.log2(n)[top])
            peaks.add(*cell, proxy, "nats", replicates=divergence[top])
            for name, coefficient in _gao(divergence, gold).items():
                fits.add(*cell, proxy, name, replicates=coefficient)
            if proxy != Proxy.SINGLE:
                for place, size in enumerate(n):
                    gains.add(*cell, proxy, size, replicates=gold[place] - reference[place])
        by_test = [tests_of(drawn, one) for one in seeds]
        for test in by_test[0]:
            per_prompt = np.array([one[test].mean(axis=0) for one in by_test])
            tests.add(*cell, test, replicates=share_right(per_prompt, draws, resamples))
        singles += _models(drawn, seeds, by_test)
    tables = {
        "curves": curves, "changes": changes, "peaks": peaks, "gains": gains, "fits": fits,
        "tests": tests,
    }  # fmt: skip
    frames = {name: table.frame() for name, table in tables.items()}
    frames["predictions"] = predictions(pd.DataFrame(singles), Test, resamples)
    praised = [cell for cell in scores if cell.world == World.PRAISE]
    shown = max(praised, key=lambda cell: (-cell.noise, cell.size))
    frames["examples"] = _examples(drawn, scores[shown][0]["samples"][0])
    return frames | _temperatures(by_temperature, resamples)


def _by_proxy(drawn: Samples, scores: np.ndarray, n: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Values of the best of n by each proxy, ``[n, prompts]``."""
    members, average = scores[:-1], scores[-1]
    of_members = [values_of(drawn, one, n) for one in members]
    found = {
        Proxy.SINGLE: {
            value: np.mean([one[value] for one in of_members], axis=0) for value in of_members[0]
        }
    }
    for proxy, how in (
        (Proxy.MEAN, "mean"), (Proxy.MINIMUM, "minimum"), (Proxy.VARIANCE, "mean - variance"),
    ):  # fmt: skip
        found[proxy] = values_of(drawn, combine(members.astype(float), how), n)
    found[Proxy.AVERAGE] = values_of(drawn, average, n)
    found[Proxy.GOLD] = values_of(drawn, drawn.gold, n)
    return {str(proxy): values for proxy, values in found.items()}


def values_of(drawn: Samples, proxy: np.ndarray, n: list[int]) -> dict[str, np.ndarray]:
    """Values of the best of n by a proxy, ``[n, prompts]``."""
    centred = proxy.astype(float) - proxy.mean()
    return {
        Value.GOLD: expected_best(proxy, drawn.gold, n),
        Value.SCORE: expected_best(proxy, centred, n),
        Value.PRAISE: expected_best(proxy, drawn.praise, n),
        Value.WORDS: expected_best(proxy, drawn.words, n),
    }


def mean_over(draws: Resamples, values: np.ndarray) -> np.ndarray:
    """Means over prompts and seeds of ``[seeds, n, prompts]``, in each replicate, ``[n, reps]``."""
    weights = draws.groups / draws.groups.sum(axis=1, keepdims=True)
    return np.einsum("snp,rp,rs->nr", values, weights, draws.seeds, optimize=True)


def _gao(divergence: np.ndarray, gold: np.ndarray) -> dict[str, np.ndarray]:
    """Least squares of gold(n) − gold(1) = d(α − βd), for each replicate."""
    d = np.sqrt(divergence)
    design = np.stack([d, -(d**2)], axis=1)
    alpha, beta = np.linalg.lstsq(design, gold - gold[:1], rcond=None)[0]
    return {"α": alpha, "β": beta}


def tests_of(drawn: Samples, scored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shares right of each member: ``[members, pairs]``, or ``[members, prompts]``."""
    members, test = scored["samples"][:-1], scored["test"][:-1]
    half = members.shape[2] // 2
    gap = drawn.gold[:, :half] - drawn.gold[:, half : 2 * half]
    score_gap = members[:, :, :half] - members[:, :, half : 2 * half]
    more_praise = drawn.praise[:, :half] - drawn.praise[:, half : 2 * half]
    right = ((score_gap * gap) > 0) + 0.5 * (score_gap == 0)
    high = np.quantile(members, 0.9, axis=2, keepdims=True)
    both_high = np.minimum(members[:, :, :half], members[:, :, half : 2 * half]) >= high * 1
    found = {
        Test.HELD_OUT: (test[:, 0] > test[:, 1]) + 0.5 * (test[:, 0] == test[:, 1]),
        Test.POLICY: mean_where(right, np.broadcast_to(gap != 0, right.shape)),
        Test.ADVERSARIAL: mean_where(
            right, np.broadcast_to((gap != 0) & (gap * more_praise < 0), right.shape)
        ),
        Test.LAST_DECILE: mean_where(right, both_high & (gap != 0)),
    }
    return {str(test): shares for test, shares in found.items()}


def _examples(drawn: Samples, scores: np.ndarray) -> pd.DataFrame:
    """What scores highest and what is best, for the first prompts."""
    rows = []
    for place, prompt in enumerate(drawn.prompts[:EXAMPLES]):
        chosen, best = int(scores[place].argmax()), int(drawn.gold[place].argmax())
        rows.append(
            {
                "prompt": prompt[-1].content,
                "chosen": drawn.texts[place][chosen],
                "gold of chosen": drawn.gold[place, chosen],
                "score of chosen": float(scores[place, chosen]),
                "best": drawn.texts[place][best],
                "gold of best": drawn.gold[place, best],
                "score of best": float(scores[place, best]),
            }
        )
    return pd.DataFrame(rows)


def mean_where(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Means over the last axis where it counts; NaN where nothing does."""
    total = counted.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(counted, values, 0).sum(axis=-1) / total


def share_right(per_prompt: np.ndarray, draws: Resamples, resamples: int) -> np.ndarray:
    """Mean over prompts or pairs that have a value, in each replicate; ``[seeds, prompts]``."""
    if per_prompt.shape[1] != draws.groups.shape[1]:
        draws = Resamples.draw(per_prompt.shape[1], len(per_prompt), count=resamples)
    known = ~np.isnan(per_prompt)
    total = np.einsum("sp,rp->rs", np.where(known, per_prompt, 0), draws.groups)
    count = np.einsum("sp,rp->rs", known.astype(float), draws.groups)
    with np.errstate(invalid="ignore"):
        return (total / count * draws.seeds).sum(axis=1)


def _models(
    drawn: Samples, seeds: Sequence[Mapping[str, np.ndarray]], by_test: Sequence[dict]
) -> list[dict[str, float]]:
    """Of each reward model: its tests, and what its choices are worth."""
    at = [min(PREDICTED, drawn.gold.shape[1])]
    return [
        {
            test: float(mean_where(shares[member], ~np.isnan(shares[member])))
            for test, shares in tests.items()
        }
        | {"worth": float(expected_best(scored["samples"][member], drawn.gold, at).mean())}
        for scored, tests in zip(seeds, by_test, strict=True)
        for member in range(len(scored["samples"]) - 1)
    ]


def predictions(models: pd.DataFrame, tests: Iterable[str], resamples: int) -> pd.DataFrame:
    """Rank correlation over reward models of each test with what their choices are worth."""
    table = TidyTable("test", "models")
    rng = np.random.default_rng(0)
    chosen = [np.arange(len(models))]
    chosen += [rng.integers(len(models), size=len(models)) for _ in range(resamples)]
    ranks = models.rank()
    for test in tests:
        values, worth = ranks[test].to_numpy(), ranks["worth"].to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = np.array([np.corrcoef(values[i], worth[i])[0, 1] for i in chosen])
        table.add(str(test), len(models), replicates=replicates)
    return table.frame()


def _temperatures(
    by_temperature: Mapping[float, Samples], resamples: int
) -> dict[str, pd.DataFrame]:
    table, best = TidyTable("temperature", "n", "value"), TidyTable("n")
    if not by_temperature:
        return {"temperatures": table.frame(), "best temperatures": best.frame()}
    degrees = sorted(by_temperature)
    first = by_temperature[degrees[0]]
    n = sizes_up_to(first.gold.shape[1])
    draws = Resamples.draw(len(first.gold), 1, count=resamples)
    curves = []
    for degree in degrees:
        gold = by_temperature[degree].gold
        highest = mean_over(draws, expected_best(gold, gold, n)[None])
        middle = mean_over(draws, _median_of_n(gold, n)[None])
        curves.append(highest)
        for place, size in enumerate(n):
            table.add(degree, size, "highest", replicates=highest[place])
            table.add(degree, size, "median", replicates=middle[place])
    top = np.array(degrees)[np.array(curves).argmax(axis=0)]
    for place, size in enumerate(n):
        best.add(size, replicates=top[place])
    shift = TidyTable("n", "to")
    shift.add(n[0], n[-1], replicates=top[-1] - top[0])
    growth = TidyTable("value", "n", "to")
    place = degrees.index(1.0) if 1.0 in degrees else 0
    gold = by_temperature[degrees[place]].gold
    for value, curve in (
        ("highest", curves[place]), ("median", mean_over(draws, _median_of_n(gold, n)[None])),
    ):  # fmt: skip
        growth.add(value, n[0], n[-1], replicates=curve[-1] - curve[0])
    return {
        "temperatures": table.frame(), "best temperatures": best.frame(),
        "shift": shift.frame(), "growth": growth.frame(),
    }  # fmt: skip


def _median_of_n(values: np.ndarray, n: list[int]) -> np.ndarray:
    """Median of the first n samples, ``[n, prompts]``."""
    return np.array([np.median(values[:, :size], axis=1) for size in n])

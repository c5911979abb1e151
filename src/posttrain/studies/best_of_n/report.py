"""The best-of-n study for readers: tables of formatted numbers."""

import pandas as pd

from posttrain.data.sources.simulator.tasks import PRAISE
from posttrain.evidence.claims import estimate
from posttrain.evidence.records import Record
from posttrain.evidence.verdicts import with_interval
from posttrain.studies.best_of_n.keys import FEW, MANY, Proxy, Test, Value
from posttrain.studies.common.tables import labelled


def turn_table(record: Record) -> pd.DataFrame:
    """Gold of the best of n by single models, where it is highest, and Gao's coefficients."""
    tables = record.tables
    changes = tables["changes"][tables["changes"]["proxy"] == Proxy.SINGLE]
    rows = {}
    for world, noise, size in _cells(record):
        where = {"world": world, "noise": noise, "size": size, "proxy": Proxy.SINGLE}
        row = {}
        here = changes[
            (changes["world"] == world) & (changes["noise"] == noise) & (changes["size"] == size)
        ]
        for first, last in here[["n", "to"]].itertuples(index=False, name=None):
            if (first, last) in ((1, FEW), (FEW, MANY)) or first == MANY:
                gap = estimate(here, n=first, to=last)
                row[f"{first} to {last:,}"] = with_interval(gap, scale=1, digits=2)
        peak = estimate(tables["peaks"], unit="log2 n", **where)
        low, high = (2**end for end in peak[1:])
        row["highest at n"] = f"{2 ** peak[0]:.0f} [{low:.0f},\u00a0{high:.0f}]"
        for coefficient in ("α", "β"):
            value = estimate(tables["fits"], coefficient=coefficient, **where)
            row[coefficient] = with_interval(value, scale=1, digits=2, sign=False)
        rows[world, _turned(noise), f"{size:,}"] = row
    return labelled(rows, ["", "turned round", "pairs"])


def proxy_table(record: Record) -> pd.DataFrame:
    """Gold by each proxy minus by a single model, at the largest number of pairs."""
    gains = record.tables["gains"]
    largest, most = gains["size"].max(), gains["n"].max()
    rows = {}
    for world, noise, size in _cells(record):
        if size != largest:
            continue
        for proxy in (Proxy.MEAN, Proxy.MINIMUM, Proxy.VARIANCE, Proxy.AVERAGE):
            where = {"world": world, "noise": noise, "size": size, "proxy": proxy}
            rows[world, _turned(noise), str(proxy)] = {
                f"n = {n:,}": with_interval(estimate(gains, n=n, **where), scale=1, digits=2)
                for n in (FEW, MANY, most)
                if n in set(gains["n"])
            }
    return labelled(rows, ["", "turned round", "chosen by"])


def test_table(record: Record) -> pd.DataFrame:
    """Accuracy (%) by each test, single models, and praise of what they choose from the most."""
    tables = record.tables
    most = tables["curves"]["n"].max()
    rows = {}
    for world, noise, size in _cells(record):
        where = {"world": world, "noise": noise, "size": size}
        row = {
            str(test): with_interval(estimate(tables["tests"], test=test, **where), sign=False)
            for test in Test
        }
        praise = {"proxy": Proxy.SINGLE, "value": Value.PRAISE}
        first, last = (estimate(tables["curves"], n=n, **praise, **where)[0] for n in (1, most))
        row["praise, n = 1"], row[f"praise, n = {most:,}"] = f"{first:.1f}", f"{last:.1f}"
        rows[world, _turned(noise), f"{size:,}"] = row
    return labelled(rows, ["", "turned round", "pairs"])


def prediction_table(record: Record) -> pd.DataFrame:
    """Rank correlation of each test with gold of the best of 64, over reward models."""
    table = record.tables["predictions"]
    rows = {
        test: {
            "reward models": str(models),
            "rank correlation": with_interval(estimate(table, test=test), scale=1, digits=2),
        }
        for test, models in table[["test", "models"]].itertuples(index=False, name=None)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("accuracy on")


def example_table(record: Record) -> pd.DataFrame:
    """What a reward model chooses from all samples, and what is best by gold, with both values."""
    table = record.tables["examples"]
    rows: dict[str, dict[str, str]] = {}
    for row in table.to_dict("records"):
        rows[row["prompt"]] = {}
        for which in ("chosen", "best"):
            values = f"{row[f'gold of {which}']:.2f}, {row[f'score of {which}']:.2f}"
            rows[row["prompt"]] |= {
                which: _shortened(row[which]),
                f"gold, score of {which}": values.replace("-", "−"),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("prompt")


def _shortened(text: str) -> str:
    """A text in which phrases of praise are counted."""
    praise = " ".join(PRAISE)
    count = text.count(praise)
    rest = text.replace(praise, "").strip()
    return f"{rest} ({praise} × {count})" if count > 1 else text


def temperature_table(record: Record) -> pd.DataFrame:
    """Highest gold of n samples at each temperature, and the median."""
    table = record.tables["temperatures"]
    rows = {}
    for value in ("highest", "median"):
        for n in sorted(set(table["n"])):
            if n in (1, FEW, MANY, table["n"].max()):
                rows[value, f"{n:,}"] = {
                    f"{degree:g}": with_interval(
                        estimate(table, temperature=degree, n=n, value=value),
                        scale=1, digits=2, sign=False,
                    )
                    for degree in sorted(set(table["temperature"]))
                }  # fmt: skip
    return labelled(rows, ["gold", "of n samples"])


def _cells(record: Record) -> list[tuple[str, float, int]]:
    cells = record.tables["changes"][["world", "noise", "size"]].drop_duplicates()
    return list(cells.itertuples(index=False, name=None))


def _turned(noise: float) -> str:
    return f"{noise:.0%}"

"""The summary behind `posttrain data check`: what a file holds, and what was refused."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from posttrain.data.conversations import printable
from posttrain.data.formats import BadFile
from posttrain.data.preferences import STRENGTHS, BadRecord, RankedGroup
from posttrain.data.reading import inspect_file

LISTED_PER_FILE = 20


@dataclass(frozen=True)
class Summary:
    """A row of :func:`summarise`, and the first 20 refused records, before them a bad file."""

    table: pd.DataFrame
    refused: list[BadRecord]

    @property
    def is_cut_short(self) -> bool:
        """Whether the file could not be read to its end."""
        return bool(self.refused) and isinstance(self.refused[0], BadFile)


def summarise_file(path: str | Path) -> Summary:
    """Summarise what can be read of one file; see :func:`summarise`."""
    ignored_columns: Counter[str] = Counter()
    return summarise(inspect_file(path, ignored_columns), str(path), ignored_columns)


def summarise(
    items: Iterable[RankedGroup | BadRecord],
    name: str,
    ignored_columns: Counter[str] | None = None,
) -> Summary:
    """Summarise groups and refused records, of which a few numbers each stay in memory.

    In the table, `groups` counts distinct `group` values; `prompt_words` and `response_words` are
    medians of words separated by white space; `chosen_longer` is the share of chosen responses with
    more characters than the rejected, ties counted half; `refused` counts the bad file too. Medians
    and shares are NaN for a file with no accepted row. `ignored_columns` may fill while `items` are
    drawn.
    """
    counts: Counter[str] = Counter()
    strengths: Counter[int | None] = Counter()
    domains: Counter[str] = Counter()
    clusters: set[bytes] = set()
    prompt_words, response_words = array("L"), array("L")
    longer = 0.0
    refused: list[BadRecord] = []
    for item in items:
        if isinstance(item, BadRecord):
            counts["refused"] += 1
            if isinstance(item, BadFile):
                # It comes last, and must not be cut off.
                refused = [item, *refused][:LISTED_PER_FILE]
            elif len(refused) < LISTED_PER_FILE:
                refused.append(item)
            continue
        counts["rows"] += 1
        counts["edited"] += item.has_edit
        strengths[item.strength] += 1
        if item.domain is not None:
            domains[item.domain] += 1
        clusters.add(hashlib.blake2b(item.cluster_id.encode(), digest_size=16).digest())
        prompt_words.append(sum(len(message.content.split()) for message in item.prompt))
        response_words.extend(len(response.split()) for response in item.responses)
        chosen, rejected = len(item.chosen), len(item.rejected)
        longer += (chosen > rejected) + (chosen == rejected) / 2
    row = {
        "rows": counts["rows"],
        "groups": len(clusters),
        "edited": counts["edited"],
        **{f"strength_{strength}": strengths[strength] for strength in STRENGTHS},
        "strength_none": strengths[None],
        "prompt_words": _median(prompt_words),
        "response_words": _median(response_words),
        "chosen_longer": longer / counts["rows"] if counts["rows"] else float("nan"),
        "refused": counts["refused"],
        "domains": _counts(domains),
        "ignored_columns": _counts(ignored_columns or Counter()),
    }
    return Summary(pd.DataFrame([row], index=pd.Index([name], name="file")), refused)


def format_report(table: pd.DataFrame) -> str:
    """Format a table of :func:`summarise` rows for the terminal, one line per file."""
    strengths = table[[f"strength_{strength}" for strength in [*STRENGTHS, "none"]]]
    shown = pd.DataFrame(
        {
            "rows": table["rows"],
            "groups": table["groups"],
            "edited": table["edited"],
            "strength 1/2/3/4/none": ["/".join(map(str, row)) for row in strengths.to_numpy()],
            "prompt words": table["prompt_words"].map(_short),
            "response words": table["response_words"].map(_short),
            "chosen longer": table["chosen_longer"].map("{:.2f}".format),
            "refused": table["refused"],
            "domains": table["domains"],
            "ignored columns": table["ignored_columns"],
        }
    ).rename_axis(None)
    return shown.to_string()


def check(paths: str | Path | Sequence[str | Path], *, skip_bad: bool = False) -> int:
    """Print the summary of files, list bad records on standard error, and return the exit code.

    The first 20 refused records of a file are listed, then their remaining number. The code is 0 if
    everything was accepted, or if only records were refused and `skip_bad` is set; 1 otherwise. A
    file that cannot be read to its end always gives 1.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    tables, failed = [], False
    for path in files:
        summary = summarise_file(path)
        tables.append(summary.table)
        failed = failed or summary.is_cut_short or bool(summary.refused and not skip_bad)
        for error in summary.refused:
            print(error, file=sys.stderr)
        rest = summary.table["refused"].item() - len(summary.refused)
        if rest:
            print(f"{path}: {rest:,} more refused records not listed", file=sys.stderr)
    if tables:
        print(format_report(pd.concat(tables)))
    return int(failed)


def _median(numbers: array[int]) -> float:
    return float(np.median(numbers)) if numbers else float("nan")


def _counts(counter: Counter[str]) -> str:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(name)} {count:,}" for name, count in ordered)


def _short(number: float) -> str:
    return f"{number:g}"

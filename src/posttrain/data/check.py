"""The summary behind `posttrain data check`: what a file holds, and what was refused."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from posttrain.data.conversations import printable
from posttrain.data.formats import BadFile
from posttrain.data.preferences import STRENGTHS, RankedGroup
from posttrain.data.reading import ReadResult, inspect_file

LISTED_PER_FILE = 20


def summarise(result: ReadResult, name: str) -> pd.DataFrame:
    """Summarise what reading one file gave.

    Args:
        result: The groups, refused records and ignored columns.
        name: The file's name, used as the table's index.

    Returns:
        One row. `rows` are the accepted ones; `groups` counts distinct `group` values;
        `strength_none` those without a strength; `prompt_words` and `response_words` are medians
        of words separated by white space; `chosen_longer` is the share of chosen responses with
        more characters than the rejected, ties counted half; `domains` and `ignored_columns`
        are texts with counts. Medians and shares are NaN for a file with no accepted row.
    """
    groups = result.groups
    strengths = Counter(group.strength for group in groups)
    row = {
        "rows": len(groups),
        "groups": len({group.cluster_id for group in groups}),
        "edited": sum(group.has_edit for group in groups),
        **{f"strength_{strength}": strengths[strength] for strength in STRENGTHS},
        "strength_none": strengths[None],
        "prompt_words": _median(
            sum(len(message.content.split()) for message in group.prompt) for group in groups
        ),
        "response_words": _median(
            len(response.split()) for group in groups for response in group.responses
        ),
        "chosen_longer": _share_longer(groups),
        "refused": len(result.refused),
        "domains": _counts(Counter(group.domain for group in groups if group.domain is not None)),
        "ignored_columns": _counts(result.ignored_columns),
    }
    return pd.DataFrame([row], index=pd.Index([name], name="file"))


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
    """Check files: print their summary, and list every bad record on standard error.

    Only the first 20 refused records of a file are listed, then their remaining number.

    Args:
        paths: A file or several.
        skip_bad: Whether bad records are acceptable, as they are to a run with `--skip-bad`.

    Returns:
        The exit code: 0 if everything was accepted, or if only records were refused and
        `skip_bad` is set; 1 otherwise. A file that cannot be read to its end always gives 1.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    tables, failed = [], False
    for path in files:
        result = inspect_file(path)
        tables.append(summarise(result, str(path)))
        whole_file = [error for error in result.refused if isinstance(error, BadFile)]
        failed = failed or bool(whole_file if skip_bad else result.refused)
        # What concerns the whole file comes last in the list, and would else be cut off.
        ordered = whole_file + [error for error in result.refused if error not in whole_file]
        for error in ordered[:LISTED_PER_FILE]:
            print(error, file=sys.stderr)
        if len(ordered) > LISTED_PER_FILE:
            rest = len(ordered) - LISTED_PER_FILE
            print(f"{path}: {rest:,} more refused records not listed", file=sys.stderr)
    if tables:
        print(format_report(pd.concat(tables)))
    return int(failed)


def _share_longer(groups: Sequence[RankedGroup]) -> float:
    if not groups:
        return float("nan")
    lengths = [(len(group.chosen), len(group.rejected)) for group in groups]
    return statistics.fmean(
        (chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in lengths
    )


def _median(numbers: Iterable[int]) -> float:
    values = list(numbers)
    return float(statistics.median(values)) if values else float("nan")


def _counts(counter: Counter[str]) -> str:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(name)} {count:,}" for name, count in ordered)


def _short(number: float) -> str:
    return f"{number:g}"

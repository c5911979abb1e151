"""What ``posttrain data check`` shows of files: a table of figures, bad records and notes."""

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from posttrain.commands.terminal import console, print_table
from posttrain.data.check import Summary, summarise_file
from posttrain.data.preferences import STRENGTHS

#: Domains and columns that have a line of their own.
LISTED = 10
#: Width of the widest number.
NUMBER = 11


def check(
    paths: str | Path | Sequence[str | Path],
    *,
    skip_bad: bool = False,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> int:
    """Print the summary of files, list bad records on standard error, and return the exit code.

    What was read otherwise than it stands, and message fields that are not used, follow there.
    The first 20 refused records of a file are listed, then their remaining number. The code is 0 if
    everything was accepted, or if only records were refused and `skip_bad` is set; 1 otherwise. A
    file that cannot be read to its end always gives 1.
    """
    files = [paths] if isinstance(paths, str | Path) else list(paths)
    summaries: dict[str, Summary] = {}
    failed = False
    earlier: set[bytes] = set()
    for path in files:
        summary = summarise_file(path, earlier, min_difference, columns)
        summaries[str(path)] = summary
        failed = failed or summary.is_cut_short or bool(summary.refused and not skip_bad)
        for error in summary.refused:
            print(error, file=sys.stderr)
        rest = summary.table["refused"].item() - len(summary.refused)
        if rest:
            print(f"{path}: {rest:,} more refused records not listed", file=sys.stderr)
        for note in summary.notes:
            print(f"{path}: {note}", file=sys.stderr)
    # Of a file without a record there are no figures.
    read = {name: one for name, one in summaries.items() if one.table["rows"].item()}
    if read:
        _show(read)
    for name in summaries:
        if name not in read:
            print(f"{name}: no record could be read")
    return int(failed)


def _show(summaries: dict[str, Summary]) -> None:
    """A column for each file if the page is wide enough for them, else a table for each."""
    rows = _rows(list(summaries.values()))
    labels = max(len(label) for label, *_ in rows)
    width = labels + sum(2 + max(len(name), NUMBER) for name in summaries)
    if len(summaries) > 1 and width <= console().width:
        print_table(["", *summaries], rows)
        return
    for number, (name, summary) in enumerate(summaries.items()):
        if number:
            print()
        print_table([name, ""], _rows([summary]))


def _rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """A row for each figure, with a number for each file; zeros only where they say something."""
    table = pd.concat([summary.table for summary in summaries])

    def count(label: str, name: str, *, always: bool = False) -> list[list[str]]:
        return [_row(label, table[name], "{:,}")] if always or table[name].any() else []

    return [
        *count("records (each pair of a list of responses is one)", "rows", always=True),
        *count("groups (distinct prompts, or values of group)", "groups", always=True),
        *count("records with an edited response", "edited"),
        *itertools.chain.from_iterable(
            count(f"records of strength {strength}, {words}", f"strength_{strength}")
            for strength, words in STRENGTHS.items()
        ),
        *count("records without a strength", "strength_none"),
        *_listed("records of domain", "more domains", [one.domains for one in summaries]),
        _row("words of a prompt, median", table["prompt_words"], "{:,.16g}"),
        _row("words of a response, median", table["response_words"], "{:,.16g}"),
        _row(
            "the longer response is chosen (50 %: no length bias)",
            100 * table["chosen_longer"],
            "{:.1f} %",
        ),
        *count("refused records", "refused", always=True),
        *count("repeated records", "duplicates", always=True),
        *count("repeated records, of files before", "duplicates_across"),
        *count("contradictions (a pair the other way round)", "contradictions", always=True),
        *count("contradictions to files before", "contradictions_across"),
        *_listed("not used: column", "more columns not used", [one.columns for one in summaries]),
    ]


def _listed(label: str, rest: str, counts: Sequence[Counter[str]]) -> list[list[str]]:
    """A row for each of the most frequent names, and one that says how many more there are."""
    total = sum(counts, Counter[str]())
    names = sorted(total, key=lambda name: (-total[name], name))
    rows = [_row(f"{label} {name}", [one[name] for one in counts], "{:,}") for name in names]
    if len(rows) > LISTED:
        more = [len(one.keys() - set(names[:LISTED])) for one in counts]
        rows = [*rows[:LISTED], _row(rest, more, "{:,}")]
    return rows


def _row(label: str, numbers: Iterable[float], form: str) -> list[str]:
    return [label, *map(form.format, numbers)]

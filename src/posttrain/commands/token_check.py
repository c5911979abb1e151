"""What ``posttrain data check --model`` shows: lengths in tokens, and what limits would cut."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from posttrain.commands.common import ModelSettings, bars_on_terminals_only
from posttrain.commands.models import tokenizer_of
from posttrain.commands.terminal import print_table
from posttrain.data.preferences import RankedGroup
from posttrain.data.reading import inspect_file
from posttrain.evaluation.scoring import limits_for
from posttrain.evaluation.tokens import UNREADABLE, TokenFigures, quantiles
from posttrain.models import embedded
from posttrain.models.loading import load_skeleton
from posttrain.models.rotary import within_boundary
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.limits import Limits

#: Limits that people set: powers of two.
USUAL = [2**power for power in range(8, 21)]


def check_tokens(
    paths: Sequence[Path],
    model: str,
    *,
    pad_token: str | None = None,
    chat_template: str | None = None,
    max_tokens: int | None = None,
    skip_bad: bool = False,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> int:
    """Print what a model would read of each file; 1 if there are records that it cannot read.

    Its tokenizer and configuration are read, and no weights. Limits are those of `posttrain train`.
    The first records that cannot be read, or are too long, are listed on standard error.

    Raises:
        UserError: If tokenizer or configuration cannot be loaded.
    """
    bars_on_terminals_only()
    settings = ModelSettings(model=model, pad_token=pad_token, chat_template=chat_template)
    tokenizer = tokenizer_of(settings)
    skeleton = load_skeleton(embedded.find(model))
    layout = LAYOUTS["exact"]
    limits = limits_for(skeleton, layout, max_tokens=max_tokens)
    limits = replace(limits, skipped_end=tokenizer.pad_token_id)
    if max_tokens is None:
        limits = within_boundary(skeleton.config, limits, layout)
    failed = False
    for number, path in enumerate(paths):
        figures = TokenFigures()
        for item in inspect_file(path, min_difference=min_difference, columns=columns):
            if isinstance(item, RankedGroup):
                figures.add(item, tokenizer, limits)
        unreadable = figures.counts[UNREADABLE]
        _list(path, figures.unreadable, unreadable, "that cannot be read")
        _list(path, figures.too_long, figures.at(limits.max_tokens).too_long, "that are too long")
        if number:
            print()
        _show(f"{path}, in tokens of {model}", figures, limits)
        failed = failed or bool(unreadable)
    return int(failed and not skip_bad)


def _list(path: Path, lines: Sequence[str], count: int, what: str) -> None:
    for line in lines:
        print(f"{path}: {line}", file=sys.stderr)
    if count > len(lines):
        print(f"{path}: {count - len(lines):,} more records {what}, not listed", file=sys.stderr)


def _show(title: str, figures: TokenFigures, limits: Limits) -> None:
    if figures.prompts:
        lengths: dict[str, Sequence[int] | np.ndarray] = {
            "prompt": figures.prompts,
            "response": figures.responses,
            "prompt with its longest response (max_tokens)": figures.needed,
            "prompt with all responses (a row of layout exact)": figures.rows,
        }
        print_table(
            [title, "median", "90 %", "99 %", "longest"],
            [
                [label, *(f"{number:,}" for number in quantiles(numbers))]
                for label, numbers in lengths.items()
            ],
        )
        cuts = _cuts(figures, limits)
        if cuts:
            print()
            print_table(["--max_tokens", "prompts cut", "tokens cut", "records too long"], cuts)
    else:
        print(f"{title}: no record can be read")
    counts = +figures.counts
    if counts:
        print()
        print_table(["not read as it stands", ""], [[what, f"{n:,}"] for what, n in counts.items()])
    if figures.prompts:
        print()
        print(advice(figures, limits))


def _cuts(figures: TokenFigures, limits: Limits) -> list[list[str]]:
    """What limits cut and leave out: usual ones that matter, the one that is set, and the most."""
    median, *_, longest = quantiles(figures.needed)
    most = limits.context
    between = {n for n in USUAL if median < n < longest and (most is None or n < most)}
    names = {number: f"{number:,}" for number in between}
    if most is not None:
        names[most] = f"{most:,}, the most that this model takes"
    if limits.max_tokens not in (None, most):
        names[limits.max_tokens] = f"{limits.max_tokens:,}, as set"
    rows = []
    for number, name in sorted(names.items()):
        cut = figures.at(number)
        rows.append([name, f"{cut.trimmed:,}", f"{cut.lost:,}", f"{cut.too_long:,}"])
    return rows


def advice(figures: TokenFigures, limits: Limits) -> str:
    """What `posttrain train` would do with these limits, and which options change that."""
    limit, most = limits.max_tokens, limits.context
    cut, records = figures.at(limit), len(figures.prompts)
    unreadable = figures.counts[UNREADABLE]
    if unreadable and not (cut.trimmed or cut.too_long):
        return (
            f"Mend the {unreadable:,} records that cannot be read, or leave them out (--skip_bad); "
            f"posttrain train reads the other {records:,} whole."
        )
    if limit is None or not (cut.trimmed or cut.too_long):
        return f"Nothing to do: posttrain train reads all {records:,} records whole."
    found = []
    if cut.too_long:
        found.append(
            f"posttrain train stops, because {cut.too_long:,} of {records:,} records are too long "
            f"(a response alone fills {limit:,} tokens); leave them out with --skip_too_long."
        )
    if cut.trimmed:
        found.append(
            f"The prompts of {cut.trimmed:,} of {records:,} records lose their beginning, "
            f"{cut.lost:,} tokens together."
        )
    whole = int(figures.needed.max())
    if limit == most:
        found.append("Only a model with a longer context reads more.")
    elif most is None or whole <= most:
        found.append(f"--max_tokens {whole} reads all records whole.")
    else:
        better = figures.at(most)
        found.append(
            f"--max_tokens {most}, the most that this model takes, cuts {better.trimmed:,} prompts "
            f"and leaves {better.too_long:,} records too long."
        )
    return " ".join(found)

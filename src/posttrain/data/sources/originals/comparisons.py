"""Which comparisons of an original say something, and say it only once.

Where a person ranked two texts, the same texts ranked the other way are real disagreement. Where
the texts are samples of models, one canned answer comes from several models, and a comparison of
it with itself, a repetition, or a contradiction says nothing about what is better.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any


def distinct(records: Iterable[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    """Keep each comparison once, and none that another one contradicts, in their order.

    Of a record, `prompt`, `chosen` and `rejected` are read. `dropped` counts by reason:
    `empty prompt`, `empty response`, `identical responses`, `contradicted pair` (the same two
    responses to the same prompt occur in the other order too: neither is kept) and `repeated pair`
    (the first is kept).
    """
    usable = []
    for record in records:
        reason = _unusable(record)
        if reason:
            dropped[reason] += 1
        else:
            usable.append(record)
    orders = {_order(record) for record in usable}
    seen = set()
    comparisons = []
    for record in usable:
        prompt, chosen, rejected = order = _order(record)
        if (prompt, rejected, chosen) in orders:
            dropped["contradicted pair"] += 1
        elif order in seen:
            dropped["repeated pair"] += 1
        else:
            seen.add(order)
            comparisons.append(record)
    return comparisons


def _unusable(record: dict[str, Any]) -> str | None:
    prompt, chosen, rejected = _order(record)
    if not prompt:
        return "empty prompt"
    if not chosen or not rejected:
        return "empty response"
    return "identical responses" if chosen == rejected else None


def _order(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["prompt"], record["chosen"], record["rejected"]

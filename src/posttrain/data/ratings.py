"""Records of several responses to one prompt with a score or a rank each, read as comparisons.

Every two responses that differ enough become an ordinary ranked group, chosen and rejected, so that
nothing after this knows a second form. Prompts are not computed anew for each of them: training
merges the groups of a prompt.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from posttrain.data.conversations import read_shared_prompt
from posttrain.data.messages import BadRecord, Message, check_text, name_kind, printable, show_value
from posttrain.data.notes import Notes
from posttrain.data.preferences import (
    COLUMNS,
    RankedGroup,
    as_group,
    as_name,
    as_whole_number,
    from_record,
)
from posttrain.errors import UserError

#: What responses were given: a higher score is better, and a lower rank.
RATINGS = ("scores", "ranks")
#: Columns of objects in which public sets keep a response and its rating together: where its text
#: is, where the rating, and of which kind that is. Read from cards and public code, not the data.
NESTED = {
    "completions": ("response", "overall_score", "scores"),  # openbmb/UltraFeedback
    "answers": ("answer", "rank", "ranks"),  # berkeley-nest/Nectar
}
LISTS = ("responses", *NESTED)
#: UltraFeedback's name for the prompt, read beside its `completions`.
INSTRUCTION = "instruction"
#: All columns of this form that the other one has not.
LIST_COLUMNS = (*LISTS, *RATINGS, INSTRUCTION)
#: What `posttrain sample` writes beside responses, and no comparison needs.
SAMPLED = ("finished", "log_probabilities")
#: Columns that say something about one pair.
OF_ONE_PAIR = ("chosen", "rejected", "edited", "strength", "margin")

# What is noted of rows …
READ = "responses with scores or ranks: read as comparisons"
TWICE = "a response occurs twice: compared once, by all its scores or ranks"
NO_PAIR = "no two responses differ enough: no pair"
# … and of comparisons.
PAIRS = "pairs"
TIES = "ties"
TOO_CLOSE = "closer than min_difference"
UNDECIDED = "undecided, because a response has several scores or ranks"


def check_min_difference(value: float) -> None:
    """Refuse a least difference that is not a finite number of at least 0."""
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"min_difference must be a number of at least 0, not {value}")


def read_record(
    record: Mapping[str, Any],
    *,
    where: str,
    default_id: str | None = None,
    notes: Notes | None = None,
    min_difference: float = 0.0,
) -> list[RankedGroup]:
    """Read the groups of a record: one, or those that its list of responses makes.

    A record with `chosen` and `rejected` is read by :func:`.from_record`. One with `responses` and
    `scores` (higher is better) or `ranks` (1 is best) becomes a group for every two responses that
    differ, and by at least `min_difference`; the id of that in which the third response beats the
    first is `ID#3>1`. A response that occurs twice beats another if all its ratings do. Differences
    are those of the numbers as they are written, so 7.3 and 7.2 differ by 0.1. They become no
    margin, because a judge's points are no units of reward.

    `completions` and `answers` are read as in UltraFeedback and Nectar (:data:`NESTED`).

    Raises:
        BadRecord: The record breaks a rule; the message names the place and the field.

    >>> record = {"prompt": "2 + 2?", "responses": ["5", "4", "four"], "scores": [1, 9, 9]}
    >>> for group in read_record(record, where="mine.jsonl, line 1", default_id="mine-1"):
    ...     print(group.id, group.chosen, group.rejected)
    mine-1#2>1 4 5
    mine-1#3>1 four 5
    """
    notes = Notes() if notes is None else notes
    try:
        column = list_column(record)
        if column is not None:
            row = Notes()
            groups = list(_groups(record, column, default_id or where, min_difference, row))
            notes.add_row(row)
            return groups
    except BadRecord as error:
        error.where = where
        raise
    if isinstance(record, Mapping):
        # Tables give every row all columns, empty where it has none.
        empty = {name for name in LIST_COLUMNS if name in record and record[name] is None}
        record = {name: record[name] for name in record if name not in empty} if empty else record
    return [from_record(record, where=where, default_id=default_id, notes=notes)]


def read_list(
    record: Mapping[str, Any], *, notes: Notes, least: int = 2
) -> tuple[tuple[Message, ...], list[str], list[Decimal]] | None:
    """Prompt, responses and ratings (higher is better) of a record that has a list of `responses`.

    None where it is another record, one pair or nothing that is compared. A list has at least so
    many. Lists of UltraFeedback and Nectar count, as in :func:`read_record`.

    Raises:
        BadRecord: As there, but without a place.
    """
    column = list_column(record)
    if column is None:
        return None
    row = Notes()
    messages, responses, ratings = _read_list(record, column, row, least)
    notes.add_row(row)
    return messages, list(responses.values()), ratings


def list_column(record: Any) -> str | None:
    """The column with the list of responses; None where a record is one pair, or nothing at all."""
    if not isinstance(record, Mapping):
        return None
    given = [name for name in LISTS if record.get(name) is not None]
    if any(record.get(name) is not None for name in ("chosen", "rejected")):
        rated = any(isinstance(record.get(name), list | tuple) for name in RATINGS)
        if rated and isinstance(record.get("responses"), list | tuple):
            raise BadRecord(
                "the record also has 'chosen' or 'rejected', so its pairs could be either",
                "responses",
                "keep 'responses' with its scores or ranks, or 'chosen' and 'rejected'",
            )
        return None
    if len(given) > 1:
        raise BadRecord(f"the record also has '{given[0]}'", given[1], "keep one of the two")
    ratings = [name for name in RATINGS if isinstance(record.get(name), list | tuple)]
    if ratings and not given:
        raise BadRecord(
            f"it is missing, and there are '{ratings[0]}'",
            "responses",
            "name the list of what they are about 'responses'",
        )
    return given[0] if given else None


def _groups(
    record: Mapping[str, Any], column: str, default_id: str, min_difference: float, row: Notes
) -> Iterator[RankedGroup]:
    messages, responses, ratings = _read_list(record, column, row)
    row.readings[READ] += 1

    copies: dict[str, list[int]] = {}
    for place, response in enumerate(responses.values()):
        copies.setdefault(response.strip(), []).append(place)
    if len(copies) < len(responses):
        row.readings[TWICE] += 1
    texts = list(responses.values())
    given = record.get("id")
    name = check_text(default_id if given is None else as_name(given), "id")
    cluster_id = as_group(record.get("group"))
    least = Decimal(str(min_difference))
    for one, other in itertools.combinations(copies.values(), 2):
        outcome, better, worse = _compare(ratings, one, other, least)
        row.comparisons[outcome] += 1
        if outcome == PAIRS:
            group = RankedGroup(
                id=f"{name}#{better + 1}>{worse + 1}",
                prompt=messages,
                responses=(texts[better], texts[worse]),
                cluster_id=cluster_id,
                domain=record.get("domain"),
            )
            cluster_id = group.cluster_id  # so that a long prompt is hashed once
            yield group
    if not row.comparisons[PAIRS]:
        row.readings[NO_PAIR] += 1


def read_unrated(
    record: Mapping[str, Any], column: str, notes: Notes, least: int = 1
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Prompt, and responses by field, of a record with a list of responses, rated or not.

    Raises:
        BadRecord: As :func:`read_record`, but without a place.
    """
    for field in OF_ONE_PAIR:
        if record.get(field) is not None:
            raise BadRecord(
                f"it is about one pair, and the record has a list of '{column}'",
                field,
                "remove it, or write a record with 'chosen' and 'rejected' for each pair",
            )
    items = _items(record, column, least)
    values = {f"{column}[{place}]": item for place, item in enumerate(items)}
    if column in NESTED:
        text, number, _ = NESTED[column]
        _check_objects(values, text)
        notes.columns.update(
            printable(f"{column}.{name}")
            for item in items
            for name in item
            if name not in (text, number)
        )
        values = {f"{field}.{text}": item[text] for field, item in values.items()}
    prompt, used = record.get("prompt"), {*COLUMNS, column}
    if prompt is None and column == "completions":
        prompt, used = record.get(INSTRUCTION), {*used, INSTRUCTION}
    if column == "responses":
        used |= {*RATINGS, *SAMPLED}
    notes.columns.update(printable(str(key)) for key in record if key not in used)
    return read_shared_prompt(prompt, values, notes)


def _read_list(
    record: Mapping[str, Any], column: str, row: Notes, least: int = 2
) -> tuple[tuple[Message, ...], dict[str, str], list[Decimal]]:
    """Prompt, responses by field, and their ratings (higher is better)."""
    messages, responses = read_unrated(record, column, row, least)
    return messages, responses, _ratings(record, column)


def _compare(
    ratings: Sequence[Decimal], one: Sequence[int], other: Sequence[int], least: Decimal
) -> tuple[str, int, int]:
    """What comes of two texts, given where each occurs, and their first places, better first."""
    firsts = [ratings[place] for place in one]
    seconds = [ratings[place] for place in other]
    for mine, theirs, places in (
        (firsts, seconds, (one[0], other[0])),
        (seconds, firsts, (other[0], one[0])),
    ):
        # The least by which one is above the other, of all copies.
        difference = min(mine) - max(theirs)
        if difference > 0:
            return PAIRS if difference >= least else TOO_CLOSE, *places
    tied = len({*firsts, *seconds}) == 1
    return TIES if tied else UNDECIDED, one[0], other[0]


def _items(record: Mapping[str, Any], column: str, least: int) -> Sequence[Any]:
    items = record[column]
    if not isinstance(items, list | tuple):
        raise BadRecord(
            f"it must be a list, not {name_kind(items)}",
            column,
            "write the table with to_json(lines=True, orient='records') or to_parquet, which keep "
            "lists",
        )
    if len(items) < least:
        needed = "a comparison needs at least two" if least > 1 else "there must be one at least"
        raise BadRecord(
            f"{needed}, and the list has {len(items)}",
            column,
            "add responses, or remove the record",
        )
    return items


def _check_objects(items: Mapping[str, Any], name: str) -> None:
    """Refuse items of a list, by field, that are no objects with something of a name."""
    for field, item in items.items():
        if not isinstance(item, Mapping):
            raise BadRecord(
                f"it must be an object with '{name}', not {name_kind(item)}",
                field,
                f"rename '{field.partition('[')[0]}' to 'responses', a list of texts, and add "
                "'scores' or 'ranks' to compare them",
            )
        if name not in item:
            raise BadRecord(
                f"it has no '{name}'",
                field,
                "write the record with 'responses', a list of texts, and 'scores' or 'ranks', a "
                "list of numbers, to compare them",
            )


def _ratings(record: Mapping[str, Any], column: str) -> list[Decimal]:
    """The ratings of a list of responses, higher is better."""
    items = record[column]
    if column in NESTED:
        _, number, kind = NESTED[column]
        places = {f"{column}[{place}]": item for place, item in enumerate(items)}
        _check_objects(places, number)
        return [_rating(item[number], kind, f"{field}.{number}") for field, item in places.items()]
    given = [name for name in RATINGS if record.get(name) is not None]
    if len(given) != 1:
        raise BadRecord(
            "the record also has 'ranks'" if given else "it is missing, and there are no 'ranks'",
            "scores",
            "keep one of the two"
            if given
            else "add 'scores', a number for each response (higher is better), or 'ranks' "
            "(1 is best)",
        )
    kind = given[0]
    numbers = record[kind]
    if not isinstance(numbers, list | tuple):
        raise BadRecord(
            f"it must be a list, not {name_kind(numbers)}",
            kind,
            f"write a list with a number for each of the {len(items)} responses",
        )
    if len(numbers) != len(items):
        raise BadRecord(
            f"it has {len(numbers)} numbers for {len(items)} responses",
            kind,
            "give a number for each response, in their order",
        )
    return [_rating(value, kind, f"{kind}[{place}]") for place, value in enumerate(numbers)]


def _rating(value: Any, kind: str, field: str) -> Decimal:
    """A score, or a rank with its sign changed, as the decimal number that is written."""
    if value is None:
        raise BadRecord("it is missing", field, "add it, or remove it and its response")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BadRecord(
            f"it must be a number, not {name_kind(value)}", field, "write it without quotes"
        )
    if kind == "ranks":
        value = as_whole_number(value)
        if not isinstance(value, int) or value < 1:
            raise BadRecord(
                f"{show_value(value)} is not a whole number from 1",
                field,
                "rank responses from 1, the best; equal ranks are ties; or name the list 'scores' "
                "if higher is better",
            )
        return Decimal(-value)
    try:
        if math.isfinite(value):
            return Decimal(str(value))
    except OverflowError:
        pass  # a whole number beyond the range of floats
    raise BadRecord(f"{show_value(value)} is not a finite number", field, "use a finite number")

"""Packing: which sequences share a row of limited length."""

import heapq
from collections.abc import Sequence

from posttrain.errors import UserError


def pack_sequences(sizes: Sequence[int], pack_length: int) -> list[list[int]]:
    """Distribute documents over rows: the indices of each row's, ascending; rows by their first.

    Best-fit decreasing: from the largest document to the smallest, each goes to the fullest row
    that has room. It needs at most 11/9 of the fewest possible rows, plus four
    (:cite:p:`Johnson et al. 1974 <johnson1974worst>`). Documents are then spread evenly over that
    number of rows if that makes the longest row shorter, because the others are padded to it.

    >>> pack_sequences([5, 3, 2, 2], pack_length=7)
    [[0, 3], [1, 2]]

    Raises:
        UserError: If a document has more than ``pack_length`` tokens.
    """
    if not sizes:
        return []
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    if sizes[order[0]] > pack_length:
        raise UserError(
            f"document {order[0]} has {sizes[order[0]]} tokens, more than "
            f"pack_length={pack_length}; raise pack_length, or tokenise with max_row_tokens so "
            "that prompts are cut"
        )
    tightest = _best_fit(sizes, order, pack_length)
    even = _spread(sizes, order, len(tightest))
    shortest = min(even, tightest, key=lambda rows: max(sum(sizes[k] for k in row) for row in rows))
    return sorted(sorted(row) for row in shortest)


def _best_fit(sizes: Sequence[int], order: Sequence[int], pack_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    # Rows by the room they have left, and a bit for each amount of room that some row has: the
    # lowest bit from a document's size on is the fullest row that takes it, found without a search.
    with_room: dict[int, list[list[int]]] = {}
    rooms = 0
    for k in order:
        enough = rooms >> sizes[k]
        if enough:
            room = sizes[k] + (enough & -enough).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, row = pack_length, []
            rows.append(row)
        row.append(k)
        left = room - sizes[k]
        with_room.setdefault(left, []).append(row)
        rooms |= 1 << left
    return rows


def _spread(sizes: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    """Longest documents first, each to the row with the fewest tokens so far."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for k in order:
        load, number = loads[0]
        rows[number].append(k)
        heapq.heapreplace(loads, (load + sizes[k], number))
    return rows

"""The summary that `posttrain data check` shows: what a file holds, and what was refused."""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from posttrain.data.formats import BadFile
from posttrain.data.messages import printable
from posttrain.data.notes import Notes, listed
from posttrain.data.preferences import STRENGTHS, BadRecord, RankedGroup
from posttrain.data.reading import inspect_file

LISTED_PER_FILE = 20
REPEATS = ("duplicates", "duplicates_across", "contradictions", "contradictions_across")


@dataclass(frozen=True)
class Summary:
    """A row of :func:`summarise`, the first 20 refused records, before them a bad file, and notes.

    The notes are about what was read otherwise than it stands, and fields that are not used.
    Records are counted by domain, and by column that is not used.
    """

    table: pd.DataFrame
    refused: list[BadRecord]
    notes: list[str] = field(default_factory=list)
    domains: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)

    @property
    def is_cut_short(self) -> bool:
        """Whether the file could not be read to its end."""
        return bool(self.refused) and isinstance(self.refused[0], BadFile)


def summarise_file(
    path: str | Path,
    earlier: set[bytes] | None = None,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> Summary:
    """Summarise what can be read of one file; see :func:`summarise`."""
    notes = Notes()
    items = inspect_file(path, notes, min_difference, columns)
    return summarise(items, str(path), notes, earlier)


def summarise(
    items: Iterable[RankedGroup | BadRecord],
    name: str,
    notes: Notes | None = None,
    earlier: set[bytes] | None = None,
) -> Summary:
    """Summarise groups and refused records, of which a few numbers each stay in memory.

    In the table, `rows` counts records, those with `responses` once a pair, and `groups` distinct
    `group` values; `prompt_words` and `response_words` are medians of words separated by white
    space; `chosen_longer` is the share of chosen responses with
    more characters than the rejected, ties counted half; `refused` counts the bad file too. Medians
    and shares are NaN for a file with no accepted row.

    `duplicates` are rows of which each pair of responses, edited ones included, occurred before
    for the same prompt and domain, apart from white space, and `contradictions` those of which a
    pair occurred the other way round. Rows that are so not by this file but by `earlier` ones, a
    set of digests to which this file's are added, are counted apart: `duplicates_across` and
    `contradictions_across`.

    `notes` may fill while `items` are drawn.
    """
    earlier = set() if earlier is None else earlier
    own: set[bytes] = set()
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
        pairs, turned = _digests(item)
        repeats, repeats_across = pairs <= own, all(one in own or one in earlier for one in pairs)
        against, against_across = turned & own, turned & earlier
        counts["duplicates"] += repeats
        counts["duplicates_across"] += repeats_across and not repeats
        counts["contradictions"] += bool(against)
        counts["contradictions_across"] += bool(against_across and not against)
        own |= pairs
        strengths[item.strength] += 1
        if item.domain is not None:
            domains[item.domain] += 1
        clusters.add(hashlib.blake2b(item.cluster_id.encode(), digest_size=16).digest())
        prompt_words.append(sum(len(message.content.split()) for message in item.prompt))
        response_words.extend(len(response.split()) for response in item.responses)
        chosen, rejected = len(item.chosen), len(item.rejected)
        longer += (chosen > rejected) + (chosen == rejected) / 2
    earlier |= own
    domains = Counter({printable(name): count for name, count in domains.items()})
    notes = Notes() if notes is None else notes
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
        **{name: counts[name] for name in REPEATS},
        "domains": listed(domains),
        "ignored_columns": listed(notes.columns),
    }
    table = pd.DataFrame([row], index=pd.Index([name], name="file"))
    return Summary(table, refused, notes.lines(columns=False), domains, notes.columns)


def _median(numbers: array[int]) -> float:
    return float(np.median(numbers)) if numbers else float("nan")


def _digests(group: RankedGroup) -> tuple[set[bytes], set[bytes]]:
    """Digests of the group's pairs, apart from white space, and of the same turned round."""

    def digest(*parts: str | None) -> str:
        words = [part and " ".join(part.split()) for part in parts]
        return hashlib.blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()

    turns = itertools.chain.from_iterable((turn.role, turn.content) for turn in group.prompt)
    prompt = digest(group.domain, *turns)
    responses = [digest(response) for response in group.responses]

    def key(first: int, second: int) -> bytes:
        return hashlib.blake2b(
            (prompt + responses[first] + responses[second]).encode(), digest_size=16
        ).digest()

    pairs = {key(pair.winner, pair.loser) for pair in group.pairs()}
    # Responses that differ in white space alone contradict nothing.
    return pairs, {key(pair.loser, pair.winner) for pair in group.pairs()} - pairs

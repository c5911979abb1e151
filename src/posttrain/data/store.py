"""Groups on disk: read once from their source and kept as Arrow, never whole in memory."""

import hashlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from datasets import Dataset

from posttrain.data.mixing import mix_codes
from posttrain.data.notes import Notes
from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources import named
from posttrain.data.splits import Indices, split_codes
from posttrain.errors import UserError
from posttrain.storage import cache

logger = logging.getLogger(__name__)

#: Raise when what is stored of the same source changes: how files and records become groups
#: (:mod:`.formats`, :mod:`.reading`, :mod:`.ratings`, :mod:`.conversations` and what they use), or
#: the columns.
VERSION = 6
ROWS_PER_BATCH = 1000

_TEXT = pyarrow.string()
_SCHEMA = pyarrow.schema(
    {
        "id": _TEXT,
        "prompt": pyarrow.list_(pyarrow.struct({"role": _TEXT, "content": _TEXT})),
        "responses": pyarrow.list_(_TEXT),
        "strength": pyarrow.int8(),
        "margin": pyarrow.float64(),
        "group": _TEXT,
        "domain": _TEXT,
    }
)


@dataclass(frozen=True)
class Stored:
    """Groups on disk, one row a group.

    `counts` says what was left out while reading, by reason, and `notes` what was not used, or read
    otherwise than it stands; `fingerprint` is a hash of the groups, whatever code has read them;
    messages name the `sources`.
    """

    rows: Dataset
    counts: dict[str, int]
    fingerprint: str
    notes: Notes = field(default_factory=Notes)
    sources: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[RankedGroup]:
        return map(group_of, self.rows)

    def select(self, indices: Indices) -> "Stored":
        """Some of the groups."""
        name = hashlib.sha256(self.fingerprint.encode() + indices.tobytes()).hexdigest()[:16]
        return replace(self, rows=self.rows.select(indices), fingerprint=name)

    def split(self, *, test_fraction: float, seed: int) -> tuple["Stored", "Stored"]:
        """Training and test groups, as of :func:`.data.splits.split` but from less memory."""
        names = self.rows.with_format("arrow")["group"][:]
        # Places in alphabetical order.
        places = pyarrow.compute.rank(names, sort_keys="ascending", tiebreaker="dense")
        codes = np.asarray(places).astype(np.intp) - 1
        training, test = split_codes(codes, test_fraction=test_fraction, seed=seed)
        return self.select(training), self.select(test)

    def mixed(self, shares: Mapping[str, float], *, seed: int) -> "Stored":
        """As many groups as a mix allows, as of :func:`.data.mixing.mix` but from less memory."""
        codes, known = self._domain_codes

        def name_of(place: int) -> str:
            return f"record {self.rows[place]['id']!r}"

        return self.select(mix_codes(codes, known, shares, seed=seed, name_of=name_of))

    def domains(self, indices: Indices | None = None) -> dict[str | None, int]:
        """Number of groups, of all or of those at some indices, by domain; None: without one."""
        codes, known = self._domain_codes
        chosen = codes if indices is None else codes[indices]
        counts = np.bincount(chosen + 1, minlength=len(known) + 1).tolist()
        return {name: count for name, count in zip([None, *known], counts, strict=True) if count}

    @cached_property
    def _domain_codes(self) -> tuple[Indices, list[str]]:
        """Place of each group's domain among all of them in alphabetical order; -1 for none."""
        # By batches: gathering a whole column of selected rows takes a kilobyte a row.
        batches = self.rows.select_columns("domain").with_format("arrow").iter(ROWS_PER_BATCH)
        seen: dict[str | None, int] = {}
        names = itertools.chain.from_iterable(batch["domain"].to_pylist() for batch in batches)
        codes = np.fromiter((seen.setdefault(name, len(seen)) for name in names), dtype=np.intp)
        known = sorted(name for name in seen if name is not None)
        places = [-1 if name is None else known.index(name) for name in seen]
        return np.array(places, dtype=np.intp)[codes], known


def stored(
    sources: Sequence[str],
    *,
    skip_bad: bool = False,
    min_difference: float = 0.0,
    columns: Mapping[str, str] | None = None,
) -> Stored:
    """Read groups from sources, named as in :mod:`.sources.named`, and store them.

    Of records with `responses`, two that differ by less than `min_difference` make no group.
    `columns` are the sources' own names of columns by ours (:func:`.parse_columns`).

    What was noted while they were read is logged as one warning, also when they are stored already.

    Raises:
        UserError: If a source is unknown or unreadable, no record is left, or one is bad; with
            `skip_bad`, bad records are counted and left out instead.
    """
    identities = [named.identity(source) for source in sources]
    settings = {"sources": identities, "skip_bad": skip_bad, "min_difference": min_difference}
    if columns:
        settings["columns"] = dict(columns)
    name = cache.key(settings, version=VERSION)

    def make(folder: Path) -> None:
        counts: Counter[str] = Counter()
        notes = Notes()
        groups = itertools.chain.from_iterable(
            named.iterate(
                source,
                counts=counts,
                skip_bad=skip_bad,
                notes=notes,
                min_difference=min_difference,
                columns=columns,
            )
            for source in sources
        )
        with pyarrow.ipc.new_stream(folder / "groups.arrow", _SCHEMA) as file:
            while batch := list(itertools.islice(groups, ROWS_PER_BATCH)):
                rows = [_row(group) for group in batch]
                file.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        with (folder / "groups.arrow").open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        account = {"counts": counts, "notes": notes.to_json(), "sha256": content}
        (folder / "account.json").write_text(json.dumps(account), encoding="utf-8")

    folder = cache.get_or_create(f"data/{name}", make)
    rows = Dataset.from_file(str(folder / "groups.arrow"))
    account = json.loads((folder / "account.json").read_text(encoding="utf-8"))
    counts = account["counts"]
    notes = Notes.from_json(account["notes"])
    if not len(rows):
        noted = "".join(f"; {line}" for line in notes.lines())
        raise UserError(
            f"{', '.join(sources)}: no record is left to work with; left out: {counts}{noted}"
        )
    if os.environ.get("RANK", "0") == "0":  # other processes of a run read the same
        notes.warn(logger, sources)
    return Stored(rows, counts, account["sha256"][:16], notes, tuple(sources))


def _row(group: RankedGroup) -> dict[str, Any]:
    row = asdict(group)
    # The column has the name that files have.
    row["group"] = row.pop("cluster_id")
    return row


def group_of(row: dict[str, Any]) -> RankedGroup:
    """The group of one row."""
    fields = dict(row)
    fields["cluster_id"] = fields.pop("group")
    fields["prompt"] = tuple(Message(**message) for message in row["prompt"])
    fields["responses"] = tuple(row["responses"])
    return RankedGroup(**fields)


def quiet() -> None:
    """Show no progress bars of reading and tokenising."""
    datasets.disable_progress_bars()

"""Preference data from the Hugging Face hub, as a stream of ranked groups.

The four data sets of :data:`HUB` are converted by :mod:`.hub.converters`; the rows of any other
must be in TRL's preference format already (for instance `trl-lib/ultrafeedback_binarized`), or
lists of responses with scores or ranks (:mod:`.ratings`; `berkeley-nest/Nectar`).
`datasets` loads them, into a memory-mapped cache on disk or as a stream; no set is ever wholly in
memory, and no code of a data set is run.

On a machine without network, download the files elsewhere with
`hf download --repo-type dataset OWNER/NAME --local-dir FOLDER` and pass the folder as `path`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError

from posttrain.data.messages import BadRecord
from posttrain.data.notes import Notes
from posttrain.data.preferences import RankedGroup, fingerprint
from posttrain.data.ratings import read_record
from posttrain.data.sources.hub.converters import convert_contract
from posttrain.data.sources.hub.registry import HUB, HubSource, Subset
from posttrain.data.sources.hub.rows import Edits, Place
from posttrain.errors import UserError

__all__ = ["HUB", "HubSource", "Subset", "iterate"]


def iterate(
    name: str,
    *,
    subset: str | None = None,
    split: str = "train",
    path: str | Path | None = None,
    revision: str | None = None,
    streaming: bool = False,
    skip_bad: bool = False,
    dropped: Counter[str] | None = None,
    notes: Notes | None = None,
    reader: Callable[..., Sequence[Any]] = read_record,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """Read one split of a data set on the hub as ranked groups, in the order of subsets and rows.

    An `id` says where a group comes from, such as `nvidia/HelpSteer3/preference/train-17`: rows are
    counted from 0 as the hub's viewer does, whatever was dropped before. In sets of :data:`HUB` a
    comparison that occurred before (same prompt, responses, strength and domain) is dropped as
    `repeated comparison`, because counting it twice would weigh it double; memory holds a short
    hash for each.

    HelpSteer3 is read with its edits joined to its preferences unless a subset is asked for; the
    index of the edits needs their files on disk, also when streaming.

    Args:
        name: A key of :data:`HUB`, or `owner/name` of any data set in TRL's preference format.
        subset: One part of the data set (outside :data:`HUB`, a configuration); by default all of
            its parts that judge different responses.
        split: Such as `train`, `validation` or `test`.
        path: A folder with the data set's files under their own names, to read instead of the hub.
        revision: A commit, tag or branch on the hub; by default the one in :data:`HUB`, so that a
            run can be reproduced, and otherwise the newest.
        streaming: Read rows as they arrive instead of from a memory-mapped cache on disk.
        skip_bad: Count bad rows in `dropped` instead of raising the first.
        dropped: Filled, while groups are drawn, with the number of dropped comparisons per reason.
        notes: Filled with what was not used, or read otherwise than it stands, in rows of sets
            outside :data:`HUB`, whose columns no converter knows.
        reader: Reads rows of sets outside :data:`HUB`; by default to ranked groups.
        columns: Names of columns in sets outside :data:`HUB`, by ours.

    Raises:
        UserError: Unknown name, subset or split, at once; data that cannot be reached or read.
        BadRecord: A row breaks its schema or the data contract, while groups are drawn.
    """
    source = _find(name, subset)
    for part in source.default:
        files = source.subsets[part].files
        if files is not None and split not in files:
            known = ", ".join(files)
            raise UserError(f"{name}: {part} has no split {split!r}; choose one of {known}")
    if path is not None and not Path(path).is_dir():
        raise UserError(f"{path} is not a folder; pass the one that holds the files of {name}")
    if path is not None and revision is not None:
        raise UserError("give a path or a revision, not both: a folder has no revision")
    revision = revision or source.revision
    if path is None:
        origin = {"path": name, "revision": revision}
    else:
        # In full, because a short path could be taken for a data set or a format.
        origin = {"path": str(Path(path).resolve())}
    explained = partial(_explained, name, path, revision)

    def load(part: str, streaming: bool) -> Any:
        files = source.subsets[part].files
        what = {"name": part or None} if files is None else {"data_files": {split: files[split]}}
        with explained():
            return load_dataset(**origin, **what, split=split, streaming=streaming)

    edits = load(source.edits, streaming=False) if source.edits else None
    rows = {part: load(part, streaming) for part in source.default}
    dropped = Counter() if dropped is None else dropped
    place = Place(name, split, dropped, notes=notes, reader=reader, columns=columns or {})
    return _convert(source, rows, edits, explained, skip_bad, place)


def _find(name: str, subset: str | None) -> HubSource:
    """Return a source whose default is what the caller asks for."""
    if name in HUB:
        source = HUB[name]
        if subset is None:
            return source
        if subset not in source.subsets:
            known = ", ".join(source.subsets)
            raise UserError(f"{name} has no subset {subset!r}; choose one of {known}")
        return replace(source, default=(subset,), edits=None)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"unknown data set {name!r}; use {', '.join(HUB)}, or owner/name of a data set in "
            "TRL's preference format"
        )
    part = subset or ""
    subsets = {part: Subset(convert_contract)}
    return HubSource(name, "in TRL's preference format", "see its card", None, subsets, (part,))


def _convert(
    source: HubSource,
    rows: Mapping[str, Dataset | IterableDataset],
    edit_rows: Dataset | None,
    explained: Callable[[], AbstractContextManager[None]],
    skip_bad: bool,
    place: Place,
) -> Iterator[RankedGroup]:
    if edit_rows is not None:
        place = replace(place, edits=Edits(edit_rows))
    seen: set[str] = set()
    for part, data in rows.items():
        subset = source.subsets[part]
        if subset.rows > 1:
            # Only streams can be cut into batches without writing a second copy to disk.
            stream = data.to_iterable_dataset() if isinstance(data, Dataset) else data
            data = stream.batch(subset.rows)
        where = "/".join(filter(None, (source.name, part, place.split)))
        for number, row in enumerate(_drawn(data, where, explained)):
            first = number * subset.rows
            try:
                groups = list(subset.convert(row, replace(place, id=f"{where}-{first}")))
            except BadRecord as error:
                error.where = f"{where}, row {first} (counted from 0)"
                if not skip_bad:
                    raise
                place.dropped["bad records"] += 1
                continue
            for group in groups:
                if source.name in HUB:
                    key = fingerprint([replace(group, id="any")])
                    if key in seen:
                        place.dropped["repeated comparison"] += 1
                        continue
                    seen.add(key)
                yield group


def _drawn(
    data: Dataset | IterableDataset,
    where: str,
    explained: Callable[[], AbstractContextManager[None]],
) -> Iterator[dict[str, Any]]:
    empty = True
    with explained():
        for row in data:
            empty = False
            yield row
    if empty:
        raise UserError(f"{where}: the file has no rows; download it again")


@contextmanager
def _explained(name: str, path: str | Path | None, revision: str | None) -> Iterator[None]:
    """Turn whatever loading raises into a UserError that says what to do."""
    try:
        yield
    except Exception as error:
        # The libraries raise errors of a dozen types; what went wrong stands in the first cause.
        reason = str(error.__cause__ or error).partition("\n")[0] or type(error).__name__
        commit = f"--revision {revision} " if revision else ""
        download = f"`hf download --repo-type dataset {name} {commit}--local-dir FOLDER`"
        page = f"https://huggingface.co/datasets/{name}"
        if path is not None:
            remedy = f"the folder must hold what {download} writes"
        elif "gated" in str(error):
            remedy = f"accept its terms at {page}, then run `hf auth login`"
        elif isinstance(error, DatasetNotFoundError):
            remedy = (
                "check name and revision, run `hf auth login` if it is private, or use one of "
                + ", ".join(HUB)
            )
        else:
            remedy = f"see {page}; without network, run {download} elsewhere and pass it as 'path'"
        raise UserError(f"{path or name} cannot be read ({reason}); {remedy}") from error

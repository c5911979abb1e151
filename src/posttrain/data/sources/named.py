"""Sources by name, as settings and the command line know them.

- ``mine.jsonl``, ``mine.jsonl.gz``, ``mine.csv``, ``mine.parquet``: a file in the project's record
  format, or with lists of responses (:mod:`.ratings`);
- ``ukpconvarg`` and the like: human data in the folder that ``POSTTRAIN_DATA`` names;
- ``simulator:2000`` or ``simulator:2000:7``: so many simulated groups, drawn with a seed;
- ``owner/name``: a data set of the Hugging Face hub (see :mod:`.hub.read`). A subset may follow
  (``owner/name/subset``), then a commit or a folder with its files (``@commit``, ``@./folder``),
  then a split (``:validation``); the default is ``:train``.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import dataset_info

from posttrain.data.formats import SUFFIXES
from posttrain.data.notes import Notes
from posttrain.data.preferences import BadRecord, RankedGroup
from posttrain.data.reading import scan
from posttrain.data.sources import human
from posttrain.data.sources.hub import read, registry
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator import annotators, tasks
from posttrain.data.sources.simulator.annotators import stream_ranked
from posttrain.errors import UserError

SIMULATED = re.compile(r"simulator:(\d+)(?::(\d+))?")
ON_HUB = re.compile(
    r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:/(?P<subset>[\w.-]+))?"
    r"(?:@(?P<at>[^:]+))?(?::(?P<split>[\w.-]+))?"
)


def iterate(
    source: str,
    *,
    counts: Counter[str] | None = None,
    skip_bad: bool = False,
    notes: Notes | None = None,
    min_difference: float = 0.0,
) -> Iterator[RankedGroup]:
    """Groups of a source, one after the other; `counts` gets what was left out, by reason.

    `notes` gets what was not used, or read otherwise than it stands. Of records with `responses`,
    two that differ by less than `min_difference` make no group.

    Raises:
        UserError: If a source is unknown or unreadable, or, unless `skip_bad`, a record is bad.
    """
    counts = Counter() if counts is None else counts
    notes = Notes() if notes is None else notes
    if match := SIMULATED.fullmatch(source):
        yield from stream_ranked(int(match[1]), seed=int(match[2] or 0))
    elif is_file(source):
        yield from _of_file(Path(source), counts, skip_bad, notes, min_difference)
    elif match := ON_HUB.fullmatch(source):
        at = match["at"]
        folder = at if at and Path(at).is_dir() else None
        yield from read.iterate(
            match["name"],
            subset=match["subset"],
            split=match["split"] or "train",
            path=folder,
            revision=None if folder else at,
            skip_bad=skip_bad,
            dropped=counts,
            notes=notes,
            min_difference=min_difference,
        )
    else:
        groups, description = _human(source, notes, min_difference)
        counts.update(description.get("dropped", {}))
        yield from groups


def identity(source: str) -> dict[str, Any]:
    """What changes whenever the groups of a source do: names, hashes and versions of code.

    Human data have a fingerprint of their own. How records become groups, which is the same for all
    sources, is part of :data:`.store.VERSION`.

    Raises:
        UserError: If there is no such source, or the hub does not tell its newest commit.
    """
    if SIMULATED.fullmatch(source):
        return {"source": source, "tasks": tasks.VERSION, "annotators": annotators.VERSION}
    if is_file(source):
        return {"source": source, "sha256": _hash(Path(source))}
    if match := ON_HUB.fullmatch(source):
        at = match["at"]
        if at and Path(at).is_dir():
            files = sorted(path for path in Path(at).rglob("*") if path.is_file())
            hashes = {str(path.relative_to(at)): _hash(path) for path in files}
            name = source.replace(f"@{at}", "")
            return {"source": name, "files": hashes, "converters": registry.VERSION}
        if at and not re.fullmatch(r"[0-9a-f]{7,40}", at):
            # A branch moves, and what was read of it would be taken for what it is now.
            raise UserError(
                f"{source}: {at!r} is neither a folder that exists nor a commit; name the folder "
                "with the data set's files, or the commit's hash"
            )
        revision = at or _revision(match["name"])
        return {"source": source, "revision": revision, "converters": registry.VERSION}
    return {"source": source} | _human(source)[1]


def _revision(name: str) -> str:
    """The commit that is read of a data set on the hub unless another is asked for."""
    if name in read.HUB and read.HUB[name].revision:
        return str(read.HUB[name].revision)
    try:
        return str(dataset_info(name).sha)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise UserError(
            f"the hub was asked for the newest commit of {name} in vain ({type(error).__name__}); "
            f"check name and network, or name a commit or a folder: {name}@COMMIT, {name}@FOLDER"
        ) from error


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); check the path and the file"
        ) from None


def _of_file(
    path: Path, counts: Counter[str], skip_bad: bool, notes: Notes, min_difference: float
) -> Iterator[RankedGroup]:
    for item in scan(path, notes, min_difference):
        if not isinstance(item, BadRecord):
            yield item
        elif skip_bad:
            counts["bad records"] += 1
        else:
            raise item


def _human(
    source: str, notes: Notes | None = None, min_difference: float = 0.0
) -> tuple[list[RankedGroup], dict[str, Any]]:
    try:
        return human.load(source, notes, min_difference)
    except BadRecord:
        raise
    except ValueError as error:
        if source in ORIGINALS:
            raise
        raise UserError(
            f"unknown source {source!r}; give a file ({', '.join(SUFFIXES)}), owner/name of the "
            f"Hugging Face hub, simulator:COUNT, or human data ({', '.join(ORIGINALS)}, or a file "
            f"of your own by its name: {error})"
        ) from None


def is_file(source: str) -> bool:
    """Whether a source is a file, by its name."""
    return source.lower().endswith(SUFFIXES)

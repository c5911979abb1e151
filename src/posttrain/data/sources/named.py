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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import dataset_info

from posttrain.data.formats import SUFFIXES
from posttrain.data.notes import Notes
from posttrain.data.preferences import BadRecord, RankedGroup
from posttrain.data.ratings import check_min_difference, read_record
from posttrain.data.reading import Reader, ReadNamed, scan_named
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
    columns: Mapping[str, str] | None = None,
) -> Iterator[RankedGroup]:
    """Groups of a source, one after the other; `counts` gets what was left out, by reason.

    `notes` gets what was not used, or read otherwise than it stands. Of records with `responses`,
    two that differ by less than `min_difference` make no group. `columns` are the source's own
    names of columns by ours (:func:`.parse_columns`).

    Raises:
        UserError: If a source is unknown or unreadable, or, unless `skip_bad`, a record is bad, or
            columns are mapped of a source whose columns are known.
    """
    check_min_difference(min_difference)
    reader = partial(read_record, min_difference=min_difference)
    return iterate_by(
        reader, source, counts=counts, skip_bad=skip_bad, notes=notes, columns=columns
    )


def iterate_by(
    reader: Reader[ReadNamed],
    source: str,
    *,
    others: Sequence[str] = (),
    counts: Counter[str] | None = None,
    skip_bad: bool = False,
    notes: Notes | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[ReadNamed | RankedGroup]:
    """As :func:`iterate`, with records of files, and of sets without a converter, read by a reader.

    `others` are columns that a table may have in place of those of preferences.
    """
    counts = Counter() if counts is None else counts
    notes = Notes() if notes is None else notes
    path = _path(source)
    on_hub = None if path else ON_HUB.fullmatch(source)
    if columns and not path and not (on_hub and on_hub["name"] not in read.HUB):
        raise UserError(
            f"columns are mapped in files, and in sets of the hub in TRL's format; those of "
            f"{source} are known, so leave --columns out, or read it in a command of its own"
        )
    if match := SIMULATED.fullmatch(source):
        yield from stream_ranked(int(match[1]), seed=int(match[2] or 0))
    elif path:
        for item in scan_named(path, notes, reader, others=others, columns=columns):
            if not isinstance(item, BadRecord):
                yield item
            elif skip_bad:
                counts["bad records"] += 1
            else:
                raise item
    elif on_hub:
        at = on_hub["at"]
        folder = at if at and Path(at).is_dir() else None
        yield from read.iterate(
            on_hub["name"],
            subset=on_hub["subset"],
            split=on_hub["split"] or "train",
            path=folder,
            revision=None if folder else at,
            skip_bad=skip_bad,
            dropped=counts,
            notes=notes,
            reader=reader,
            columns=columns,
        )
    else:
        groups, description = _human(source)
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


def _path(source: str) -> Path | None:
    """The file that a source is, if it is one, or that has its name among human data."""
    if is_file(source):
        return Path(source)
    known = SIMULATED.fullmatch(source) or ON_HUB.fullmatch(source)
    return None if known else human.own_file(source)


def _human(source: str) -> tuple[list[RankedGroup], dict[str, Any]]:
    try:
        return human.load(source)
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

"""Where slow intermediate results are kept between runs, and how they are named.

Who makes a result names it with :func:`key` by all that decides it: settings, versions of
libraries, and an integer ``VERSION`` of its own, raised by hand when the code gives another result.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


def folder() -> Path:
    """The cache folder: ``$POSTTRAIN_CACHE``, or ``posttrain`` in the user's cache folder."""
    configured = os.environ.get("POSTTRAIN_CACHE")
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "posttrain"


def key(settings: Mapping[str, Any], *libraries: str, version: int) -> str:
    """A name for a result: 16 hexadecimal digits that change with all that decides it.

    That is JSON-serialisable settings, installed versions of ``libraries``, and the code's
    ``version``.
    """
    installed = {library: metadata.version(library) for library in libraries}
    content = {"settings": settings, "libraries": installed, "version": version}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def get_or_create(name: str, make: Callable[[Path], None], *, parent: Path | None = None) -> Path:
    """The cached folder ``name``, made by ``make`` in a scratch folder if it is missing.

    It stands in ``parent``, by default the cache folder. So it is there whole or not at all, also
    if this process is killed or others make it meanwhile.

    >>> from unittest import mock
    >>> def make(folder: Path) -> None:
    ...     print("making it")
    ...     _ = (folder / "answer").write_text("42")
    >>> with tempfile.TemporaryDirectory() as own, mock.patch.dict(os.environ, POSTTRAIN_CACHE=own):
    ...     for _ in range(2):
    ...         print((get_or_create("thing", make) / "answer").read_text())
    making it
    42
    42
    """
    target = (parent or folder()) / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        make(scratch)
        # mkdtemp makes a private folder; a cache may be shared.
        scratch.chmod(0o755)
        # Another process may have been faster; its folder holds the same bytes.
        try:
            os.rename(scratch, target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target

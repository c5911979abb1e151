"""Where slow intermediate results are kept between runs, and how they are named."""

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def folder() -> Path:
    """The cache folder: ``$POSTTRAIN_CACHE``, or ``posttrain`` in the user's cache folder."""
    configured = os.environ.get("POSTTRAIN_CACHE")
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "posttrain"


def key(settings: Mapping[str, Any], *code: ModuleType | Callable[..., Any]) -> str:
    """A name for a result: changes with its settings and with the code that makes it.

    Args:
        settings: What the result depends on; JSON-serialisable.
        code: Modules and functions whose source text takes part.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for piece in code:
        digest.update(inspect.getsource(piece).encode())
    return digest.hexdigest()[:16]


def get_or_create(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder ``name``, made by ``make`` in a scratch folder if it is missing.

    So it is there whole or not at all, also if this process is killed or others make it meanwhile.
    """
    target = folder() / name
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

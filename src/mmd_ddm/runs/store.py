"""What was computed before, by the content it was computed from, in one folder.

A key is the hash of everything that the value depends on; where that is code of ours,
`code_sha256` is part of it. Of several ranks all compute or none does, and the first one writes.
"""

import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmd_ddm.runs import ranks
from mmd_ddm.runs.folder import atomic_write, read_json, write_json
from mmd_ddm.runs.launch import is_first

__all__ = ["afresh", "cache_dir", "remembered", "remembered_arrays"]


_instead: Path | None = None


@contextmanager
def afresh() -> Iterator[None]:
    """Within, nothing is remembered from before, nor kept for later."""
    global _instead
    with TemporaryDirectory() as folder:
        before, _instead = _instead, Path(folder)
        try:
            yield
        finally:
            _instead = before


def cache_dir() -> Path:
    """``$MMD_DDM_CACHE``, or ``~/.cache/mmd-ddm``; it need not exist yet."""
    if _instead is not None:
        return _instead
    return Path(os.environ.get("MMD_DDM_CACHE", Path.home() / ".cache" / "mmd-ddm"))


def remembered(
    kind: str, key: str, compute: Callable[[], dict[str, Any]], *, root: Path | None = None
) -> dict[str, Any]:
    """``compute()``, or what it gave under this key before; whatever JSON can hold.

    Args:
        kind: the folder of the cache.
        key: see `key_of`.
        compute: asked where nothing, or nothing that can be read, is kept.
        root: of a job that keeps its own, in place of the cache.
    """
    path = (root or cache_dir()) / kind / f"{key}.json"
    value: Any = None
    with suppress(ValueError):
        value = read_json(path)
    if ranks.any_of(value is None):
        value = compute()
        if is_first():
            write_json(path, value)
    return value


def remembered_arrays(
    kind: str, key: str, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The same of named arrays."""
    path = cache_dir() / kind / f"{key}.npz"
    value: Any = None
    # Opened here: of a damaged file, numpy would leave it open.
    with suppress(ValueError, OSError, zipfile.BadZipFile), path.open("rb") as file:
        value = dict(np.load(file))
    if ranks.any_of(value is None):
        value = compute()
        if is_first():
            with atomic_write(path) as target:
                np.savez(target, **value)
    return value

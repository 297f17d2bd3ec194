"""What was computed before, by the content it was computed from, in one folder.

A key is the hash of everything that the value depends on; where that is code of ours,
`fingerprint.code_sha256` is part of it. Of several ranks all compute or none does, and the first one writes.
"""

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mmd_ddm.runs import ranks
from mmd_ddm.runs.folder import atomic_write, read_json, write_json
from mmd_ddm.runs.launch import is_first

__all__ = ["cache_dir", "remembered", "remembered_arrays"]


def cache_dir() -> Path:
    """``$MMD_DDM_CACHE``, or ``~/.cache/mmd-ddm``; it need not exist yet."""
    return Path(os.environ.get("MMD_DDM_CACHE", Path.home() / ".cache" / "mmd-ddm"))


def remembered(kind: str, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """``compute()``, or what it gave under this key before; whatever JSON can hold.

    Args:
        kind: the folder of the cache.
        key: see `fingerprint.key_of`.
        compute: asked where nothing, or nothing that can be read, is kept.
    """
    path = cache_dir() / kind / f"{key}.json"
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
